"""Every planted bug is found by the command line, and blamed on the split alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness import codec, plugins
from harness.types import Outcome, Relation, Report, Row

FAULTS = ("gather-swapped", "gather-uncropped", "rope-origin-dropped")
EVEN, UNEVEN = "128x128", "144x144"
MATRIX = f"""\
schema = 1
name = "faults"
model = "nano"
steps = 2

[[case]]
size = ["{EVEN}", "{UNEVEN}"]
prompt = "a red ball left of a blue tower at night"
""" + "".join(f'\n[[variant]]\nengine = "spatial"\nulysses = 2\naxis = "h"\nfault = "{fault}"\n' for fault in FAULTS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """One run of all faults: what takes time is starting the workers."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "faults.toml").write_text(MATRIX)
    command = [sys.executable, "-m", "harness.cli", "run", "faults.toml", "--out", "out", "--golden", "off"]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (run,) = (folder / "out").iterdir()
    return run, done


@pytest.fixture(scope="module")
def rows(finished: tuple[Path, "subprocess.CompletedProcess[str]"]) -> dict[tuple[str, str | None], Row]:
    report = codec.read_json(finished[0] / "report.json", Report)
    return {(row.case.name, row.variant.fault): row for row in report.rows}


def test_the_run_fails_without_any_golden(finished: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    _, done = finished
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Goldens are off" in done.stdout
    assert "1 pass, 5 fail" in done.stdout


@pytest.mark.parametrize(
    ("size", "fault"),
    [(size, fault) for size in (EVEN, UNEVEN) for fault in FAULTS if (size, fault) != (EVEN, "gather-uncropped")],
)
def test_a_fault_is_found_by_exchange_and_the_engine_on_one_device_acquitted(
    rows: dict[tuple[str, str | None], Row], size: str, fault: str
) -> None:
    row = rows[size, fault]
    assert row.verdict is not None
    assert row.verdict.outcome == Outcome.FAIL
    failing = {judgement.relation for judgement in row.verdict.judgements if judgement.ok is False}
    assert Relation.EXCHANGE in failing
    assert not failing & {Relation.CONTROL, Relation.LAYOUT}
    control, exchange = row.comparison(Relation.CONTROL), row.comparison(Relation.EXCHANGE)
    assert control is not None
    assert control.exact
    assert exchange is not None
    if fault == "gather-uncropped":
        assert exchange.problem == (
            "sizes differ: latents should be 1 of 18x18 cells, 16 channels, is 1 of 18x20 cells, 16 channels"
        )
    else:
        figure = exchange.figure("psnr", "latents")
        assert figure is not None
        assert figure.value is not None
        assert figure.value < 40
    # A diagnosis that looks deeper may name more than `split`, never another place than the bug's own.
    own = plugins.load("faults", fault).cause
    assert row.verdict.cause in ({own} if fault == "gather-uncropped" else {own, "split"})
    assert "damages the picture" in row.verdict.sentence


def test_cropping_is_missed_at_uneven_shards_only(rows: dict[tuple[str, str | None], Row]) -> None:
    row = rows[EVEN, "gather-uncropped"]
    assert row.verdict is not None
    assert (row.verdict.outcome, row.verdict.cause) == (Outcome.PASS, None)
    assert all(comparison.exact for comparison in row.comparisons if comparison.relation != Relation.FLOOR)
