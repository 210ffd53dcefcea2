"""Rates of a device: a large matrix product, a large copy, a large all-to-all; started by ``_floor.py``."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

SIDE = {"cpu": 1024, "cuda": 8192}
COPY_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}
MESSAGE_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}
REPEATS = 10


def main() -> None:
    """Measure on rank 0 alone, then on all ranks at once."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    local_rank, rank = int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    if job["device"] == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if job["device"] == "cuda" else "gloo")
    dtype, shrink = getattr(torch, job["dtype"]), 16 if job["quick"] else 1
    reply = {}
    for who in ("one", "all"):
        dist.barrier()
        if who == "all" or rank == 0:
            reply[f"{who}_operations_per_s"] = _product(job["device"], dtype, SIDE[job["device"]])
            reply[f"{who}_read_bytes_per_s"] = _copy(job["device"], COPY_BYTES[job["device"]] // shrink)
    dist.barrier()
    reply["all_sent_bytes_per_s"] = _exchange(job["device"], dtype, MESSAGE_BYTES[job["device"]] // shrink)
    Path(job["folder"], f"{local_rank}.json").write_text(json.dumps(reply), encoding="utf-8")
    dist.barrier()
    os._exit(0)


def _product(device: str, dtype: torch.dtype, side: int) -> float:
    """Operations a second."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _seconds(device, lambda: left @ right)


def _copy(device: str, num_bytes: int) -> float:
    """Bytes a second that are read; a copy also writes as many, so reading alone is taken for twice as fast."""
    source = torch.zeros(num_bytes, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * num_bytes / _seconds(device, lambda: target.copy_(source))


def _exchange(device: str, dtype: torch.dtype, num_bytes: int) -> float:
    """Bytes a second that each rank sends to the others."""
    sent = torch.zeros(num_bytes // dtype.itemsize // dist.get_world_size() * dist.get_world_size(), dtype=dtype)
    sent = sent.to(device)
    arrived = torch.empty_like(sent)
    seconds = _seconds(device, lambda: dist.all_to_all_single(arrived, sent))
    return sent.nbytes * (1 - 1 / dist.get_world_size()) / seconds


def _seconds(device: str, call: Callable[[], object]) -> float:
    """Least seconds of a call: a floor wants the best the device can do."""
    best = float("inf")
    for _ in range(REPEATS):
        started = _now(device)
        call()
        best = min(best, _now(device) - started)
    return best


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
