"""What breaks a machine, done to real runs from outside: what is recorded, how soon, and what is left behind.

Nothing is planted in the harness. `sp-harness run` draws breakdowns.toml on two ranks; then memory is taken
away from one rank (on GPUs also from NCCL alone, on breakdowns_nccl.toml), a rank is killed, a rank is stopped so
that the other waits in a collective, two runs are started at once, the harness itself is interrupted, terminated
and killed, it is suspended with and without its ranks, and its recorded files are damaged. Each must be recorded
within the time limit under its own name, leave no process and no GPU memory behind, and cost no other row. Ends 0
only if all of that holds. Needs Linux.

    python benchmarks/breakdowns.py [--device cpu|cuda] [--model NAME] [--dtype NAME] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _bench import ALL_WELL, Bench, judged, recorded, resumes
from _checks import Checks
from _common import positive
from _nccl import nccl_out_of_memory
from _outside import MIB, Ballast, gpu_used_bytes, limit_memory
from _recorded import (
    end_of,
    held_now,
    journal,
    only_run,
    outcomes,
    overlaps,
    spans_held,
    until_drawing,
)

from harness import codec
from harness.cli.console import make_console
from harness.types import SCHEMA, FailureKind, Report

COLLECTIVE = r"has not finished (gloo|nccl):\w+ number \d+"
"""What a rank says of the collective it waits for, beside its stack."""
LIMIT_S = 120.0
"""Time limit of a run, as the matrix says."""
LEFT_BYTES = 64 * MIB
"""What the driver itself may hold more or less of a GPU."""
SPARE_MIB = 128
"""Left of a GPU's memory: what the struck case needs beyond the case before it is several times as much."""
SPARE_ON_CPU = 16 * MIB
"""Left of rank 1's address space: more than the case before still asks for, less than the struck case does."""
NCCL_SPARE_MIB = (16, 64, 256)
"""Left to NCCL, try by try: from a part of a communicator to most of its connections; torch needs nothing new."""


def main() -> int:
    """Do one breakdown after the other, and print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", help="default: nano, on cuda z-image-random")
    parser.add_argument("--dtype", help="default: float32, on cuda bfloat16")
    parser.add_argument(
        "--struck-size", help="WIDTHxHEIGHT of the case that is struck; default: 768x768, on cuda 1536x1536"
    )
    parser.add_argument("--hang-s", type=float, default=15.0, help="time limit of the run that hangs")
    parser.add_argument(
        "--spare-mib",
        type=positive,
        default=SPARE_MIB,
        metavar="N",
        help="left of a GPU, out-of-memory; default: %(default)s",
    )
    parser.add_argument(
        "--nccl-spare-mib",
        type=positive,
        nargs="+",
        default=NCCL_SPARE_MIB,
        metavar="N",
        help=f"left of a GPU, one try for each, nccl-out-of-memory; default: {' '.join(map(str, NCCL_SPARE_MIB))}",
    )
    parser.add_argument("--only", action="append", default=[], choices=list(BREAKDOWNS), help="all by default")
    arguments = parser.parse_args()
    names = _wanted(parser, arguments)
    # Shells start background jobs with SIGINT ignored, and whoever is started here would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cuda = arguments.device == "cuda"
    arguments.nccl_model = arguments.model or "nano"
    arguments.model = arguments.model or ("z-image-random" if cuda else "nano")
    arguments.dtype = arguments.dtype or ("bfloat16" if cuda else "float32")
    arguments.struck_size = arguments.struck_size or ("1536x1536" if cuda else "768x768")
    console, well, started = make_console(), True, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="breakdowns-") as root:
        bench = Bench(Path(root), arguments)
        for name in names:
            breakdown = BREAKDOWNS[name]
            begun, checks = time.monotonic(), Checks(name)
            with _nothing_left(bench, checks):
                breakdown(bench, checks)
            doc = (breakdown.__doc__ or "").strip()
            console.print(checks.table(doc, time.monotonic() - begun))
            well &= checks.ok
    console.print(f"{'all well' if well else 'NOT all well'}, {time.monotonic() - started:.0f} s")
    return 0 if well else 1


def _wanted(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """Names of the breakdowns to do; one that needs GPUs is left out elsewhere, or refused if it is asked for."""
    if arguments.device != "cuda" and (refused := [name for name in arguments.only if name in ON_GPUS]):
        parser.error(f"{refused[0]} needs two GPUs: add --device cuda")
    asked = arguments.only or [name for name in BREAKDOWNS if arguments.device == "cuda" or name not in ON_GPUS]
    return [name for name in BREAKDOWNS if name in asked]


# ---------------------------------------------------------------- the breakdowns


def together(bench: Bench, checks: Checks) -> None:
    """Two runs at once on one machine."""
    runs = [bench.start("one", "reports"), bench.start("two", "others")]
    checks.done("done", "started two runs of the same matrix at once")
    try:
        for name, run in zip(("one", "two"), runs, strict=True):
            checks.holds(f"exit code of {name}", 0, run.wait())
    finally:
        for run in runs:
            run.end()
    folders = [only_run(bench.root / out) for out in ("reports", "others")]
    if outcomes(folders[0]) == ALL_WELL:
        bench.template = folders[0]  # otherwise what comes next records its own
    for name, folder in zip(("one", "two"), folders, strict=True):
        checks.holds(f"rows of {name}", ALL_WELL, outcomes(folder))
    if bench.device == "cuda":
        waits = sum(line["event"] == "waiting" for folder in folders for line in journal(folder))
        checks.done("times one waited for the other's GPUs", waits)
        checks.holds("moments at which both held one GPU", 0, overlaps(*map(spans_held, folders)))


def out_of_memory(bench: Bench, checks: Checks) -> None:
    """Memory is taken away from the last rank."""
    folder = bench.half_done("out-of-memory")
    ballast = Ballast() if bench.device == "cuda" else None
    run = bench.resume(folder, "out-of-memory")
    try:
        # Memory is kept from one case to the next, and what is missing shows in a larger one.
        until_drawing(run, folder, "before")
        if ballast:
            took, left = ballast.fill(held_now(folder)[1], spare_bytes=bench.arguments.spare_mib * MIB)
            checks.done("done", f"took {took / 1e9:.1f} GB of the GPU of rank 1, all but {left / MIB:.0f} MiB")
        else:
            limit_memory(run.ranks()[1], spare_bytes=SPARE_ON_CPU)
            checks.done("done", f"limited the address space of rank 1 to what it has and {SPARE_ON_CPU / MIB:.0f} MiB")
        checks.holds("while it drew the case before", True, end_of(folder, "before") is None)
        struck = time.time()
        run.until(lambda: end_of(folder, "struck") is not None, "the failure to be recorded")
        if ballast:
            ballast.release()
        # Python raises, or a library below it ends the process.
        message = r"rank 1(: out of memory inside NCCL| raised .*memory| ran out of memory and crashed)"
        recorded(checks, folder, struck, FailureKind.OUT_OF_MEMORY, 1, message, "memory", LIMIT_S)
        judged(checks, run, folder, "error", 3)
        resumes(bench, checks, folder)
    finally:
        run.end()
        if ballast:
            ballast.release()


def killed(bench: Bench, checks: Checks) -> None:
    """One rank is killed in the middle of a run."""
    folder = bench.half_done("killed")
    run = bench.resume(folder, "killed")
    try:
        until_drawing(run, folder, "struck")
        os.kill(run.ranks()[1], signal.SIGKILL)
        struck = time.time()
        checks.done("done", "SIGKILL to rank 1 in the middle of a run")
        run.until(lambda: end_of(folder, "struck") is not None, "the failure to be recorded")
        message = re.escape("rank 1 was killed from outside (SIGKILL)")
        recorded(checks, folder, struck, FailureKind.KILLED, 1, message, "", LIMIT_S)
        judged(checks, run, folder, "error", 3)
        resumes(bench, checks, folder)
    finally:
        run.end()


def hung(bench: Bench, checks: Checks) -> None:
    """One rank is stopped, and the other waits for it inside a collective."""
    folder = bench.half_done("hung", bench.hang_s)
    run = bench.resume(folder, "hung")
    try:
        until_drawing(run, folder, "struck")
        stopped = run.ranks()[1]
        os.kill(stopped, signal.SIGSTOP)
        struck = time.time()
        checks.done("done", "SIGSTOP to rank 1: rank 0 waits for it in a collective")
        run.until(lambda: end_of(folder, "struck") is not None, "the failure to be recorded")
        who = "ranks 0, 1" if bench.split else "rank 1"
        message = re.escape(f"no answer within {bench.hang_s:g} s from {who}; rank 1 does not run: T (stopped)")
        detail = COLLECTIVE if bench.split else ""
        recorded(checks, folder, struck, FailureKind.STOPPED, 1, message, detail, bench.hang_s)
        checks.holds("the stopped rank is still there", False, stopped in run.pids())
        judged(checks, run, folder, "error", 3)
    finally:
        run.end()


def interrupted(bench: Bench, checks: Checks) -> None:
    """The harness itself is told to end, three times over, and each time resumed."""
    folder = bench.half_done("interrupted")
    for number, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
        (folder.path / "journal.jsonl").unlink(missing_ok=True)
        run = bench.resume(folder, number.name)
        try:
            until_drawing(run, folder, "struck")
            run.process.send_signal(number)
            sent = time.monotonic()
            checks.holds(f"exit code after {number.name}", expected, run.wait())
            checks.holds(f"processes left after {number.name}", 0, run.left())
            checks.done("seconds until all were gone", f"{time.monotonic() - sent:.1f}")
        finally:
            run.end()
    resumes(bench, checks, folder)


def suspended(bench: Bench, checks: Checks) -> None:
    """The harness is suspended for longer than its time limit and continued, alone and with all its ranks."""
    for which in ("alone", "with its ranks"):
        folder = bench.half_done(f"suspended-{which.replace(' ', '-')}", bench.hang_s)
        run = bench.resume(folder, f"suspended-{which}")
        try:
            until_drawing(run, folder, "struck")
            stopped = [run.process.pid, *(run.pids() if which != "alone" else [])]
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in stopped:
                    os.kill(pid, number)
                if number == signal.SIGSTOP:
                    time.sleep(bench.hang_s + 2)
            checks.done("done", f"SIGSTOP to the harness {which}, SIGCONT after {bench.hang_s + 2:g} s")
            checks.holds(f"exit code, {which}", 0, run.wait())
            checks.holds(f"rows, {which}", ALL_WELL, outcomes(folder))
        finally:
            run.end()


def damaged(bench: Bench, checks: Checks) -> None:
    """Recorded files are cut short, as by a machine that went down, and the run is resumed."""
    folder = bench.half_done("damaged")
    lacking = len(folder.missing())
    drawn = list(folder.runs().values())
    names = ("image-0.png", "latents.safetensors", "run.json")
    for run, name in zip(drawn, names, strict=False):
        file = folder.folder_of(run.spec) / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (folder.path / "journal.jsonl").write_bytes(b'{"time": 1.0, "event": "begun"}\n[1]\n{"time": 2')
    checks.done("done", f"cut {', '.join(names)} of three runs in half, and the journal in the middle of a line")
    resumes(bench, checks, folder)
    notes = codec.read_json(folder.path / "report.json", Report, SCHEMA).notes
    checks.holds("damaged files the report names", 4, sum(note.startswith("Damaged, ") for note in notes))
    computed = sum(line["event"] == "finished" for line in journal(folder))
    checks.holds("runs drawn", lacking + len(names), computed)


BREAKDOWNS: dict[str, Callable[[Bench, Checks], None]] = {
    "together": together,
    "out-of-memory": out_of_memory,
    "nccl-out-of-memory": nccl_out_of_memory,
    "killed": killed,
    "hung": hung,
    "interrupted": interrupted,
    "suspended": suspended,
    "damaged": damaged,
}
ON_GPUS = ("nccl-out-of-memory",)
"""Breakdowns that need GPUs."""


# ---------------------------------------------------------------- what is asked for


@contextmanager
def _nothing_left(bench: Bench, checks: Checks) -> Iterator[None]:
    """Ask for the GPUs' memory to be what it was before; what did not go as planned costs this breakdown alone."""
    before = gpu_used_bytes() if bench.device == "cuda" else {}
    try:
        yield
    except Exception as error:  # a run that hangs, dies early or leaves no report: each shows in its own way
        checks.holds("went as planned", "yes", f"no: {type(error).__name__}: {error}")
    deadline = time.monotonic() + 10
    while (left := _grown(before)) > LEFT_BYTES and time.monotonic() < deadline:
        time.sleep(0.2)
    if before:
        checks.done("GPU memory before", " and ".join(f"{used / MIB:.0f} MiB" for used in before.values()))
        checks.at_most("more of it in use after", LEFT_BYTES / MIB, left / MIB, "MiB")


def _grown(before: dict[str, int]) -> int:
    return max((used - before[name] for name, used in gpu_used_bytes().items() if name in before), default=0)


if __name__ == "__main__":
    sys.exit(main())
