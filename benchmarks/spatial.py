"""Layouts side by side: pads, bytes exchanged and seconds a step of ``aligned`` and ``exact``.

Prints one table from one run of ``benchmarks/spatial.toml``. Times are medians over the denoise steps of a
run (the first is left out: it warms caches), as ratios to the single device of the same case; fidelity is
latents PSNR to the single device.

    python benchmarks/spatial.py [MATRIX] [--size WIDTHxHEIGHT ...]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.table import Table

from harness import session
from harness.console import make_console
from harness.diagnose.sentence import describe
from harness.pool import Pool
from harness.record import RunFolder
from harness.types import Relation, Report, Row, Run


def main() -> None:
    """Run the matrix and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", nargs="?", type=Path, default=Path(__file__).with_suffix(".toml"))
    parser.add_argument("--size", action="append", default=[], help="only this size")
    arguments = parser.parse_args()
    matrix, graph = session.prepare(arguments.matrix, session.Selection(sizes=arguments.size))
    with tempfile.TemporaryDirectory() as out:
        folder = RunFolder.create(Path(out), matrix, graph, "off")
        with Pool(folder.path / "logs") as pool:
            session.record(folder, pool)
        report = session.conclude(folder)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("size", "axis", "layout", "q, k, v", "pads", "MB sent", "s/step", "of single", "vs single"):
        table.add_column(column, justify="right" if column not in ("size", "axis", "layout", "q, k, v") else "left")
    for row in report.rows:
        table.add_row(*_cells(row, report))
    make_console().print(table)


def step_s(run: Run) -> float:
    """Median seconds of a denoise step, the first left out."""
    assert run.times.steps_s, f"{run.spec.case.name}: {run.failure}"
    return statistics.median(run.times.steps_s[1:] or run.times.steps_s)


def _cells(row: Row, report: Report) -> list[str]:
    single, split = report.runs[row.runs["baseline"]], report.runs[row.runs["candidate"]]
    assert row.plan is not None
    return [
        str(row.case.size),
        row.plan.axis,
        row.variant.layout,
        str(row.variant.options.get("exchange", "default")),
        f"{row.plan.pad_tokens} (+{row.plan.surplus_pad_tokens})",
        f"{split.counters.get('exchanged_bytes', 0) / 1e6:.1f}",
        f"{step_s(split):.3f}",
        f"{step_s(split) / step_s(single):.3f}",
        describe(row.comparison(Relation.PAIR)),
    ]


if __name__ == "__main__":
    main()
