"""What figures cost: seconds a megapixel beside scikit-image's own, equal values, and their share of a real run.

First each metric by itself, on a picture of noise and a disturbed copy, and on their latents: seconds of the
processor, over all threads, for each megapixel of picture. PSNR and SSIM stand beside scikit-image's, with
the difference of the two values; SSIM also as it is computed on a GPU, if there is one. Then a matrix is run:
the harness measures in a process of its own while later pictures are still being drawn, and leaves in the
journal what that cost. Held to the bound is the processor time from two samples in memory to their
comparison: equality, every metric, the steps. The rest of the process' time (reading, digests, the report's
difference pictures) and the tail, by which it outlasts the last picture, are shown beside it.
Ends with 1 if a value is not scikit-image's, or comparing takes more of a run than it may.

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
from _common import HarnessRun, add_matrix, finish, parser, run_harness, start, table
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from harness import plugins
from harness.planning.cut import cut
from harness.plugins import Context
from harness.runs.folder import MEASURED, RunFolder
from harness.session.background import LOG
from harness.types import Domain, Size

ALLOWED = {"cpu": 0.10, "cuda": 0.02}
"""Share of a run's wall time that the processor time of comparing may come to."""
SHOWN = {
    "comparing_cpu_s": "processor time of comparing",
    "cpu_s": "with reading, digests and difference pictures",
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
    made.add_argument("--of", type=Path, help="read a run folder in place of running a matrix")
    arguments = made.parse_args()
    figures: dict[str, Any] = {"alone": _alone(Size.parse(arguments.picture))}
    device = "cpu"
    if arguments.of:
        folder = RunFolder.open(arguments.of)
        figures["run"] = _of_run(HarnessRun(0.0, folder.recorded_s(), 0, folder))
    elif not arguments.no_run:
        with tempfile.TemporaryDirectory() as out:
            figures["run"] = _of_run(run_harness(arguments.matrix, Path(out), arguments.golden, arguments.size))
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
    found = {}
    for name in plugins.names("metrics"):
        metric = plugins.load("metrics", name)()
        for domain in metric.domains:
            measure = functools.partial(metric.measure, *pairs[domain], domain, Context(cut(size, 2, "h")))
            found[f"{name} {domain}"] = {"cpu_s_per_mpx": _cpu_s(measure) / megapixels, "value": measure().value}
        if name == "ssim" and (gpu := _gpu()):  # the others compute on the CPU alone
            measure = functools.partial(metric.measure, *pairs["image"], "image", Context(device=gpu))
            found[f"{name} image on a GPU"] = {"cpu_s_per_mpx": _cpu_s(measure) / megapixels, "value": measure().value}
    for key, theirs in _references(pairs).items():
        value, cpu_s = theirs(), _cpu_s(theirs)
        for ours in (found[name] for name in (key, f"{key} on a GPU") if name in found):
            ours["skimage_cpu_s_per_mpx"] = cpu_s / megapixels
            ours["skimage_value"], ours["difference"] = value, abs(ours["value"] - value)
    return found


def _gpu() -> str | None:
    import torch

    return "cuda:0" if torch.cuda.is_available() else None


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


def _of_run(done: HarnessRun) -> dict[str, Any]:
    """What a run's journal says of measuring.

    Raises
    ------
    SystemExit
        If it says nothing: then whoever judged has measured, and the time is not known.
    """
    journal, runs = done.journal(), done.folder.runs()
    measured = [entry for entry in journal if entry["event"] == MEASURED]
    log = done.folder.path / "logs" / LOG
    if not measured or log.read_text(encoding="utf-8"):
        raise SystemExit(f"{done.folder.path}: not everything was measured beside the drawing; see {log}")
    if sum(entry["event"] == "begun" for entry in journal) > 1:
        raise SystemExit(f"{done.folder.path}: was drawn in more than one session; what measuring cost is one's alone")
    last = max(entry["time"] for entry in journal if entry["event"] == "finished")
    drawn = [run for run in runs.values() if run.failure is None]
    device = drawn[0].spec.case.device
    return {
        "matrix": done.folder.plan.matrix.path,
        "device": device,
        "runs": len(drawn),
        "wall_s": done.wall_s,
        "tail_s": measured[-1]["time"] - last,
        "allowed": ALLOWED[device],
        **{key: measured[-1][key] for key in ("gpus", "comparisons", "comparing_cpu_s", "cpu_s", "samples_read")},
    }


# ---------------------------------------------------------------- what is printed


def _broken(figures: dict[str, Any]) -> list[str]:
    broken = [
        f"{name}: {found['difference']:.1e} from scikit-image, at most {EQUAL_TO:g}"
        for name, found in figures["alone"].items()
        if found.get("difference", 0.0) > EQUAL_TO
    ]
    run = figures.get("run")
    if run and (taken_s := run["comparing_cpu_s"]) > run["allowed"] * run["wall_s"]:
        broken.append(
            f"comparing takes {taken_s / run['wall_s']:.1%} of the run's wall time, at most {run['allowed']:.0%}"
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
    share["comparing_cpu_s"] += f" (at most {run['allowed']:.0%})"
    where = " and ".join(["the processor", *(f"GPU {gpu}" for gpu in run["gpus"])])
    return [
        f"{run['matrix']}: {run['runs']} runs, {run['comparisons']} comparisons on {where}, {run['wall_s']:.1f} s",
        f"samples read: {run['samples_read']} (runs and goldens, each once unless memory was short)",
        *(f"{words}: {share[name]}" for name, words in SHOWN.items()),
    ]


if __name__ == "__main__":
    start(main)
