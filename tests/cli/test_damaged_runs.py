"""Run folders that were damaged: every command names the file and the cure, and a resumed run draws anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import codec
from harness.cli.run import resumed
from harness.errors import FileError
from harness.runs.folder import RunFolder, read_report
from harness.runs.journal import Journal
from harness.session import steps
from harness.types import Run
from tests.command_line import ONE_ROW, Cli, one_line

COMMANDS = ("compare", "report", "merge", "explain", "pack", "approve")
READS = {
    "plan.json": ("compare", "merge", "explain", "approve"),
    "report.json": ("report", "pack", "approve"),
    "run.json": ("compare", "merge", "explain", "approve"),
    "image-0.png": ("compare", "report", "merge", "explain", "pack"),
    "latents.safetensors": ("compare", "report", "merge", "explain", "pack"),
}
CURES = {"plan.json": "draw anew with sp-harness run", "report.json": "make it anew with: sp-harness compare"}

Damage = Callable[[bytes], bytes]
TRUNCATED: Damage = lambda content: content[: len(content) // 2]  # noqa: E731
EMPTY: Damage = lambda content: b""  # noqa: E731
FLIPPED: Damage = lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]  # noqa: E731
NO_TEXT: Damage = lambda content: b"\xff\xfe" + content  # noqa: E731
DEEP: Damage = lambda content: b"[" * 100_000  # noqa: E731


@pytest.fixture
def run(bench: Any) -> Path:
    folder = bench.drawn(ONE_ROW, "off")
    steps.write_reports(steps.conclude(folder), folder.path)
    path: Path = folder.path
    return path


def file_of(run: Path, name: str) -> Path:
    return run / name if (run / name).exists() else sorted((run / "runs").glob(f"*/{name}"))[0]


def arguments(command: str, run: Path, tmp_path: Path) -> list[object]:
    more: dict[str, list[object]] = {
        "pack": [tmp_path / "packed"],
        "merge": ["--out", tmp_path / "merged"],
        "approve": ["--yes"],
    }
    return [command, run, *more.get(command, [])]


@pytest.mark.parametrize("damage", [TRUNCATED, EMPTY], ids=["truncated", "empty"])
@pytest.mark.parametrize("name", READS)
def test_a_damaged_file_is_named_with_its_cure(cli: Cli, run: Path, tmp_path: Path, name: str, damage: Damage) -> None:
    path = file_of(run, name)
    path.write_bytes(damage(path.read_bytes()))
    for command in READS[name]:
        cure = CURES.get(name, "draw it anew with: sp-harness run --resume")
        one_line(cli(*arguments(command, run, tmp_path)), str(path), cure)
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [("image-0.png", FLIPPED), ("latents.safetensors", FLIPPED), ("run.json", NO_TEXT), ("report.json", DEEP)],
)
def test_so_is_one_of_the_same_size_or_of_no_text(
    cli: Cli, run: Path, tmp_path: Path, name: str, damage: Damage
) -> None:
    path = file_of(run, name)
    path.write_bytes(damage(path.read_bytes()))
    one_line(cli(*arguments(READS[name][0], run, tmp_path)), str(path))


EDITS: tuple[tuple[tuple[Any, ...], object], ...] = (
    (("wall_s",), "long"),
    (("rows",), {"0": 1}),
    (("exit_code",), [1]),
    (("notes",), [1]),
    (("complete",), "yes"),
    (("rows", 0, "verdict", "sentence"), 5),
    (("rows", 0, "case", "size", "width_px"), "128"),
    (("rows", 0, "runs", "baseline"), "../../elsewhere"),
    (("rows", 0, "comparisons", 0, "figures"), 7),
    (("rows", 0, "variant", "options"), [1]),
    (("golden",), "sometimes"),
    (("environment", "system"), None),
    (("wall_s",), float("inf")),
    (("started_at",), 5),
)


def test_a_report_edited_to_other_types_is_named(cli: Cli, run: Path, tmp_path: Path) -> None:
    path = run / "report.json"
    whole = path.read_text()
    for place, value in EDITS:
        data = found = json.loads(whole)
        for key in place[:-1]:
            found = found[key]
        found[place[-1]] = value
        path.write_text(json.dumps(data))
        with pytest.raises(FileError, match=rf"{path}: is no .*sp-harness compare"):
            read_report(run)
    for command in ("report", "pack"):
        one_line(cli(*arguments(command, run, tmp_path)), f"{path}: is no", "sp-harness compare")
    assert cli("compare", run).code == 0


@pytest.mark.parametrize("kind", ["images", "latents", "runs", "specs", "matrix"])
def test_names_that_lead_elsewhere_are_refused(cli: Cli, run: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(file_of(run, "image-0.png").read_bytes())
    outside = "../../../../secret.png"
    path = run / {"runs": "report.json", "specs": "plan.json", "matrix": "plan.json"}.get(kind, "")
    if kind in ("images", "latents"):
        path = file_of(run, "run.json")
    data = json.loads(path.read_text())
    if kind == "images":
        data["images"] = [outside]
    elif kind == "latents":
        data["latents"] = outside
    elif kind == "matrix":
        data["matrix"]["name"] = "../../elsewhere"
    else:
        data[kind] = {f"../../{digest}": value for digest, value in data[kind].items()}
    path.write_text(json.dumps(data))
    command = "report" if kind == "runs" else "merge"
    one_line(cli(*arguments(command, run, tmp_path)), str(path), "leads elsewhere")
    assert not (tmp_path / "merged").exists()


EVENTS = [{"time": 1.0, "event": "begun"}, {"time": 3.5, "event": "finished"}]
WHOLE_LINES = [json.dumps(event).encode() for event in EVENTS]


@pytest.mark.parametrize(
    "line", [b"5", b"[1]", b'{"time": "x", "event": "y"}', b'{"event": "step"}', b"\xff\xfe", b"[" * 99_999]
)
def test_a_journal_line_that_is_no_event_is_named_and_removed_by_a_resumed_run(
    cli: Cli, run: Path, tmp_path: Path, line: bytes
) -> None:
    path = run / "journal.jsonl"
    path.write_bytes(b"\n".join([WHOLE_LINES[0], line, WHOLE_LINES[1], b'{"cut sh']))
    for command in ("compare", "report", "merge", "pack", "explain"):
        one_line(cli(*arguments(command, run, tmp_path)), f"{path}: line 2 is no event", "sp-harness run --resume")
    assert not (tmp_path / "merged").exists()
    folder = resumed(run)
    assert folder.recorded_s() >= 2.5
    assert any("journal.jsonl: line 2 was no event" in note for note in folder.notes())
    assert cli("compare", run).code == 0


def test_an_event_after_a_line_that_was_cut_short_stands_on_a_line_of_its_own(run: Path) -> None:
    (run / "journal.jsonl").write_bytes(b"\n".join([*WHOLE_LINES, b'{"time": 4, "ev']))
    RunFolder.open(run).note("begun", missing=0)
    assert [event["event"] for event in Journal.read(run).events] == ["begun", "finished", "begun"]


@pytest.mark.parametrize("damage", [TRUNCATED, EMPTY, FLIPPED], ids=["truncated", "empty", "flipped"])
@pytest.mark.parametrize("name", ["image-0.png", "latents.safetensors", "run.json"])
def test_a_resumed_run_draws_what_was_damaged_and_says_so(bench: Any, run: Path, name: str, damage: Damage) -> None:
    path = file_of(run, name)
    digest = path.parent.name
    whole = path.read_bytes()
    path.write_bytes(damage(whole) if name != "run.json" or damage is not FLIPPED else NO_TEXT(whole))
    folder = resumed(run)
    assert [spec.digest for spec in folder.missing()] == [digest]
    bench.draw(folder, folder.missing())
    report = steps.conclude(folder)
    assert report.exit_code == 0
    (note,) = [note for note in report.notes if str(path) in note]
    assert note.startswith("Damaged, and counted as not computed when this run was resumed: ")


def test_a_file_that_is_gone_is_drawn_again_too(bench: Any, run: Path) -> None:
    file_of(run, "image-0.png").unlink()
    assert len(resumed(run).missing()) == 1


@pytest.mark.parametrize("damage", [TRUNCATED, EMPTY], ids=["truncated", "empty"])
@pytest.mark.parametrize("name", ["image-0.png", "latents.safetensors"])
def test_a_run_of_an_earlier_version_is_read_and_its_damage_noticed(
    cli: Cli, run: Path, name: str, damage: Damage
) -> None:
    for description in (run / "runs").glob("*/run.json"):
        codec.write_json(description, replace(codec.read_json(description, Run), files={}))
    assert cli("compare", run).code == 0
    path = file_of(run, name)
    path.write_bytes(damage(path.read_bytes()))
    one_line(cli("compare", run), str(path), "is no whole", "--resume")
    assert len(resumed(run).missing()) == 1


def test_history_names_what_it_leaves_out(cli: Cli, run: Path, tmp_path: Path) -> None:
    other = run.with_name("other")
    shutil.copytree(run, other)
    (other / "report.json").write_text('{"rows": 5}')
    done = cli("history", run, other, "--out", tmp_path / "history")
    assert f"left out: {other / 'report.json'}" in done.err
    assert "Traceback" not in done.err
    assert RunFolder.open(run).plan.name
