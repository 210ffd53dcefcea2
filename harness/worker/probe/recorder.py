"""One probed draw on one rank: what is recorded, and the file it goes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.types import PROBE_FILE, RunSpec
from harness.worker.disk import writing

if TYPE_CHECKING:
    from harness.worker.probe.attention import Ledger
    from harness.worker.probe.outputs import Trace

MAX_TRACED_STEPS = 8
"""Of more denoise steps the first of these are traced, and the last."""


@contextmanager
def probing(spec: RunSpec, folder: Path, rank: int) -> Iterator[None]:
    """Record attention and block outputs of the draw inside the context, and write them when it ends well.

    Parameters
    ----------
    spec
        The request; nothing happens unless it asks for a probe.
    folder
        The run's folder; every rank leaves a file of its own.
    rank
        This rank.
    """
    if not spec.probe:
        yield
        return
    from harness.worker.probe.attention import Ledger, recording
    from harness.worker.probe.outputs import Trace, listening

    steps = spec.case.steps
    traced = frozenset({*range(1, min(steps, MAX_TRACED_STEPS) + 1), steps})
    trace = Trace(traced)
    ledger = Ledger(trace, frozenset({1, steps}))
    with listening(trace), recording(ledger):
        yield
    _write(trace, ledger, folder / PROBE_FILE.format(rank=rank))


def _write(trace: Trace, ledger: Ledger, path: Path) -> None:
    from safetensors.torch import save_file

    left_out = list(ledger.left_out)
    if trace.skipped:
        left_out.append("block outputs of steps " + ", ".join(map(str, trace.skipped)))
    rows = {f"rows/{step}/{module}": tensor.contiguous() for (step, module), tensor in trace.rows.items()}
    rows |= {f"time/{step}/t_embedder": tensor.contiguous() for step, tensor in trace.times.items()}
    rows |= {f"weight/1/{module}": tensor for module, tensor in trace.weights.items()}
    with writing(path.parent):
        save_file(rows | ledger.tensors(), path, metadata={"left_out": json.dumps(left_out)})
