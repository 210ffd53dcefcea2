"""`spatial` with its steps recorded as CUDA graphs, beside the same steps launched one by one, and beside one device.

First every feature is drawn both ways, two requests of one shape after another, and each picture's latents after every
step have to be equal to the last bit; so has a request for which a rank lacks the memory to record. Then sizes are
timed: one device (diffusers' pipeline, and `spatial` alone in a graph), two devices launched and recorded, with query,
key and value exchanged in several ways. Rounds are interleaved; seconds a step are medians over rounds of a run's
median step. On GPUs a profile of one replay says where its time goes. Without GPUs recorded steps are called on the
same buffers: what is compared is the same, times mean nothing.

    python benchmarks/graphs.py                                                            # two processes, gloo
    python benchmarks/graphs.py --device cuda --dtype bfloat16 --model z-image-random      # two GPUs, NCCL
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _common import add_model, finish, parser, positive, start, table
from _launch import HERE, launch

from harness import models
from harness.errors import InfrastructureError
from harness.execution import gpus

RANKS = 2
SIZES = {"cpu": ["240x176"], "cuda": ["512x512", "720x720", "720x1280", "1024x1024", "2048x2048"]}
LEAST = {"512x512": 1.75, "720x720": 1.5, "720x1280": 1.6, "1024x1024": 1.6, "2048x2048": 1.68}
"""Speed-up over one device that layout exact in a graph has to reach on two H200 in bfloat16."""


def main() -> int:
    """Draw on two ranks, and print what they measured."""
    made = parser(__doc__)
    add_model(made)
    made.add_argument("--size", action="append", default=[], metavar="WIDTHxHEIGHT", help="only this size")
    made.add_argument("--rounds", type=positive, default=5, help="runs of each way")
    made.add_argument("--steps", type=positive, default=4, help="of each run")
    made.add_argument("--only", choices=("equality", "times"), help="instead of both")
    made.add_argument("--alternatives", action="store_true", help="also time fused norms and compiled blocks")
    made.add_argument("--progress", type=Path, metavar="FILE", help="write lines as they are measured")
    arguments = made.parse_args()
    if arguments.device == "cuda" and len(gpus.visible("cuda")) < RANKS:
        raise InfrastructureError(f"{RANKS} GPUs are needed; see nvidia-smi and CUDA_VISIBLE_DEVICES")
    model = models.resolve(arguments.model)
    job = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    job |= {"size": arguments.size or SIZES[arguments.device], "path": model.path, "weights": model.weights}
    figures = launch(HERE / "_graphs.py", job, RANKS, RANKS).replies[0]
    return finish(arguments, arguments.device, _tables(figures), figures, _broken(figures, arguments))


def _broken(figures: Mapping[str, Any], arguments: Namespace) -> list[str]:
    found = [f"{line['feature']}, {line['size']}: {line['result']}" for line in figures["equality"] if not line["ok"]]
    for line in figures["ways"]:
        if line["equal"] is False:
            found.append(f"{line['way']}, {line['size']}: a graph's latents are others than eager's")
        least = LEAST.get(line["size"]) if arguments.device == "cuda" else None
        if least and line["way"] == "exact, graph" and line["speed_up"] < least:
            found.append(f"{line['size']}: {line['speed_up']:.2f} times one device, at least {least}")
    return found


def _tables(figures: Mapping[str, Any]) -> list[Any]:
    equality = [(line["feature"], line["size"], line["result"]) for line in figures["equality"]]
    ways = [
        (
            line["size"], line["way"], f"{line['step_s']:.4f}", f"{line['speed_up']:.2f}", _seconds(line["record_s"]),
            _number(line["pays_from_step"]), f"{line['peak_gb']:.2f}", f"{line['graph_gb']:.2f}",
            {None: "", True: "equal", False: "DIFFERS"}[line["equal"]],
        )
        for line in figures["ways"]
    ]  # fmt: skip
    shares = [
        (
            line["size"],
            line["way"],
            *(f"{1e3 * line[kind]:.2f}" for kind in ("wall_s", *figures["kinds"])),
            f"{line['kernels']:.0f}",
        )
        for line in figures["profiles"]
    ]
    columns = ("size", "way", "s/step", "of one device", "record s", "pays from", "peak GB", "graph GB", "to eager")
    made: list[Any] = []
    if equality:
        made.append(table("recorded against eager, two requests of one shape", ("feature", "size", ""), equality, 3))
    made.append(table("seconds a step, median; memory of the first rank beyond the weights", columns, ways, 2))
    if shares:
        kinds = ("size", "way", "step", *figures["kinds"], "number")
        made.append(table("one step, milliseconds of kernels on the first rank", kinds, shares, 2))
    return made


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    start(main)
