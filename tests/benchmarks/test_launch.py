"""Processes started the plain way: one that fails is told by its own log, and nothing may be left out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import codec

RANK = """
import json, os, signal, sys, time
from pathlib import Path

job, rank = json.loads(Path(sys.argv[1]).read_text()), int(os.environ["LOCAL_RANK"])
if rank == job["failing"]:
    print("the last words of rank", rank, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV) if job["how"] == "signal" else sys.exit(7)
if job["failing"] >= 0:
    time.sleep(60)  # waits for the other in vain
Path(job["folder"], f"{rank}.json").write_text(json.dumps({"runs": [{"digest": d} for d in job["drawn"][rank]]}))
"""


@pytest.fixture
def launching(scripts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    import _launch

    monkeypatch.setattr(_launch, "DRAW", tmp_path / "rank.py")
    (tmp_path / "rank.py").write_text(RANK, encoding="utf-8")
    return _launch


@pytest.mark.parametrize(("how", "said"), [("signal", "ended by SIGSEGV"), ("exit", "exit code 7")])
def test_the_first_that_fails_is_told_with_its_log(launching: Any, how: str, said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        launching.launch(launching.DRAW, {"failing": 1, "how": how}, num_processes=2, world_size=2)
    message = str(ended.value)
    assert f"(process 1 of 2): {said}\n" in message
    assert "the last words of rank 1" in message


@pytest.mark.parametrize(
    ("world_size", "drawn", "whole"),
    [
        (2, lambda a, b: [[a, b], [a, b]], True),
        (2, lambda a, b: [[a, b], [a]], False),
        (1, lambda a, b: [[b], [a]], True),
        (1, lambda a, b: [[a, b], []], True),
        (1, lambda a, b: [[b], []], False),
        (1, lambda a, b: [[b, a], [a]], False),
    ],
)
def test_every_run_has_to_be_drawn_once(bench: Any, launching: Any, world_size: int, drawn: Any, whole: bool) -> None:
    specs = [spec for spec in bench.plan().plan.specs.values() if spec.world_size == world_size][:2]
    said = drawn(*(spec.digest for spec in specs))
    if whole:
        assert len(launching.draw(specs, side_by_side=2, failing=-1, drawn=said).replies) == 2
    else:
        with pytest.raises(SystemExit, match="of 2 runs of"):
            launching.draw(specs, side_by_side=2, failing=-1, drawn=said)


def test_on_gpus_as_many_processes_as_there_are(bench: Any, launching: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.execution import gpus

    two = tuple(gpus.Gpu(index, f"GPU-{index}") for index in range(2))
    monkeypatch.setattr(gpus, "visible", lambda device: two if device == "cuda" else ())
    launching.num_singles.cache_clear()
    assert launching.num_singles("cuda") == 2
    assert launching.num_singles("cpu") == len(__import__("os").sched_getaffinity(0))


@pytest.mark.parametrize(("warm", "drawn"), [(None, [0, 1]), (1, [1, 0, 1])])
def test_what_warms_a_process_is_drawn_first_and_not_measured(
    bench: Any, launching: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warm: int | None, drawn: list[int]
) -> None:
    import _draw

    specs = [spec for spec in bench.plan().plan.specs.values() if spec.world_size == 2][:2]
    seen: list[str] = []
    engine = SimpleNamespace(
        packages=(),
        configuration=lambda spec: {},
        load=lambda worker: None,
        draw=lambda spec: seen.append(spec.digest),
    )
    monkeypatch.setattr(_draw.plugins, "load", lambda kind, name: lambda: engine)
    monkeypatch.setattr(os, "_exit", lambda code: None)
    job = {"specs": [codec.encode(spec) for spec in specs], "threads": 1, "folder": str(tmp_path), "warm": warm}
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["_draw.py", str(tmp_path / "job.json")])
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "BEGAN_AT": "0"}.items():
        monkeypatch.setenv(name, value)
    _draw.main()
    assert seen == [specs[index].digest for index in drawn]
    measured = json.loads((tmp_path / "0.json").read_text(encoding="utf-8"))["runs"]
    assert [run["digest"] for run in measured] == [spec.digest for spec in specs]
