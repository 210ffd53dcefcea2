"""Processes started the plain way: each imports torch, loads the model, loops over its runs and ends.

Nothing of the harness starts, watches or feeds them; ``_draw.py`` is what they run. They compute with the
threads and the interface for gloo that the harness' ranks have, so that only the way they are driven differs.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import environment

from harness import codec
from harness.execution import gpus
from harness.execution.pool import num_slots
from harness.types import Device, RunSpec

HERE = Path(__file__).resolve().parent
DRAW = HERE / "_draw.py"


@dataclass(frozen=True)
class Launch:
    """One start of some processes, from their start to the end of the last."""

    world_size: int
    wall_s: float
    replies: tuple[dict[str, Any], ...]
    """What each process says of itself, by rank."""

    @property
    def generation_s(self) -> float:
        """Seconds in which pictures are computed: the mean of side-by-side processes, the first of several ranks."""
        sums = [sum(run["draw_s"] for run in reply["runs"]) for reply in self.replies]
        return sums[0] if self.world_size > 1 else statistics.fmean(sums)


@functools.cache
def num_singles(device: Device) -> int:
    """How many runs on one device the harness draws side by side: one on each GPU, or on each core."""
    return len(gpus.visible(device)) or num_slots(device)


def batch_of(spec: RunSpec) -> tuple[Any, ...]:
    """What runs have in common that processes can draw without loading anything else."""
    return (spec.world_size, spec.case.device, spec.case.dtype, spec.model_path)


def draw(
    specs: Sequence[RunSpec], threads: int = 1, torchrun: bool = False, side_by_side: int = 0, **job: Any
) -> Launch:
    """Draw runs of one world size and model: ranks of one picture together, single ones side by side.

    Parameters
    ----------
    specs
        In the order in which they are drawn.
    threads
        Of each process.
    torchrun
        Start the ranks by ``torch.distributed.run``, as a person would; otherwise by hand, which is quicker.
    side_by_side
        Processes for runs on one device; as many as the harness takes where 0.
    job
        More for ``_draw.py``: ``weights`` (count copies), ``warm`` (number of the run that is drawn once before,
        unmeasured).

    Raises
    ------
    SystemExit
        If a process fails, or a run was not drawn: what is left out would count as speed.
    """
    case, world_size = specs[0].case, specs[0].world_size
    alone = min(side_by_side or num_singles(case.device), len(specs))
    num_processes = world_size if world_size > 1 else alone
    job = {"specs": [codec.encode(spec) for spec in specs], "threads": threads, **job}
    done = launch(DRAW, job, num_processes, world_size, threads, torchrun)
    _check_all_drawn(specs, done)
    return done


def _check_all_drawn(specs: Sequence[RunSpec], done: Launch) -> None:
    """Several ranks draw every run together; single processes share them out."""
    wanted = sorted(spec.digest for spec in specs)
    by_process = [[run["digest"] for run in reply["runs"]] for reply in done.replies]
    for drawn in by_process if done.world_size > 1 else [[*itertools.chain(*by_process)]]:
        if sorted(drawn) != wanted:
            raise SystemExit(f"{DRAW}: {len(drawn)} of {len(wanted)} runs of {specs[0].case.name} and others drawn")


def draw_all(specs: Sequence[RunSpec]) -> tuple[float, list[Launch]]:
    """Draw every run, one launch for each world size and model; the seconds from first start to last end."""
    batches: dict[tuple[Any, ...], list[RunSpec]] = {}
    for spec in specs:
        batches.setdefault(batch_of(spec), []).append(spec)
    started = time.perf_counter()
    launches = [draw(batch) for _, batch in sorted(batches.items(), key=lambda item: item[0])]
    return time.perf_counter() - started, launches


def launch(
    program: Path, job: Mapping[str, Any], num_processes: int, world_size: int, threads: int = 1, torchrun: bool = False
) -> Launch:
    """Start a program's processes and wait for their end.

    Raises
    ------
    SystemExit
        If one fails, or a signal ends it; the others are ended, and the first one's log is told.
    """
    with tempfile.TemporaryDirectory() as place:
        task = Path(place, "job.json")
        task.write_text(json.dumps({**job, "folder": place}), encoding="utf-8")
        arguments = [str(program), str(task)]
        shared = environment(_threads(threads))
        if torchrun and world_size > 1:
            command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={world_size}"]
            command += ["--master-addr=127.0.0.1", f"--master-port={_free_port()}"]
            starts = [([*command, *arguments], shared)]
        else:
            port = str(_free_port())
            starts = [
                ([sys.executable, *arguments], shared | _place(rank, world_size, port)) for rank in range(num_processes)
            ]
        began_at, started = time.time(), time.perf_counter()
        _run([(command, {**env, "BEGAN_AT": str(began_at)}) for command, env in starts], Path(place))
        wall_s = time.perf_counter() - started
        replies = [json.loads(Path(place, f"{rank}.json").read_text("utf-8")) for rank in range(num_processes)]
    return Launch(world_size, wall_s, tuple(replies))


def _place(rank: int, world_size: int, port: str) -> dict[str, str]:
    """What ``torchrun`` would tell a rank; side-by-side processes are worlds of their own."""
    inside = rank if world_size > 1 else 0
    return {
        "LOCAL_RANK": str(rank), "RANK": str(inside), "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip


def _threads(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    fixed = dict.fromkeys(names, str(threads)) | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    loopback = {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")} if sys.platform == "linux" else {}
    return fixed | loopback


def _run(starts: Sequence[tuple[list[str], dict[str, str]]], place: Path) -> None:
    processes = [_process(*each, Path(place, f"log-{index}")) for index, each in enumerate(starts)]
    failed = None  # the first that did not end well: the others fail for its sake, or are killed below
    try:
        while failed is None:
            codes = [process.poll() for process in processes]
            failed = next((index for index, code in enumerate(codes) if code), None)
            if None not in codes:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                processes[codes.index(None)].wait(0.05)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    if failed is not None:
        code = processes[failed].returncode
        how = f"exit code {code}" if code > 0 else f"ended by {_signal_name(-code)}"
        text = Path(place, f"log-{failed}").read_text("utf-8", "replace")[-4000:]
        raise SystemExit(f"{' '.join(starts[failed][0])} (process {failed} of {len(starts)}): {how}\n{text}")


def _process(command: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
