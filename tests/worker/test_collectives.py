"""Which collective a rank waits for, in two real processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.worker.collectives import unfinished

WAITS = """
import os, sys, threading
import torch
import torch.distributed as dist
from harness.worker.collectives import PATIENCE, unfinished
from harness.spatial import group

rank, place = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", store=dist.FileStore(place, 2), rank=rank, world_size=2, timeout=PATIENCE)
both = group.build([[0, 1]], 2, 1).whole
group.all_gather(torch.ones(3), both)  # ends, and is not told of
if rank == 1:
    sys.stdin.read()
    os._exit(0)

def tell():
    while "all_to_all" not in (text := unfinished()):
        pass
    print(text, flush=True)
    os._exit(0)

threading.Thread(target=tell).start()
group.all_to_all([torch.ones(2, 4), torch.ones(2, 4)], [8, 8], both)  # the other never comes
"""


def test_the_collective_and_its_callers_are_named(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WAITS, str(rank), str(tmp_path / "store")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told, _ = ranks[0].communicate(timeout=60)
    finally:
        for rank in ranks:
            with rank:
                rank.kill()
    first, caller = told.splitlines()
    assert first == "has not finished gloo:all_to_all number 2 (Float 16)"
    assert "harness/spatial/group.py" in caller
    assert caller.endswith(" in all_to_all")


def test_nothing_is_told_where_nothing_is_waited_for() -> None:
    assert unfinished() == ""


def test_of_a_queue_the_oldest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where a rank goes on behind a collective that hangs."""

    def entry(number: int, retired: bool) -> dict[str, object]:
        return {
            "profiling_name": "nccl:all_to_all",
            "collective_seq_id": number,
            "time_created_ns": number,
            "input_dtypes": ["BFloat16", "BFloat16"],
            "input_sizes": [[2, 3]],
            "retired": retired,
            "frames": [{"name": "exchange", "filename": "/elsewhere/engine.py", "line": 7}],
        }

    record = pickle.dumps({"entries": [entry(7, True), entry(9, False), entry(8, False)]})
    monkeypatch.setattr(torch._C._distributed_c10d, "_dump_nccl_trace", lambda **asked: record, raising=False)
    assert unfinished().splitlines() == [
        "has not finished nccl:all_to_all number 8 (BFloat16 2x3), and 1 more queued behind it",
        '  File "/elsewhere/engine.py", line 7 in exchange',
    ]
