"""What the harness costs: wall time of ``sp-harness run`` over a bare script that makes the same pipeline calls.

The bare script draws every distinct run of the run graph with the same engines, on as many ranks, single runs
side by side on as many processes: one launch for each world size and model, each process importing torch,
loading the model once and looping over its runs (``_draw.py``). It saves, measures, judges and reports nothing.

    python benchmarks/overhead.py [--matrix FILE] [--rounds N] [--golden off] [--size WIDTHxHEIGHT ...] [--out DIR]

``start-up`` of the harness is the time of its slots that is no run's, idle slots at the end of a world size
included; ``replies`` is what a run takes beyond its engine: encoding and saving pictures, and talking.
Ends with 1 if the harness takes more than it may.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from pathlib import Path

from _common import HarnessRun, add_matrix, drawable, finish, parser, positive, run_harness, start, table
from _launch import Launch, batch_of, draw_all, num_singles

from harness.goldens import for_run
from harness.matrix.selection import Selection
from harness.session import steps
from harness.types import Run, RunSpec

ALLOWED = {"cpu": 1.10, "cuda": 1.05}
"""What the harness may cost over the bare script: a share of two CPU cores, or of two GPUs."""
CLOCKS_DIFFER_S = 0.01
"""The journal keeps milliseconds, and is read against another clock."""


def main() -> int:
    """Time both, in turn, and print where they differ."""
    made = parser(__doc__)
    add_matrix(made)
    made.add_argument("--rounds", type=positive, default=1, help="of which the medians are taken")
    made.add_argument("--out", type=Path, help="keep the run folders of the harness in this one")
    arguments = made.parse_args()
    matrix, graph = steps.prepare(arguments.matrix, Selection(sizes=arguments.size))
    drawable(matrix, graph)
    if arguments.golden == "required":
        for_run.fetch(matrix)
    specs = list(graph.specs.values())
    device = specs[0].case.device
    draw_all(specs[:1])  # whoever comes first would read the libraries from disk
    bare, ours = [], []
    for _ in range(arguments.rounds):
        bare.append(_bare_parts(*draw_all(specs)))
        with contextlib.nullcontext(arguments.out) if arguments.out else tempfile.TemporaryDirectory() as out:
            ours.append(_harness_parts(run_harness(arguments.matrix, Path(out), arguments.golden, arguments.size)))
    figures = {
        "matrix": str(arguments.matrix),
        "runs": len(specs),
        "rows": len(graph.rows),
        "rounds": {"harness": ours, "bare": bare},
        "harness": _medians(ours),
        "bare": _medians(bare),
        "ratio": statistics.median(a["wall_s"] / b["wall_s"] for a, b in zip(ours, bare, strict=True)),
        "allowed": ALLOWED[device],
    }
    broken = []
    if figures["ratio"] > ALLOWED[device]:
        broken.append(f"the harness takes {figures['ratio']:.3f} times the bare script, at most {ALLOWED[device]:.2f}")
    return finish(arguments, device, _tables(figures), figures, broken)


def _tables(figures: dict) -> list:
    harness, bare = figures["harness"], figures["bare"]
    rows = [
        (part, f"{harness[key]:.2f}", f"{bare[key]:.2f}", f"{harness[key] - bare[key]:+.2f}")
        for part, key in (
            ("plan, before the first run", "plan_s"),
            ("start-up and idle slots", "start_s"),
            ("generation", "generation_s"),
            ("replies: encode, save, talk", "replies_s"),
            ("after the last run: measure, judge, report", "conclude_s"),
            ("wall", "wall_s"),
        )
    ]
    title = f"{figures['matrix']}: {figures['rows']} rows, {figures['runs']} runs"
    return [
        table(title, ("seconds", "harness", "bare", "difference"), rows),
        f"wall time over the bare script: {figures['ratio']:.3f} (at most {figures['allowed']:.2f})",
        f"generation's share of the harness' wall time: {harness['generation_s'] / harness['wall_s']:.1%}",
    ]


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def _bare_parts(wall_s: float, launches: list[Launch]) -> dict[str, float]:
    generation_s = sum(launch.generation_s for launch in launches)
    return _whole(
        plan_s=0.0,
        start_s=wall_s - generation_s,
        generation_s=generation_s,
        replies_s=0.0,
        conclude_s=0.0,
        wall_s=wall_s,
    )


def _harness_parts(done: HarnessRun) -> dict[str, float]:
    """Parts of a run's wall time that add up to it, from its journal and its runs' own times."""
    journal, runs = done.journal(), done.folder.runs()
    begun = next(entry["time"] for entry in journal if entry["event"] == "begun")
    last = max(entry["time"] for entry in journal if entry["event"] == "finished")
    generation_s = sum(run.times.total_s / _side_by_side(run.spec, runs) for run in runs.values())
    served_s = sum(run.wall_s / _side_by_side(run.spec, runs) for run in runs.values())
    return _whole(
        plan_s=begun - done.began_at,
        start_s=last - begun - served_s,
        generation_s=generation_s,
        replies_s=served_s - generation_s,
        conclude_s=done.began_at + done.wall_s - last,
        wall_s=done.wall_s,
    )


def _whole(**parts: float) -> dict[str, float]:
    """Parts as they are; one below nothing says that another holds more seconds than there were."""
    for name, seconds in parts.items():
        if seconds < -CLOCKS_DIFFER_S:
            raise SystemExit(f"{name} would be {seconds:.2f} s: the other parts take more than {parts['wall_s']:.2f} s")
    return parts


def _side_by_side(spec: RunSpec, runs: dict[str, Run]) -> int:
    """How many runs like this one are drawn at once."""
    if spec.world_size > 1 or spec.sequence:
        return 1
    alike = sum(batch_of(run.spec) == batch_of(spec) and not run.spec.sequence for run in runs.values())
    return min(num_singles(spec.case.device), alike)


if __name__ == "__main__":
    start(main)
