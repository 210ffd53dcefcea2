"""Layouts side by side, and beside other engines: pads, bytes, seconds a step, and the floor.

Prints one table from one run of ``benchmarks/spatial.toml``, or of another matrix. Runs are drawn one at a time.
Times are medians over the denoise steps of a run (the first is left out: it warms caches), as ratios to the
single device of the same case, which is diffusers' stock pipeline. Variants with ``graph`` replay their steps, and
``spatial`` alone on the single device does so too, for fairness. Other engines of the matrix stand beside it, an
engine whose environment is not set up is named and left out. The floor is what a step's operations and bytes take
at rates measured on this device, before and after (``_floor.py``). Fidelity is latents PSNR to the single device.

On a CPU every rank computes with one thread, and so does the single device: "of single" is two cores against one.
"MB sent" is counted where it is sent, of all ranks in all steps, with the trajectory that layouts gather once at
the end of a run for the report; what enters the floor of a step is without it.

    python benchmarks/spatial.py [MATRIX] [--size WIDTHxHEIGHT ...] [--python sglang=~/sglang/.venv/bin/python]
    python benchmarks/spatial.py --device cuda --dtype bfloat16 --model z-image-random     # two GPUs, NCCL
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import _floor
from _common import add_model, drawable, finish, parser, positive, retargeted, start, table

from harness import models
from harness.diagnose.sentence import describe
from harness.errors import UsageError
from harness.execution.events import Finished
from harness.execution.pool import Pool
from harness.judging.comparisons import Measurer
from harness.matrix.selection import Selection
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Matrix, Relation, Row, Run, ShardPlan
from harness.worker import traffic

COLUMNS = (
    "size", "axis", "layout", "q, k, v", "steps", "pads", "MB sent", "s/step", "of single", "floor", "of floor",
    "vs single",
)  # fmt: skip


LATENT_BYTES = 4
"""Of one value: latents are float32 whatever the weights are."""


def main() -> int:
    """Run the matrix and print the table."""
    made = parser(__doc__)
    add_model(made)
    made.add_argument("matrix", nargs="?", type=Path, default=Path(__file__).with_suffix(".toml"))
    made.add_argument("--size", action="append", default=[], help="only this size")
    made.add_argument("--python", action="append", default=[], metavar="ENGINE=PYTHON", help="interpreter of an engine")
    made.add_argument("--steps", type=positive, help="instead of the matrix' own number")
    made.add_argument("--quick", action="store_true", help="measure rates on small arrays")
    arguments = made.parse_args()
    figures = measure(arguments)
    return finish(arguments, arguments.device, _tables(figures, arguments), figures)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw everything, then put each run beside its single device and its floor."""
    matrix, _ = steps.prepare(arguments.matrix, Selection(sizes=arguments.size), arguments.python)
    _check(matrix)
    if arguments.steps:
        matrix = replace(matrix, cases=tuple(replace(case, steps=arguments.steps) for case in matrix.cases))
    matrix, graph = retargeted(matrix, arguments.model, arguments.device, arguments.dtype)
    rows = drawable(matrix, graph)
    ranks = max(row.variant.degree for row in rows)
    speed = functools.partial(_floor.measure, arguments.device, arguments.dtype, ranks, arguments.quick)
    before = speed()
    with tempfile.TemporaryDirectory() as out:
        folder = RunFolder.create(Path(out), matrix, graph, "off")
        runs = _drawn(folder, rows)
        yardstick = _Yardstick(arguments, ranks, _floor.best(before, speed()))
        lines = _lines(folder, rows, runs, yardstick)
    skipped = {f"{row.variant.label}: {row.skip}": None for row in graph.rows if row.skip}
    rates = {name: asdict(rate) for name, rate in yardstick.rates.items()}
    return {"rates": rates, "lines": lines, "skipped": list(skipped)}


def _check(matrix: Matrix) -> None:
    """Refuse what the floor does not know: it is that of one picture, one forward a step, and Ulysses alone."""
    for case in matrix.cases:
        if case.num_images > 1 or case.guidance_scale > 0:
            raise UsageError(f"{matrix.path}: {case.name}: floors are of one picture without guidance; leave it out")
    for variant in matrix.variants:
        if variant.degree < 2 or variant.ring > 1 or variant.cache != "none":
            known = "Ulysses on two ranks or more, without a cache"
            raise UsageError(f"{matrix.path}: {variant.label}: floors are of {known}; leave it out")


def _lines(folder: RunFolder, rows: Sequence[Row], runs: dict[str, Run], yardstick: _Yardstick) -> list[dict[str, Any]]:
    """Case by case the single device, then its cut runs."""
    measurer = Measurer(folder)
    for run in runs.values():
        measurer.add_run(run)
    lines: list[dict[str, Any]] = []
    for baseline, first in {row.runs["baseline"]: row for row in reversed(rows)}.items():
        single = runs[baseline]
        own = [_line(first, single, single, yardstick.single(single))]
        of_case = [row for row in rows if row.runs["baseline"] == baseline]
        for digest in dict.fromkeys(row.runs["control"] for row in of_case if _recorded(row)):
            own.append(_line(first, runs[digest], single, yardstick.single(runs[digest])))
        for row in of_case:
            split = runs[row.runs["candidate"]]
            fidelity = describe(measurer.measure(Relation.PAIR, baseline, row.runs["candidate"]))
            own.append(_line(row, split, single, yardstick.split(split)) | _named(row) | {"fidelity": fidelity})
        lines = own + lines
    return lines


def _named(row: Row) -> dict[str, str]:
    """Axis and layout of a row of ``spatial``, the engine of another."""
    axis = row.plan.axis if row.plan else None
    spatial = row.variant.engine == "spatial"
    return {"axis": axis or "", "layout": row.variant.layout if spatial else row.variant.label.partition("-u")[0]}


def _drawn(folder: RunFolder, rows: Sequence[Row]) -> dict[str, Run]:
    """Draw baselines and candidates one at a time: side by side they would share memory, and look slower alone."""
    runs: dict[str, Run] = {}
    with Pool(folder.path / "logs", keep=True) as pool:
        for role in ("baseline", "control", "candidate"):
            for digest in dict.fromkeys(row.runs[role] for row in rows if role != "control" or _recorded(row)):
                events = pool.execute([folder.plan.specs[digest]], folder.folder_of)
                (runs[digest],) = [event.run for event in events if isinstance(event, Finished)]
                if runs[digest].failure:
                    raise SystemExit(f"{runs[digest].spec.case.name}: {runs[digest].failure.message}")
    return runs


def _recorded(row: Row) -> bool:
    """Whether a row's steps are replayed from a graph."""
    return bool(row.variant.options.get("graph"))


class _Yardstick:
    """Floors of runs, from the model's shapes and this device's rates."""

    def __init__(self, arguments: argparse.Namespace, ranks: int, rates: dict[str, _floor.Rates]) -> None:
        self.shapes = _floor.Shapes.of(models.resolve(arguments.model))
        self.element_bytes = _floor.ELEMENT_BYTES[arguments.dtype]
        self.ranks = ranks
        self.rates = rates

    def single(self, run: Run) -> dict[str, float]:
        """Floor of a run on one device."""
        return self._figures("single", _floor.single(self.shapes, run.spec.case.size.tokens, run.caption_tokens[0]))

    def split(self, run: Run) -> dict[str, float]:
        """Floor of a run whose picture is cut by a plan, or whose sequence is cut into equal parts without one."""
        sent = _sent_bytes(run) / run.spec.world_size / run.spec.case.steps
        tokens, caption = run.spec.case.size.tokens, run.caption_tokens[0]
        if run.spec.plan is None or run.spec.plan.axis is None:
            return self._figures("split", _floor.even(self.shapes, tokens, caption, self.ranks, sent))
        if run.spec.engine == "spatial":
            sent -= trajectory_bytes(run.spec.plan)
        return self._figures("split", _floor.spatial(self.shapes, run.spec.plan, caption, sent))

    def _figures(self, which: str, work: _floor.Work) -> dict[str, float]:
        floor_s = self.rates[which].floor_s(work, self.shapes.weight_bytes(self.element_bytes))
        return {"operations": work.operations, "sent_bytes": work.sent_bytes, "floor_s": floor_s}


def _sent_bytes(run: Run) -> int:
    """Bytes that all ranks sent in all steps: by the engine's count, which knows of replays, else by torch's."""
    return run.counters.get("exchanged_bytes", run.counters.get(traffic.COUNTER, 0))


def trajectory_bytes(plan: ShardPlan) -> int:
    """Bytes of the latents after a step that a rank sends to the others, once the run is over.

    Every part is padded to the largest (``harness/spatial/shard.py``).
    """
    return LATENT_BYTES * _floor.PATCH_CHANNELS * max(plan.local_tokens) * (len(plan.local_tokens) - 1)


def step_s(run: Run) -> float:
    """Median seconds of a denoise step, the first left out."""
    return statistics.median(run.times.steps_s[1:] or run.times.steps_s)


def _line(row: Row, run: Run, single: Run, floor: dict[str, float]) -> dict[str, Any]:
    plan = run.spec.plan
    seconds = step_s(run)
    return {
        "case": row.case.name,
        "size": str(row.case.size),
        "axis": "",
        "layout": "single",
        "exchange": str(run.spec.options.get("exchange", "")),
        "steps": "graph" if run.counters.get("graph_steps") else "",
        "pads": f"{plan.pad_tokens} (+{plan.surplus_pad_tokens})" if plan else "",
        "step_s": seconds,
        "of_single": seconds / step_s(single),
        "of_floor": seconds / floor["floor_s"],
        "sent_in_all_bytes": _sent_bytes(run),
        "peak_memory_bytes": list(run.peak_memory_bytes),
        "fidelity": "",
        **floor,
    }


def _tables(figures: dict[str, Any], arguments: argparse.Namespace) -> list[Any]:
    rates = figures["rates"]["split"]
    rows = [
        (
            line["size"], line["axis"], line["layout"], line["exchange"], line["steps"], line["pads"],
            f"{line['sent_in_all_bytes'] / 1e6:.1f}", f"{line['step_s']:.4f}", f"{line['of_single']:.3f}",
            f"{line['floor_s']:.4f}", f"{line['of_floor']:.2f}", line["fidelity"],
        )
        for line in figures["lines"]
    ]  # fmt: skip
    return [
        f"rates of a rank: {rates['operations_per_s'] / 1e12:.3g} TFLOP/s ({arguments.dtype} product), "
        f"{rates['read_bytes_per_s'] / 1e9:.3g} GB/s memory, {rates['sent_bytes_per_s'] / 1e9:.3g} GB/s all-to-all",
        table(f"{arguments.model}, {arguments.dtype}; MB sent by all ranks in all steps", COLUMNS, rows, num_names=5),
        *figures["skipped"],
    ]


if __name__ == "__main__":
    start(main)
