"""What figures cost: seconds a megapixel beside scikit-image's own, equal values, and their share of a real run.

First each metric by itself, on a picture of noise and a disturbed copy, and on their latents: seconds of the
processor, over all threads, for each megapixel of picture. PSNR and SSIM stand beside scikit-image's, with
the difference of the two values. Then a matrix is run as ``sp-harness run`` runs it, with a watch on every
comparison: the harness measures in a thread while later pictures are still being drawn, so its processor
time (of the thread that measures, not of the rest of the harness) and the time by which it outlasts the last
picture (the tail: waiting for that thread, and what is measured after it, such as goldens) are two figures.
Processor time is held to the bound; the tail is shown beside it.
Ends with 1 if a value is not scikit-image's, or metrics take more of a run than they may.

    python benchmarks/metrics.py [--matrix FILE] [--golden off] [--size WIDTHxHEIGHT ...] [--no-run] [--out DIR]
"""

from __future__ import annotations

import contextlib
import functools
import io
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from _common import add_matrix, finish, parser, start, table
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from harness import commands, registry, session
from harness.measure import AheadMeasurer, Measurer
from harness.plan import cut
from harness.types import Domain, Size

ALLOWED = {"cpu": 0.10, "cuda": 0.02}
"""Share of a run's wall time that the processor time of metrics may come to."""
SHOWN = {
    "metrics_cpu_s": "processor time of the metrics",
    "measuring_cpu_s": "with reading, digests and equality",
    "tail_s": "tail after the last picture",
}
EQUAL_TO = 1e-6
REPEATS = 15


def main() -> int:
    """Time metrics alone and in a run, and print both."""
    made = parser(__doc__)
    add_matrix(made)
    made.add_argument("--picture", default="1280x720", help="size of the pictures that metrics are timed on")
    made.add_argument("--no-run", action="store_true", help="time metrics alone")
    made.add_argument("--out", type=Path, help="keep the run's folder in this one")
    arguments = made.parse_args()
    alone = _alone(Size.parse(arguments.picture))
    figures: dict[str, Any] = {"alone": alone}
    device = "cpu"
    if not arguments.no_run:
        with contextlib.nullcontext(arguments.out) if arguments.out else tempfile.TemporaryDirectory() as out:
            figures["run"] = _in_a_run(arguments.matrix, Path(out), arguments.golden, arguments.size)
        device = figures["run"]["device"]
    return finish(arguments, device, _tables(figures, arguments), figures, _broken(figures))


# ---------------------------------------------------------------- alone


def _alone(size: Size) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (size.height_px, size.width_px, 3), dtype=np.uint8)
    disturbed = np.clip(pictures + generator.normal(0, 3, pictures.shape), 0, 255).astype(np.uint8)
    latents = generator.normal(size=(16, size.height_px // 8, size.width_px // 8)).astype(np.float32)
    pairs: dict[Domain, tuple[Any, Any]] = {
        "image": (pictures, disturbed),
        "latents": (latents, latents + generator.normal(0, 1e-3, latents.shape).astype(np.float32)),
    }
    megapixels = size.width_px * size.height_px / 1e6
    found = {}
    for name in registry.names("metrics"):
        kind = registry.load("metrics", name)
        metric = kind(cut(size, 2, "h")) if getattr(kind, "needs_plan", False) else kind()
        for domain in kind.domains:
            measure = functools.partial(metric.measure, *pairs[domain], domain)
            found[f"{name} {domain}"] = {"cpu_s_per_mpx": _cpu_s(measure) / megapixels, "value": measure().value}
    for key, theirs in _references(pairs).items():
        value = theirs()
        found[key] |= {
            "skimage_cpu_s_per_mpx": _cpu_s(theirs) / megapixels,
            "skimage_value": value,
            "difference": abs(found[key]["value"] - value),
        }
    return found


def _references(pairs: dict[Domain, tuple[Any, Any]]) -> dict[str, Callable[[], float]]:
    """scikit-image's figures that ours must equal; latents in float64, where its PSNR keeps all digits."""
    latents, disturbed = (np.asarray(each, np.float64) for each in pairs["latents"])
    span = float(latents.max() - latents.min())
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return {
        "psnr image": lambda: float(peak_signal_noise_ratio(*pairs["image"], data_range=255)),
        "psnr latents": lambda: float(peak_signal_noise_ratio(latents, disturbed, data_range=span)),
        "ssim image": lambda: float(structural_similarity(*pairs["image"], data_range=255, channel_axis=2, **wang)),
    }


def _cpu_s(call: Callable[[], Any]) -> float:
    """Median processor seconds of a call, all threads together; the first call is left out."""
    call()
    seconds: list[float] = []
    for _ in range(REPEATS):
        before = time.process_time()
        call()
        seconds.append(time.process_time() - before)
    return statistics.median(seconds)


# ---------------------------------------------------------------- in a run


class _Watch:
    """Seconds spent inside some functions.

    ``cpu_s`` is the processor time of the thread that calls: a run has others (progress, journal, packing), and
    metrics leave work to none of theirs. ``main_wall_s`` is the part of ``wall_s`` on the main thread.
    """

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = self.main_wall_s = 0.0
        self.calls = 0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                wall_s = time.perf_counter() - wall
                self.wall_s += wall_s
                self.main_wall_s += wall_s if threading.current_thread() is threading.main_thread() else 0.0
                self.cpu_s += time.thread_time() - cpu
                self.calls += 1

        return watched


def _in_a_run(matrix: Path, out: Path, golden: str, sizes: Sequence[str]) -> dict[str, Any]:
    """Run a matrix in this process as the command line does, with watches on what it measures."""
    metrics, measuring, waiting = _Watch(), _Watch(), _Watch()
    with contextlib.ExitStack() as stack:
        for owner, name, watch in _watched(metrics, measuring, waiting):
            stack.enter_context(patch.object(owner, name, watch(getattr(owner, name))))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        started = time.perf_counter()
        folder = commands.create(matrix, out, session.Selection(sizes=sizes), golden)
        exit_code = commands.run(folder)
        wall_s = time.perf_counter() - started
        drawn = [run for run in folder.runs().values() if run.failure is None]
        device = drawn[0].spec.case.device
    return {
        "matrix": str(matrix),
        "device": device,
        "exit_code": exit_code,
        "runs": len(drawn),
        "comparisons": measuring.calls,
        "wall_s": wall_s,
        "metrics_cpu_s": metrics.cpu_s,
        "measuring_cpu_s": measuring.cpu_s,
        "tail_s": waiting.wall_s + measuring.main_wall_s,
        "tail_after_waiting_s": measuring.main_wall_s,
        "allowed": ALLOWED[device],
    }


def _watched(metrics: _Watch, measuring: _Watch, waiting: _Watch) -> Iterator[tuple[Any, str, _Watch]]:
    for name in registry.names("metrics"):
        yield registry.load("metrics", name), "measure", metrics
    yield Measurer, "measure", measuring
    yield AheadMeasurer, "wait", waiting


# ---------------------------------------------------------------- what is printed


def _broken(figures: dict[str, Any]) -> list[str]:
    broken = [
        f"{name}: {found['difference']:.1e} from scikit-image, at most {EQUAL_TO:g}"
        for name, found in figures["alone"].items()
        if found.get("difference", 0.0) > EQUAL_TO
    ]
    run = figures.get("run")
    if run and (taken_s := run["metrics_cpu_s"]) > run["allowed"] * run["wall_s"]:
        broken.append(
            f"metrics take {taken_s / run['wall_s']:.1%} of the run's wall time, at most {run['allowed']:.0%}"
        )
    return broken


def _tables(figures: dict[str, Any], arguments: Any) -> list[Any]:
    rows = []
    for name, found in figures["alone"].items():
        theirs = found.get("skimage_cpu_s_per_mpx")
        beside = ("", "", "") if theirs is None else (
            f"{theirs:.4f}", f"{found['cpu_s_per_mpx'] / theirs:.2f}", f"{found['difference']:.1e}",
        )  # fmt: skip
        rows.append((name, f"{found['cpu_s_per_mpx']:.4f}", *beside))
    columns = ("metric", "CPU s/Mpx", "scikit-image", "ratio", "values differ by")
    lines: list[Any] = [table(f"{arguments.picture}, processor seconds for each megapixel of picture", columns, rows)]
    worst = max(found.get("difference", 0.0) for found in figures["alone"].values())
    lines.append(f"largest difference to scikit-image: {worst:.1e} (at most {EQUAL_TO:g})")
    if "run" in figures:
        lines += _run_lines(figures["run"])
    return lines


def _run_lines(run: dict[str, Any]) -> list[str]:
    share = {name: f"{run[name]:.2f} s, {run[name] / run['wall_s']:.1%} of the wall time" for name in SHOWN}
    share["metrics_cpu_s"] += f" (at most {run['allowed']:.0%})"
    return [
        f"{run['matrix']}: {run['runs']} runs, {run['comparisons']} comparisons, {run['wall_s']:.1f} s",
        *(f"{words}: {share[name]}" for name, words in SHOWN.items()),
    ]


if __name__ == "__main__":
    start(main)
