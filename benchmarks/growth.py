"""How cost grows: wall time with the number of cases, seconds a step and peak memory with the number of tokens.

Cases: ``sp-harness run`` on matrices of 1, 2, 4, ... equal cases that differ in their seed alone, and a straight
line through the wall times: the harness' start-up and what a case costs. Tokens: every size once on one device and
on two ranks, one run at a time, by ranks that have drawn the largest once before, unmeasured (connections,
libraries and kernels cost their first user), with ``a + b * tokens + c * tokens**2`` through the seconds a step
(projections and feed-forward grow with the tokens, attention with their square). Memory: a rank's peak beyond the
weights, which it must hold once, whatever engines it serves; ends with 1 if it does not. What is counted there are the
parameters and buffers in the processes of this benchmark's own script (``_draw.py``), with both engines loaded. The
peak is each size's own; what a rank keeps for good once it has drawn is in all of them.

On a CPU every rank computes with one thread, and so does the single device: "of single" is two cores against one.

    python benchmarks/growth.py [--device cuda --dtype bfloat16 --model z-image-random] [--size WIDTHxHEIGHT ...]
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import add_model, finish, parser, positive, run_harness, start, table
from _launch import draw

from harness.planning.graph import Graph
from harness.session import steps
from harness.types import Row

CASES = """\
schema = 1
name = "growth"
model = "{model}"
device = "{device}"
dtype = "{dtype}"
steps = {steps}
golden = "off"
timeout_s = 1800
"""
CASE = """\
[[case]]
name = "{name}"
size = "{size}"
seed = {seed}
prompt = "a purple ring right and a yellow ball left on tiles at day"
"""
VARIANT = """\
[[variant]]
engine = "spatial"
ulysses = 2
layout = "exact"
"""
SIZES = ("256x256", "512x512", "768x768", "1024x1024")
SIZES_CUDA = (*SIZES, "1280x1280", "1536x1536", "2048x2048")


def main() -> int:
    """Run, fit and print."""
    made = parser(__doc__)
    add_model(made)
    made.add_argument("--size", action="append", default=[], help="instead of four from 256x256 to 1024x1024")
    made.add_argument("--cases", type=positive, nargs="+", default=[1, 2, 4, 8, 16], help="cases of each matrix")
    made.add_argument("--case-size", default="256x256")
    made.add_argument("--steps", type=positive, default=4)
    arguments = made.parse_args()
    head = CASES.format(**{key: getattr(arguments, key) for key in ("model", "device", "dtype", "steps")})
    sizes = arguments.size or (SIZES if arguments.device == "cpu" else SIZES_CUDA)
    with tempfile.TemporaryDirectory() as place:
        over_cases = _over_cases(head, arguments.cases, arguments.case_size, Path(place))
        over_tokens = _over_tokens(head, sizes, Path(place))
    figures = {"cases": over_cases, "tokens": over_tokens}
    return finish(arguments, arguments.device, _tables(figures, arguments), figures, _broken(over_tokens))


def _over_cases(head: str, counts: Sequence[int], size: str, place: Path) -> dict[str, Any]:
    walls = []
    for count in counts:
        cases = "".join(CASE.format(name=f"case-{seed}", size=size, seed=seed) for seed in range(count))
        file = place / "cases.toml"
        file.write_text(head + cases + VARIANT, encoding="utf-8")
        walls.append(run_harness(file, place / "reports").wall_s)
    return {"counts": list(counts), "wall_s": walls, **_fit(counts, walls, 1)}


def _fit(x: Sequence[float], y: Sequence[float], degree: int) -> dict[str, Any]:
    """Least squares of a polynomial's relative errors; as many coefficients as there are points at most."""
    powers = min(degree, len(set(x)) - 1)
    coefficients = np.polyfit(np.asarray(x, float), np.asarray(y, float), powers, w=1 / np.asarray(y))[::-1]
    fitted = sum(value * np.asarray(x, float) ** power for power, value in enumerate(coefficients))
    residuals = np.abs(fitted - y) / np.asarray(y)
    return {
        "coefficients": [*map(float, coefficients), *[0.0] * (degree - powers)],
        "fitted_s": list(map(float, fitted)),
        "largest_residual": float(residuals.max()),
    }


def _over_tokens(head: str, sizes: Sequence[str], place: Path) -> dict[str, Any]:
    file = place / "tokens.toml"
    cases = "".join(CASE.format(name=size, size=size, seed=0) for size in sizes)
    file.write_text(head + cases + VARIANT, encoding="utf-8")
    _, graph = steps.prepare(file)
    rows = sorted(graph.rows, key=lambda row: row.case.size.tokens)
    found: dict[str, Any] = {"sizes": [str(row.case.size) for row in rows]}
    found["tokens"] = [row.case.size.tokens for row in rows]
    for role in ("baseline", "candidate"):
        found[role] = _of_role(rows, graph, role)
        found[role] |= _fit(found["tokens"], found[role]["step_s"], 2)
    return found


def _of_role(rows: Sequence[Row], graph: Graph, role: str) -> dict[str, Any]:
    """Draw each row's run of one role, in one launch, one at a time and warm; the last row is the largest."""
    specs = [graph.specs[row.runs[role]] for row in rows]
    launch = draw(specs, side_by_side=1, weights=True, warm=len(specs) - 1)
    first = launch.replies[0]["runs"]
    return {
        "step_s": [statistics.median(run["steps_s"][1:] or run["steps_s"]) for run in first],
        "peak_bytes": [[reply["runs"][i]["peak_memory_bytes"] for reply in launch.replies] for i in range(len(rows))],
        **{
            name: [reply[name] for reply in launch.replies]
            for name in ("weights_bytes", "held_bytes", "loaded_bytes", "allocated_bytes")
            if name in launch.replies[0]
        },
    }


def _tables(figures: dict[str, Any], arguments: Any) -> list[Any]:
    cases, tokens = figures["cases"], figures["tokens"]
    start, slope = cases["coefficients"]
    single, split = tokens["baseline"], tokens["candidate"]
    return [
        table(
            f"cases of {arguments.case_size}, {arguments.steps} steps",
            ("cases", "wall s", "line s"),
            [
                (str(n), f"{wall:.2f}", f"{line:.2f}")
                for n, wall, line in zip(cases["counts"], cases["wall_s"], cases["fitted_s"], strict=True)
            ],
        ),
        f"start-up {start:.2f} s, {slope:.3f} s a case; largest residual {cases['largest_residual']:.1%}",
        table(
            f"{arguments.model}, {arguments.dtype}: s/step by tokens",
            ("size", "tokens", "single", "fit", "2 ranks", "fit", "of single", *_memory_columns(single, split)),
            [_token_row(tokens, index) for index in range(len(tokens["sizes"]))],
        ),
        *(_fitted(name, role) for name, role in (("single", single), ("2 ranks", split))),
        *(_copies(name, role) for name, role in (("single", single), ("2 ranks", split))),
    ]


def _memory_columns(single: dict[str, Any], split: dict[str, Any]) -> list[str]:
    ranks = [f"rank {rank}" for rank in range(len(split["held_bytes"]))]
    return [f"{place}, MB beyond loaded" for place in ("single", *ranks)]


def _token_row(tokens: dict[str, Any], index: int) -> tuple[str, ...]:
    single, split = tokens["baseline"], tokens["candidate"]
    seconds = [figures[key][index] for figures in (single, split) for key in ("step_s", "fitted_s")]
    beyond = [
        (peak - base) / 1e6
        for figures in (single, split)
        for peak, base in zip(figures["peak_bytes"][index], figures["loaded_bytes"], strict=True)
    ]
    return (
        tokens["sizes"][index],
        str(tokens["tokens"][index]),
        *(f"{each:.4f}" for each in seconds),
        f"{seconds[2] / seconds[0]:.3f}",
        *(f"{each:.0f}" for each in beyond),
    )


def _fitted(name: str, role: dict[str, Any]) -> str:
    constant, linear, square = role["coefficients"]
    return (
        f"{name}: {constant * 1e3:.2f} ms + {linear * 1e6:.3f} us * tokens + {square * 1e9:.3f} ns * tokens^2; "
        f"largest residual {role['largest_residual']:.1%}"
    )


def _broken(tokens: dict[str, Any]) -> list[str]:
    return [
        f"{name}: a rank holds {held / weights:.3f} copies of the weights"
        for name, role in (("single", tokens["baseline"]), ("2 ranks", tokens["candidate"]))
        for held, weights in zip(role["held_bytes"], role["weights_bytes"], strict=True)
        if held != weights
    ]


def _copies(name: str, role: dict[str, Any]) -> str:
    """On GPUs also what torch has allocated there after the runs, whoever holds it."""
    weights = role["weights_bytes"]
    copies = {
        what: ", ".join(f"{held / whole:.3f}" for held, whole in zip(role[key], weights, strict=True))
        for what, key in (("a rank's parameters and buffers", "held_bytes"), ("allocated", "allocated_bytes"))
        if key in role
    }
    told = "; ".join(f"{what} over them: {ratios}" for what, ratios in copies.items())
    return f"{name}: weights {weights[0] / 1e6:.1f} MB; {told}"


if __name__ == "__main__":
    start(main)
