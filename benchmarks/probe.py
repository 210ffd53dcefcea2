"""What a probe costs: seconds a request and a step without one, with one, and bytes it leaves on disk.

Draws each size with diffusers on one device and with the SP system on two ranks, in turn without and with
a probe, and prints medians. Runs without a probe patch nothing; tests/probe holds them to it.

    python benchmarks/probe.py [--size WIDTHxHEIGHT ...] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from _common import positive, start
from rich.table import Table

from harness.cli.console import make_console
from harness.execution.events import Finished
from harness.execution.pool import Pool
from harness.session import steps
from harness.types import Run, RunSpec

MATRIX = """
schema = 1
model = "nano"
steps = 4
golden = "off"

[[case]]
size = {sizes}
prompt = "a red ball left of a blue cube on grey tiles at day"

[[variant]]
engine = "spatial"
ulysses = 2
"""


def main() -> None:
    """Draw and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", default=[], help="instead of 144x144 and 720x720")
    parser.add_argument("--rounds", type=positive, default=5)
    arguments = parser.parse_args()
    sizes = arguments.size or ["144x144", "720x720"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("size", "run", "s/step off", "on", "s/request off", "on", "MB left"):
        table.add_column(column, justify="left" if column in ("size", "run") else "right")
    with tempfile.TemporaryDirectory() as out:
        path = Path(out, "probe.toml")
        path.write_text(MATRIX.format(sizes=list(map(str, sizes))), encoding="utf-8")
        _, graph = steps.prepare(path)
        with Pool(Path(out, "logs"), keep=True) as pool:
            for row in graph.rows:
                for role in ("replay", "candidate"):
                    spec = graph.specs[row.runs[role]]
                    table.add_row(str(row.case.size), role, *_cells(spec, pool, Path(out), arguments.rounds))
    make_console().print(table)


def _cells(spec: RunSpec, pool: Pool, out: Path, rounds: int) -> list[str]:
    _draw(spec, pool, out)  # the first request warms everything up
    runs: dict[bool, list[Run]] = {False: [], True: []}
    for _ in range(rounds):
        for probe in runs:
            runs[probe].append(_draw(replace(spec, probe=probe), pool, out))
    steps = [statistics.median(_steps_s(runs[probe])) for probe in runs]
    requests = [statistics.median(run.wall_s for run in runs[probe]) for probe in runs]
    left = sum(path.stat().st_size for path in Path(out, replace(spec, probe=True).digest).glob("probe-*"))
    return [*(f"{s:.3f}" for s in steps), *(f"{s:.3f}" for s in requests), f"{left / 1e6:.1f}"]


def _draw(spec: RunSpec, pool: Pool, out: Path) -> Run:
    events = pool.execute([spec], lambda one: out / one.digest)
    (run,) = [event.run for event in events if isinstance(event, Finished)]
    assert run.failure is None, run.failure
    return run


def _steps_s(runs: Sequence[Run]) -> list[float]:
    """Seconds of every step but the first of each request."""
    return [seconds for run in runs for seconds in run.times.steps_s[1:]]


if __name__ == "__main__":
    start(main)
