"""What one launch for everything saves: the harness against a launch for every row, as a server per test case has it.

For every row of the matrix, one after the other: a process that draws its baseline, with all cores of the CPU to
itself, then ``torchrun`` with the ranks of its candidate. Each imports torch, loads the model, draws one picture
and ends. Replays, controls and noise floors, which the harness draws besides, are not drawn; nothing is saved,
measured or judged.

Without ``--all`` some rows are launched, spread evenly over the matrix, and their time is scaled by the number
of rows. The table says how many they are, with the standard error of that. One row is launched before, unmeasured:
whoever comes first reads the libraries from disk. Ends with 1 if the harness is not as many times faster as it
has to be.

    python benchmarks/per_case_launch.py [--matrix FILE] [--rows N | --all] [--golden off] [--size WIDTHxHEIGHT ...]
"""

from __future__ import annotations

import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from _common import add_matrix, drawable, finish, parser, positive, run_harness, start, table
from _launch import draw

from harness.execution.pool import num_slots
from harness.matrix.selection import Selection
from harness.planning.graph import Graph
from harness.session import steps
from harness.types import Row

WANTED = 5.0
"""How many times faster the harness has to be on the pull request's matrix."""


def main() -> int:
    """Launch row by row, run the harness once, and print the ratio."""
    made = parser(__doc__)
    add_matrix(made)
    made.add_argument(
        "--rows", type=positive, default=6, help="launch this many, spread evenly, and scale by their number"
    )
    made.add_argument("--all", action="store_true", help="launch every row")
    arguments = made.parse_args()
    matrix, graph = steps.prepare(arguments.matrix, Selection(sizes=arguments.size))
    rows = drawable(matrix, graph)
    sample = rows if arguments.all else _spread(rows, arguments.rows)
    _launched(sample[0], graph)
    launched = [_launched(row, graph) for row in sample]
    with tempfile.TemporaryDirectory() as out:
        harness = run_harness(arguments.matrix, Path(out), arguments.golden, arguments.size)
    distinct = len({row.runs["candidate"] for row in rows})
    figures = {
        "matrix": str(arguments.matrix),
        "rows": len(rows),
        "distinct_candidates": distinct,
        "sampled_rows": len(sample),
        "harness_s": harness.wall_s,
        "launched": launched,
        **_totals(launched, len(rows), distinct, harness.wall_s),
    }
    broken = []
    if figures["ratio"] < WANTED:
        broken.append(f"the harness is {figures['ratio']:.1f} times faster, at least {WANTED:g}")
    return finish(arguments, rows[0].case.device, _tables(figures), figures, broken)


def _spread(rows: list[Row], count: int) -> list[Row]:
    """As many rows as asked for, from the middles of as many equal parts of the matrix."""
    count = min(count, len(rows))
    return [rows[int((index + 0.5) * len(rows) / count)] for index in range(count)]


def _launched(row: Row, graph: Graph) -> dict[str, Any]:
    baseline, candidate = (graph.specs[row.runs[role]] for role in ("baseline", "candidate"))
    single = draw([baseline], threads=num_slots("cpu"))
    split = draw([candidate], torchrun=True)
    return {
        "row": row.name,
        "candidate": candidate.digest,
        "baseline_s": single.wall_s,
        "candidate_s": split.wall_s,
        "drawing_s": single.generation_s + split.generation_s,
    }


def _totals(launched: list[dict[str, Any]], num_rows: int, distinct: int, harness_s: float) -> dict[str, float]:
    """Seconds for the whole matrix, and how many times the harness' they are.

    Rows that share a candidate launched once: the first of each where all were launched, else so many of the mean.
    """
    each = [item["baseline_s"] + item["candidate_s"] for item in launched]
    mean_s, alone_s = statistics.fmean(each), statistics.fmean(item["candidate_s"] for item in launched)
    # Of rows drawn from a list without putting back: nothing is left to chance where all were launched.
    left = 1 - len(each) / num_rows
    error = math.sqrt(statistics.variance(each) / len(each) * left) if len(each) > 1 else 0.0
    once = {item["candidate"]: seconds for item, seconds in reversed(list(zip(launched, each, strict=True)))}
    distinct_s = sum(once.values()) if len(each) == num_rows else mean_s * distinct
    return {
        "per_case_s": mean_s * num_rows,
        "ratio": mean_s * num_rows / harness_s,
        "ratio_error": error * num_rows / harness_s,
        "ratio_distinct": distinct_s / harness_s,
        "ratio_candidates_alone": alone_s * num_rows / harness_s,
        "drawing_share": sum(item["drawing_s"] for item in launched) / sum(each),
    }


def _tables(figures: dict[str, Any]) -> list[Any]:
    rows = [
        (item["row"], f"{item['baseline_s']:.2f}", f"{item['candidate_s']:.2f}", f"{item['drawing_s']:.2f}")
        for item in figures["launched"]
    ]
    total, sampled, error = figures["rows"], figures["sampled_rows"], figures["ratio_error"]
    how = "every row was launched" if sampled == total else f"{sampled} rows launched, scaled by {total}/{sampled}"
    give_or_take = f" (standard error {error:.1f})" if error > 0 else ""
    columns = ("row", "baseline s", "torchrun s", "of which drawing")
    return [
        table(f"{figures['matrix']}: a launch for each row", columns, rows),
        f"a launch for each row: {figures['per_case_s']:.0f} s for {total} rows ({how}); "
        f"drawing is {figures['drawing_share']:.1%} of it",
        f"the harness: {figures['harness_s']:.1f} s, with replays, controls, noise floors, figures and reports",
        f"ratio: {figures['ratio']:.1f}{give_or_take}, at least {WANTED:g} wanted on the pull request's matrix",
        f"ratio if rows that share a candidate were launched once ({figures['distinct_candidates']} of {total}): "
        f"{figures['ratio_distinct']:.1f}; if the baselines were on disk: {figures['ratio_candidates_alone']:.1f}",
    ]


if __name__ == "__main__":
    start(main)
