"""What figures cost: seconds a megapixel beside scikit-image's own, equal values, and their share of a real run.

First each metric by itself, on a picture of noise and a disturbed copy, and on their latents: CPU seconds, over all
threads, for each megapixel of picture. PSNR and SSIM stand beside scikit-image's, with the difference of the two
values. Then a matrix is run, and what it drew is compared and judged once more, as `sp-harness run` does after the
last picture: reading, digests, every metric, the steps, the verdicts, on all cores. Held to the bound is the wall
time of that, as a share of the run's.
Ends with 1 if a value is not scikit-image's, or judging takes more of a run than it may.

    python benchmarks/metrics.py [--matrix FILE] [--golden off] [--size WIDTHxHEIGHT ...] [--no-run | --of RUN]
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import add_matrix, finish, parser, run_harness, start, table
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from harness import plugins
from harness.planning.cut import cut
from harness.plugins import Context
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Domain, Size

ALLOWED = 0.10
"""Share of a run's wall time that comparing and judging may come to."""
EQUAL_TO = 1e-6
REPEATS = 15


def main() -> int:
    """Time metrics alone and in a run, and print both."""
    made = parser(__doc__)
    add_matrix(made)
    made.add_argument("--picture", default="1280x720", help="size of the pictures that metrics are timed on")
    made.add_argument("--no-run", action="store_true", help="time metrics alone")
    made.add_argument("--of", type=Path, help="read a run folder in place of running a matrix")
    arguments = made.parse_args()
    figures: dict[str, Any] = {"alone": _alone(Size.parse(arguments.picture))}
    device = "cpu"
    if arguments.of:
        folder = RunFolder.open(arguments.of)
        figures["run"] = _of_run(folder, folder.recorded_s())
    elif not arguments.no_run:
        with tempfile.TemporaryDirectory() as out:
            done = run_harness(arguments.matrix, Path(out), arguments.golden, arguments.size)
            figures["run"] = _of_run(done.folder, done.wall_s)
    if "run" in figures:
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
    found: dict[str, dict[str, Any]] = {}
    for name in plugins.names("metrics"):
        metric = plugins.load("metrics", name)()
        for domain in metric.domains:
            measure = functools.partial(metric.measure, *pairs[domain], domain, Context(cut(size, 2, "h")))
            found[f"{name} {domain}"] = {"cpu_s_per_mpx": _cpu_s(measure) / megapixels, "value": measure().value}
    for key, theirs in _references(pairs).items():
        value, cpu_s = theirs(), _cpu_s(theirs)
        found[key] |= {
            "skimage_cpu_s_per_mpx": cpu_s / megapixels,
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


def _of_run(folder: RunFolder, wall_s: float) -> dict[str, Any]:
    """Judge a run's pictures, and tell what that costs."""
    runs = folder.runs()
    before, cpu_before = time.perf_counter(), time.process_time()
    report = steps.conclude(folder, pinned=False)
    judging_s, judging_cpu_s = time.perf_counter() - before, time.process_time() - cpu_before
    return {
        "matrix": folder.plan.matrix.path,
        "device": next(iter(runs.values())).spec.case.device,
        "runs": len(runs),
        "comparisons": sum(len(row.comparisons) for row in report.rows),
        "wall_s": wall_s,
        "judging_s": judging_s,
        "judging_cpu_s": judging_cpu_s,
    }


# ---------------------------------------------------------------- what is printed


def _broken(figures: dict[str, Any]) -> list[str]:
    broken = [
        f"{name}: {found['difference']:.1e} from scikit-image, at most {EQUAL_TO:g}"
        for name, found in figures["alone"].items()
        if found.get("difference", 0.0) > EQUAL_TO
    ]
    run = figures.get("run")
    if run and run["judging_s"] > ALLOWED * run["wall_s"]:
        broken.append(
            f"judging takes {run['judging_s'] / run['wall_s']:.1%} of the run's wall time, at most {ALLOWED:.0%}"
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
    return [
        f"{run['matrix']}: {run['runs']} runs, {run['comparisons']} comparisons, {run['wall_s']:.1f} s",
        f"comparing and judging: {run['judging_s']:.2f} s, {run['judging_s'] / run['wall_s']:.1%} of the wall time "
        f"(at most {ALLOWED:.0%}); {run['judging_cpu_s']:.2f} s of CPU time",
    ]


if __name__ == "__main__":
    start(main)
