"""Messages between parent and rank come back as they were sent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.planning import cut
from harness.types import Case, FailureKind, RunSpec, Size, Times
from harness.worker import protocol
from harness.worker.protocol import Done, Message, Order, Raised, Ready, Start, Step, Unwritable

CASE = Case("c", "fake", Size(144, 144), ("waves\n", "\u2028"))
SPEC = RunSpec(CASE, "fake", "", "w", "s", ulysses=2, options={"step_s": 0.5}, plan=cut.cut(CASE.size, 2, "h"))


@pytest.mark.parametrize(
    "message",
    [
        Start(1, 2, "cuda", 3, "bfloat16", "/models/m", "/tmp/store"),
        Order("fake"),
        Order("fake", SPEC, "/runs/r"),
        Ready({"torch": "2"}),
        Step(3),
        Done(1),
        Done(1, {"bytes": 2}, (True, False), ("image-0.png",), "latents.safetensors", Times(0.5, (1.0, 2.0)), (7,)),
        Raised("ValueError: x", "Traceback"),
        Raised("MemoryError", "Traceback", FailureKind.OUT_OF_MEMORY),
        Unwritable("/runs/r", 28),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_is_one_line_and_comes_back(message: Message) -> None:
    line = protocol.encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert protocol.decode(line) == message


@pytest.mark.parametrize("line", ["[]", "{}", '{"kind": "Stop"}', '{"kind": "Step"}', "{"])
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"protocol|Step|delimiter|property name"):
        protocol.decode(line)


def test_it_needs_the_standard_library_alone() -> None:
    program = (
        "import sys; before = set(sys.modules)\n"
        "import harness.worker.protocol\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["harness"]
