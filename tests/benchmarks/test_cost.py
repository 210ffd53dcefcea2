"""Every benchmark of cost runs, and prints something whole: its parts add up, and nothing is left out. No times."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NANO_CONFIG = Path(__file__).resolve().parents[2] / "harness/models/checkpoints/nano/transformer/config.json"

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


RECORDED = """
[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
layout = "exact"
options = { graph = true }
"""
OTHERS = """
[[variant]]
engine = "diffusers-cp"
ulysses = 2

[[variant]]
engine = "sglang"
ulysses = 2
"""


Bench = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def measured(run_script: Callable[..., Any], tmp_path: Path) -> Bench:
    """Run a script; what it wrote as JSON, and what it printed."""

    def run(name: str, *arguments: object) -> tuple[dict[str, Any], str]:
        file = tmp_path / "figures.json"
        done = run_script(name, "--json", file, *arguments)
        assert done.code in (0, 1), done.stdout + done.stderr
        figures = json.loads(file.read_text(encoding="utf-8"))
        # Bounds speak of real matrices; on these small ones they may be broken, and then it has to be said.
        assert done.code == (1 if figures["broken"] else 0)
        assert done.stdout.count("bound broken: ") == len(figures["broken"])
        assert figures["machine"]["cores"] >= 1
        assert figures["machine"]["torch"] in done.stdout, "the machine is not named"
        return figures, done.stdout

    return run


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    file = tmp_path / "quick.toml"
    file.write_text(FAKE, encoding="utf-8")
    return file


def test_overhead_parts_add_up_to_the_wall_time(matrix: Path, measured: Bench, run_script: Callable[..., Any]) -> None:
    store = f'golden_store = "file://{matrix.parent}/none"\ngolden_digest = "sha256:{"0" * 64}"'
    matrix.write_text(FAKE.replace('golden = "off"', store), encoding="utf-8")
    refused = run_script("overhead.py", "--matrix", matrix)
    assert refused.code not in (0, 1)
    assert re.match(r"overhead.py: .*golden", refused.stderr), "the store that is not there was not missed"
    figures, printed = measured("overhead.py", "--matrix", matrix, "--golden", "off", "--size", "144x144")
    assert figures["rows"] == 2
    for side in ("harness", "bare"):
        parts = dict(figures[side])
        wall_s = parts.pop("wall_s")
        # The journal keeps milliseconds, and it is read against another clock.
        assert sum(parts.values()) == pytest.approx(wall_s, abs=0.01)
        assert min(parts.values()) >= -0.01, "a part holds more seconds than there were"
        assert parts["generation_s"] > 0
    assert figures["ratio"] == pytest.approx(figures["harness"]["wall_s"] / figures["bare"]["wall_s"])
    assert f"wall time over the bare script: {figures['ratio']:.3f}" in printed
    assert bool(figures["broken"]) == (figures["ratio"] > figures["allowed"])


def test_a_launch_for_each_row_is_scaled_by_their_number(matrix: Path, measured: Bench) -> None:
    figures, printed = measured("per_case_launch.py", "--matrix", matrix, "--rows", "2")
    rows = [item["row"] for item in figures["launched"]]
    assert rows == ["128x128/fake-u2-w", "144x144/fake-u2-w"], "not spread evenly over the matrix"
    total = sum(item["baseline_s"] + item["candidate_s"] for item in figures["launched"])
    assert figures["per_case_s"] == pytest.approx(total * 4 / 2)
    assert figures["ratio"] == pytest.approx(figures["per_case_s"] / figures["harness_s"])
    assert "2 rows launched, scaled by 4/2" in printed
    assert bool(figures["broken"]) == (figures["ratio"] < 5)


@pytest.mark.usefixtures("forked")
def test_growth_fits_a_curve_and_finds_one_copy_of_the_weights(measured: Bench) -> None:
    sizes = ("64x64", "128x128", "144x144")
    arguments = [text for size in sizes for text in ("--size", size)]
    figures, printed = measured("growth.py", *arguments, "--cases", "1", "--case-size", "64x64", "--steps", "2")
    assert figures["cases"]["fitted_s"] == pytest.approx(figures["cases"]["wall_s"])
    assert figures["tokens"]["sizes"] == list(sizes)
    for role, num_ranks in (("baseline", 1), ("candidate", 2)):
        found = figures["tokens"][role]
        # Three points, three coefficients: the curve meets them all.
        assert found["fitted_s"] == pytest.approx(found["step_s"])
        assert len(found["held_bytes"]) == num_ranks
        assert found["held_bytes"] == found["weights_bytes"], "a rank holds a second copy of the weights"
        assert not figures["broken"]
        assert all(len(ranks) == num_ranks for ranks in found["peak_bytes"])
    assert "a case; largest residual" in printed


@pytest.mark.usefixtures("forked")
def test_metrics_equal_scikit_image_and_a_run_says_what_they_cost(matrix: Path, measured: Bench) -> None:
    figures, printed = measured("metrics.py", "--matrix", matrix, "--picture", "128x128")
    beside = {name: found["difference"] for name, found in figures["alone"].items() if "difference" in found}
    assert set(beside) == {"psnr image", "psnr latents", "ssim image"}
    assert max(beside.values()) <= 1e-6
    run = figures["run"]
    assert 0 < run["judging_s"] < run["wall_s"]
    assert run["judging_cpu_s"] > 0
    assert run["comparisons"] >= 12  # four rows with six relations each at most
    assert "comparing and judging" in printed


@pytest.mark.usefixtures("forked")
def test_spatial_stands_beside_diffusers_and_the_floor(tmp_path: Path, measured: Bench) -> None:
    matrix = tmp_path / "quick.toml"
    matrix.write_text(NANO + RECORDED + OTHERS, encoding="utf-8")
    figures, printed = measured("spatial.py", matrix, "--quick")
    lines = figures["lines"]
    ways = [f"{line['layout']} {line['steps']}".strip() for line in lines]
    assert ways == ["single", "single graph", "aligned", "exact", "exact graph", "diffusers-cp"]
    single, _, aligned, exact, recorded, other = lines
    assert recorded["sent_in_all_bytes"] == exact["sent_in_all_bytes"], "replays send as much as is counted"
    assert all(line["floor_s"] > 0 and line["step_s"] > 0 for line in lines)
    assert aligned["operations"] > exact["operations"], "surplus pads are operations too"
    assert single["sent_bytes"] == 0
    # Float32, two ranks, a picture of 81 tokens and 15 pads and a caption of one bucket: a block trades query, key,
    # value and result, a half of each for the half that another has. A rank's mean, for one step.
    config = json.loads(NANO_CONFIG.read_text(encoding="utf-8"))
    dim, layers, refiners = (config[key] for key in ("dim", "n_layers", "n_refiner_layers"))
    picture, caption = 96, 32
    token = 4 * dim / 2  # bytes of half a token
    ours = 4 * picture / 2 * token * (refiners + layers) + caption * token * layers  # the caption's heads: gathered
    assert exact["sent_bytes"] == ours
    trajectory = 2 * 4 * 16 * 18 * 10  # of ranks, bytes, channels, cells of the longer part of 9 rows of tokens
    assert exact["sent_in_all_bytes"] == 2 * 2 * ours + 2 * trajectory
    assert aligned["sent_bytes"] == ours + 4 * 32 / 2 * token * (refiners + layers)
    # diffusers cuts the caption as well, and gathers: after the last block of each refiner, and 64 channels at the end.
    both = picture + caption
    theirs = 4 * both / 2 * token * (refiners + layers) + both / 2 * 4 * (dim + 64)
    assert other["sent_bytes"] == theirs
    # The token order of one device, cut once: nothing may differ from the single device.
    assert other["fidelity"] == "exact"
    assert "TFLOP/s" in printed
    assert re.search(r"^sglang-u2-auto: .*--python sglang=PYTHON$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('prompt = "a red ball"', 'guidance_scale = 4.0\nprompt = "a red ball"'),
        ('prompt = "a red ball"', 'num_images_per_prompt = 2\nprompt = "a red ball"'),
        ("ulysses = 2", "ring = 2"),
        ("ulysses = 2", 'ulysses = 2\ncache = "cache-dit"'),
    ],
)
def test_spatial_refuses_what_its_floor_does_not_know(
    tmp_path: Path, run_script: Callable[..., Any], line: str, named: str
) -> None:
    matrix = tmp_path / "quick.toml"
    matrix.write_text(NANO.replace(line, named), encoding="utf-8")
    done = run_script("spatial.py", matrix)
    assert done.code == 2
    assert re.fullmatch(rf"spatial.py: {re.escape(str(matrix))}: .*: floors are of .*; leave it out\n", done.stderr)


@pytest.mark.parametrize("name", ["overhead.py", "per_case_launch.py"])
def test_a_matrix_that_is_skipped_whole_has_no_cost(matrix: Path, run_script: Callable[..., Any], name: str) -> None:
    matrix.write_text(FAKE.replace("ulysses = 2", "ulysses = 7"), encoding="utf-8")
    done = run_script(name, "--matrix", matrix)
    assert done.code == 2
    assert "every row is skipped, the first because Ulysses degree 7 does not divide" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("overhead.py", "--size", "16x16"), "overhead.py: matrices/pr.toml: no row is selected"),
        (("per_case_launch.py", "--matrix", "none.toml"), "per_case_launch.py: none.toml"),
        (("overhead.py", "--rounds", "0"), "argument --rounds: '0' is not a whole number from 1"),
        (("metrics.py", "--json", "no/where.json"), "argument --json: no/where.json: there is no folder no"),
    ],
)
def test_what_a_user_got_wrong_is_a_line(run_script: Callable[..., Any], arguments: tuple[str, ...], said: str) -> None:
    done = run_script(*arguments)
    assert done.code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
