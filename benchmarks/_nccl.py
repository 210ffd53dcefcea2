"""Memory that runs out inside NCCL and not before it: tried with several amounts left, and who ran out in each.

torch may run out first, or nobody: then nothing has been shown of NCCL, and that is said. NCCL itself says in the
ranks' logs that it ran out.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from _bench import Bench, judged, recorded, resumes
from _checks import Checks
from _outside import MIB, Ballast
from _recorded import end_of, held_now, run_of, until_drawing

from harness.runs.folder import RunFolder
from harness.types import Failure, FailureKind
from harness.worker.exhaustion import told_in

MATRIX = Path(__file__).with_name("breakdowns_nccl.toml")
LIMIT_S = 60.0
"""Time limit of the struck run, in case that NCCL waits where it should fail."""
FIRST_SPARE_BYTES = 32 << 30
"""Left at first, while the ranks still load: the rest is then taken within the steps of one case."""
MESSAGE = r"rank 1(: out of memory inside NCCL; rank \d+ raised | raised .*NCCL| ran out of memory and crashed)"
MAX_WORDS = 6
"""Lines of NCCL's that are shown."""


class Who(StrEnum):
    """Who was the first without memory."""

    NCCL = "NCCL ran out"
    TORCH = "torch ran out first"
    NOBODY = "nobody ran out"
    LATE = "memory was taken too late"
    UNKNOWN = "something else went wrong"


@dataclass(frozen=True)
class Ending:
    """What came of one try."""

    who: Who
    told: str = ""
    """What was recorded, or where nothing failed, what there was still free."""
    words: tuple[str, ...] = ()
    """What NCCL printed, each line with its rank."""


def nccl_out_of_memory(bench: Bench, checks: Checks) -> None:
    """Memory is taken away from the last rank when torch has all it needs, and NCCL makes new connections."""
    model = {"model": bench.arguments.nccl_model}
    own = Bench(bench.root / "nccl", argparse.Namespace(**{**vars(bench.arguments), **model}), MATRIX)
    own.root.mkdir()
    own.record()
    endings = [_try(own, checks, spare_mib) for spare_mib in bench.arguments.nccl_spare_mib]
    summed_up(checks, bench.arguments.nccl_spare_mib, endings)


def _try(bench: Bench, checks: Checks, spare_mib: int) -> Ending:
    """One run with so much left; where NCCL runs out it is held to what every breakdown is held to."""
    folder = bench.half_done(f"nccl-{spare_mib}", LIMIT_S)
    shutil.rmtree(folder.path / "logs", ignore_errors=True)  # what stands there afterwards is of this try
    ballast = Ballast()
    run = bench.resume(folder, folder.path.name)
    try:
        run.until(lambda: len(held_now(folder)) == 2, "two GPUs to be held")
        gpu = held_now(folder)[1]
        ballast.fill(gpu, FIRST_SPARE_BYTES)
        until_drawing(run, folder, "before")
        took, left = ballast.fill(gpu, spare_mib * MIB)
        struck = time.time()
        late = end_of(folder, "before") is not None
        checks.done(f"{spare_mib} MiB", f"took {took / 1e9:.1f} GB of the GPU of rank 1, all but {left / MIB:.0f} MiB")
        run.until(lambda: end_of(folder, "struck") is not None, "the case after that to end")
        free = ballast.left(gpu)
        ballast.release()
        if late:
            run.wait()
            return Ending(Who.LATE)
        ending = ending_of(run_of(folder, "before").failure, run_of(folder, "struck").failure, printed_in(folder))
        if ending.who == Who.NCCL:
            recorded(checks, folder, struck, FailureKind.OUT_OF_MEMORY, 1, MESSAGE, "memory", LIMIT_S)
            judged(checks, run, folder, "error", 3)
            resumes(bench, checks, folder)
            return ending
        run.wait()
        return replace(ending, told=f"{free / MIB:.0f} MiB were still free") if ending.who == Who.NOBODY else ending
    except RuntimeError as error:  # the next try is another run
        return Ending(Who.UNKNOWN, str(error))
    finally:
        run.end()
        ballast.release()


def printed_in(folder: RunFolder) -> dict[int, str]:
    """What each rank of the split group has printed."""
    logs = sorted(folder.path.glob("logs/*-world-2/rank-*.log"))
    return {int(log.stem.removeprefix("rank-")): log.read_text(encoding="utf-8", errors="replace") for log in logs}


def ending_of(before: Failure | None, struck: Failure | None, printed: Mapping[int, str]) -> Ending:
    """Who ran out first.

    Parameters
    ----------
    before, struck
        How the case during which memory was taken, and the one after it, failed.
    printed
        What each rank has printed.
    """
    words = tuple(
        f"rank {rank}: {line.strip()}"
        for rank, text in printed.items()
        for line in text.splitlines()
        if "NCCL WARN" in line
    )
    failure = before or struck
    if failure is None:
        return Ending(Who.NOBODY, words=words)
    told = f"recorded as {failure.kind.value}: {'' if struck is failure else 'in the case before, '}{failure.message}"
    # Of a rank that crashes its message says no more than that; its detail is all that it printed.
    blamed = failure.detail if " crashed (" in failure.message else failure.message
    ran_out = any(told_in(line) == FailureKind.OUT_OF_MEMORY for line in words)
    if before is None and "nccl" in blamed.lower() and ran_out:
        return Ending(Who.NCCL, told, words)
    return Ending(Who.TORCH if failure.kind == FailureKind.OUT_OF_MEMORY else Who.UNKNOWN, told, words)


def summed_up(checks: Checks, spares_mib: Sequence[int], endings: Sequence[Ending]) -> None:
    """Tell what came of each try, and ask for one at least in which NCCL ran out, and none that nobody can explain."""
    for spare_mib, ending in zip(spares_mib, endings, strict=True):
        told = f"{ending.who}{'; ' if ending.told else ''}{ending.told}"
        if ending.who == Who.UNKNOWN:
            checks.holds(f"with {spare_mib} MiB left", "memory ran out, or nothing failed", told)
        else:
            checks.done(f"with {spare_mib} MiB left", told)
        for line in ending.words[:MAX_WORDS]:
            checks.done("NCCL printed", line)
    shown = sum(ending.who == Who.NCCL for ending in endings)
    checks.holds("shown inside NCCL", "yes", "yes" if shown else "no, in none of these tries")
