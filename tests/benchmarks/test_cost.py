"""Every benchmark of cost runs, and prints something whole: its parts add up, and nothing is left out. No times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

FAKE = """
schema = 1
name = "quick"
model = "fake"
steps = 2
golden = "off"

[[case]]
size = ["128x128", "144x144"]
prompt = "a red ball"

[[variant]]
engine = "fake"
ulysses = 2
axis = ["h", "w"]
"""
NANO = """
schema = 1
name = "quick"
model = "nano"
steps = 2
golden = "off"

[[case]]
size = "144x144"
prompt = "a red ball"

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
layout = ["aligned", "exact"]
"""


def bench(name: str, tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run a script; what it wrote as JSON, and what it printed."""
    file = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--json", str(file), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["machine"]["cores"] >= 1
    assert figures["machine"]["torch"] in done.stdout, "the machine is not named"
    return figures, done.stdout


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    file = tmp_path / "quick.toml"
    file.write_text(FAKE, encoding="utf-8")
    return file


def test_overhead_parts_add_up_to_the_wall_time(matrix: Path, tmp_path: Path) -> None:
    figures, printed = bench("overhead.py", tmp_path, "--matrix", str(matrix), "--size", "144x144")
    assert figures["rows"] == 2
    for side in ("harness", "bare"):
        parts = dict(figures[side])
        wall_s = parts.pop("wall_s")
        # The journal keeps milliseconds, and it is read against another clock.
        assert sum(parts.values()) == pytest.approx(wall_s, abs=0.01)
        assert parts["generation_s"] > 0
    assert figures["ratio"] == pytest.approx(figures["harness"]["wall_s"] / figures["bare"]["wall_s"])
    assert f"wall time over the bare script: {figures['ratio']:.3f}" in printed


def test_a_launch_for_each_row_is_scaled_by_their_number(matrix: Path, tmp_path: Path) -> None:
    figures, printed = bench("per_case_launch.py", tmp_path, "--matrix", str(matrix), "--rows", "2")
    rows = [item["row"] for item in figures["launched"]]
    assert rows == ["128x128/fake-u2-w", "144x144/fake-u2-w"], "not spread evenly over the matrix"
    total = sum(item["baseline_s"] + item["candidate_s"] for item in figures["launched"])
    assert figures["per_case_s"] == pytest.approx(total * 4 / 2)
    assert figures["ratio"] == pytest.approx(figures["per_case_s"] / figures["harness_s"])
    assert "2 rows launched, scaled by 4/2" in printed


def test_growth_fits_a_curve_and_finds_one_copy_of_the_weights(tmp_path: Path) -> None:
    sizes = ("64x64", "128x128", "144x144")
    arguments = [text for size in sizes for text in ("--size", size)]
    figures, printed = bench("growth.py", tmp_path, *arguments, "--cases", "1", "--case-size", "64x64", "--steps", "2")
    assert figures["cases"]["fitted_s"] == pytest.approx(figures["cases"]["wall_s"])
    assert figures["tokens"]["sizes"] == list(sizes)
    for role, num_ranks in (("baseline", 1), ("candidate", 2)):
        found = figures["tokens"][role]
        # Three points, three coefficients: the curve meets them all.
        assert found["fitted_s"] == pytest.approx(found["step_s"])
        assert len(found["held_bytes"]) == num_ranks
        assert found["held_bytes"] == found["weights_bytes"], "a rank holds a second copy of the weights"
        assert all(len(ranks) == num_ranks for ranks in found["peak_bytes"])
    assert "a case; largest residual" in printed


def test_metrics_equal_scikit_image_and_are_watched_in_a_run(matrix: Path, tmp_path: Path) -> None:
    figures, printed = bench("metrics.py", tmp_path, "--matrix", str(matrix), "--picture", "128x128")
    beside = {name: found["difference"] for name, found in figures["alone"].items() if "difference" in found}
    assert set(beside) == {"psnr image", "psnr latents", "ssim image"}
    assert max(beside.values()) <= 1e-6
    run = figures["run"]
    assert run["exit_code"] == 0
    assert 0 < run["metrics_cpu_s"] <= run["measuring_cpu_s"] < run["wall_s"]
    # Four rows with six relations each at most; some are made again when the report is written.
    assert run["comparisons"] >= 12
    assert "tail after the last picture" in printed


def test_spatial_stands_beside_diffusers_and_the_floor(tmp_path: Path) -> None:
    matrix = tmp_path / "quick.toml"
    matrix.write_text(NANO, encoding="utf-8")
    figures, printed = bench("spatial.py", tmp_path, str(matrix), "--quick")
    lines = figures["lines"]
    assert [line["layout"] for line in lines] == ["single", "aligned", "exact", "diffusers-cp"]
    single, aligned, exact, other = lines
    assert all(line["floor_s"] > 0 and line["step_s"] > 0 for line in lines)
    assert aligned["operations"] > exact["operations"], "surplus pads are operations too"
    assert single["sent_bytes"] == 0
    # Both trade the picture's tokens for heads; diffusers the caption's too, which stands on every rank here.
    assert other["sent_bytes"] == pytest.approx(exact["sent_bytes"], rel=0.5)
    # The token order of one device, cut once: nothing may differ from the single device.
    assert other["fidelity"] == "exact"
    assert "TFLOP/s" in printed
