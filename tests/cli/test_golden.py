"""Goldens through the command line: missing, approved, held to, altered."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.command_line import CASE, HEAD, VARIANT, Cli, Write, one_line, only_run

Edit = Callable[[Path], None]


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_goldens_are_checked_before_anything_is_drawn_and_not_for_planning(
    cli: Cli, write: Write, tmp_path: Path
) -> None:
    matrix = write(f'golden_digest = "sha256:{"0" * 64}"\n' + HEAD + CASE + VARIANT)
    one_line(cli("run", matrix, "--out", tmp_path / "out"), "holds 0 goldens", "golden_digest says sha256:0000")
    assert not (tmp_path / "out").exists()
    assert cli("ls", matrix).code == 0


def test_goldens_from_missing_to_tampered(cli: Cli, write: Write, tmp_path: Path) -> None:
    matrix = write(HEAD + CASE + VARIANT + '[[variant]]\nengine = "fake"\nulysses = 3\naxis = "w"\n')
    out, store = tmp_path / "out", tmp_path / "golden"

    verified = cli("golden", "verify", matrix)
    assert verified.code == 1
    assert verified.out.startswith(f"missing: {store}")
    assert f"golden_store {store} is empty: it holds no golden" in verified.out

    missing = cli("run", matrix, "--out", out)
    run = only_run(out)
    assert missing.code == 1
    assert "2 no_golden" in missing.out
    assert f"To approve the missing goldens: sp-harness approve {run}" in missing.out
    (proposal,) = (run / "proposals").rglob("golden.json")
    assert {path.name for path in proposal.parent.iterdir()} == {"golden.json", "image.png", "latents.safetensors"}
    assert not store.exists()

    asked = cli("approve", run)
    one_line(asked, "--yes")
    assert "128x128: new" in asked.out
    assert not store.exists()
    one_line(cli("approve", run, "128x12", "--yes"), str(run), "did you mean '128x128'?")

    approved = cli("approve", run, "128x128", "--yes", "--by", "a person")
    assert (approved.code, approved.err) == (0, "")
    (golden,) = store.rglob("golden.json")
    assert f"approved {golden.parent}" in approved.out
    assert json.loads(golden.read_text())["provenance"]["approved_by"] == "a person"
    assert cli("approve", run, "--yes").out.splitlines() == ["128x128: unchanged", "nothing to approve"]

    verified = cli("golden", "verify", matrix)
    assert (verified.code, verified.out) == (0, "1 goldens asked for, 0 problems\n")
    held = cli("run", "--resume", run)  # everything is drawn
    assert held.code == 0
    assert "2 pass" in held.out
    report = json.loads((run / "report.json").read_text())
    for row in report["rows"]:
        relations = {judgement["relation"]: judgement["ok"] for judgement in row["verdict"]["judgements"]}
        assert relations["golden-baseline"] is True
        assert relations["golden-candidate"] is True
    assert report["golden_dirs"]

    stranger = golden.parent / "notes.txt"
    stranger.write_text("?")
    verified = cli("golden", "verify", matrix)
    assert verified.code == 1
    assert f"unused: {stranger}" in verified.out
    stranger.unlink()

    picture = golden.parent / "image.png"
    picture.write_bytes(picture.read_bytes() + b"\0")
    tampered = cli("run", "--resume", run)
    assert tampered.code == 1
    assert f"{picture}: does not match its digest" in tampered.out
    assert "golden unusable" in (run / "report.json").read_text()
    verified = cli("golden", "verify", matrix)
    assert verified.code == 1
    assert f"altered: {picture}: does not match its digest" in verified.out

    off = cli("run", matrix, "--out", tmp_path / "off", "--golden", "off", "--axis", "h")
    assert off.code == 0
    assert "Goldens are off" in off.out

    change_json(golden, schema=2)
    one_line(cli("run", matrix, "--out", tmp_path / "newer"), str(golden), "schema 2 is newer than 1", "update")


def test_another_picture_than_the_approved_one_is_drift(cli: Cli, bench: Any) -> None:
    """A golden is a picture: where the baseline itself draws another one, every row says so."""
    bench.approved(HEAD + CASE + VARIANT)
    run = only_run(bench.root / "reports")
    (golden,) = bench.store.rglob("golden.json")
    latents = golden.parent / "latents.safetensors"
    moved = load_file(latents)["latents"] + np.float32(0.1)
    save_file({"latents": moved}, latents)
    files = json.loads(golden.read_text())["files"]
    change_json(golden, files=files | {latents.name: hashlib.sha256(latents.read_bytes()).hexdigest()})
    drifted = cli("compare", run)
    assert drifted.code == 1
    assert "The baseline no longer draws the approved picture" in drifted.out
    pending = cli("approve", run)
    one_line(pending, "--yes")
    assert "picture changes (" in pending.out


def described(text: str) -> Edit:
    """Replace a part of ``golden.json``, as ``"OLD -> NEW"``."""
    old, new = text.split(" -> ")

    def edit(golden: Path) -> None:
        content = golden.read_text()
        assert old in content
        golden.write_text(content.replace(old, new, 1))

    return edit


def filled(name: str, make: Callable[[Path], None]) -> Edit:
    """Give a file other content, and ``golden.json`` its digest."""

    def edit(golden: Path) -> None:
        path = golden.parent / name
        make(path)
        files = json.loads(golden.read_text())["files"]
        change_json(golden, files=files | {name: hashlib.sha256(path.read_bytes()).hexdigest()})

    return edit


def latents(dtype: str, *shape: int, name: str = "latents") -> Edit:
    return filled("latents.safetensors", lambda path: save_file({name: np.zeros(shape, dtype)}, path))


def picture(*size: int) -> Edit:
    return filled("image.png", lambda path: Image.new("1", size).save(path))


def cut(name: str) -> Edit:
    return filled(name, lambda path: path.write_bytes(path.read_bytes()[:200]) and None)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (cut("latents.safetensors"), "latents.safetensors: is no whole safetensors file"),
        (cut("image.png"), "image.png: is no whole picture"),
        (latents("float32", 1, 4, 18, 18), "latents are of shape (1, 4, 18, 18), and 1 of 16x16 cells are expected"),
        (latents("float16", 1, 4, 16, 16), "latents is float16"),
        (latents("float32", 4, 16, 16), "float32 of 4 dimensions is expected"),
        (latents("float32", 1, 4, 16, 16, name="lantents"), "latents are of shape None"),
        (picture(144, 128), "image.png: is 144x128 pixels, and 128x128 are expected"),
        (picture(20_000, 20_000), "image.png: is no whole picture (Image size (400000000 pixels)"),
        (lambda golden: change_json(golden, files={}), "golden.json: names no latents.safetensors"),
        (lambda golden: change_json(golden, files={"../golden.json": "0"}), "'../golden.json' leads elsewhere"),
        (lambda golden: change_json(golden, approved=[1]), "golden.json: is no Golden file"),
        (lambda golden: change_json(golden, approved={"a": {"pair": "x"}}), "golden.json: is no Golden file"),
        (lambda golden: golden.write_bytes(b"\xff{"), "golden.json: is no valid JSON"),
        (described('"platform": "cpu-float32" -> "platform": "cuda-h200-float32"'), "is of fake/cuda-h200-float32/"),
        (described('"width_px": 128 -> "width_px": 144'), "/cpu-float32/128x128-"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_golden_holds_is_checked_whatever_its_digest_says(
    cli: Cli, bench: Any, edit: Callable[[Path], None], words: str
) -> None:
    bench.approved(HEAD + CASE + VARIANT)
    run = only_run(bench.root / "reports")
    (golden,) = bench.store.rglob("golden.json")
    edit(golden)
    for arguments in (["compare", run], ["golden", "verify", bench.root / "matrices" / "bench.toml"]):
        found = cli(*arguments)
        assert (found.code, found.err) == (1, "")
        assert words in found.out
        assert str(golden.parent) in found.out
    assert cli("approve", run, "--yes").code == 0
    assert cli("compare", run).code == 0


def test_goldens_at_a_url_from_the_first_run_on(
    cli: Cli, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "cache"))
    store, out = f"file://{tmp_path}/bucket", tmp_path / "out"
    text = HEAD + f'golden_store = "{store}"\n' + CASE + VARIANT
    first = cli("run", write(text), "--out", out)
    assert first.code == 1
    assert "1 no_golden" in first.out
    run = only_run(out)
    approved = cli("approve", run, "--yes", "--by", "a person")
    assert approved.code == 0, approved.err
    assert f"approved {store}/fake/cpu-float32/128x128-" in approved.out
    (pin,) = re.findall(r'golden_digest = "(sha256:[0-9a-f]{64})"$', approved.out, re.MULTILINE)

    unpinned = cli("run", write(text), "--out", out)
    assert (unpinned.code, len(unpinned.err.splitlines())) == (2, 1)
    assert pin in unpinned.err

    matrix = write(HEAD + f'golden_digest = "{pin}"\n' + text.removeprefix(HEAD))
    held = cli("run", matrix, "--out", out)
    assert held.code == 0, held.out + held.err
    (pinned,) = {*out.iterdir()} - {run}
    verified = cli("golden", "verify", matrix)
    assert (verified.code, verified.out) == (0, "1 goldens asked for, 0 problems\n")

    description = next((tmp_path / "bucket").rglob("golden.json"))
    told = json.loads(description.read_text())
    description.write_text(json.dumps(told | {"weights": "others"}))
    altered = cli("run", matrix, "--out", out)
    assert (altered.code, len(altered.err.splitlines())) == (2, 1)
    assert len(set(re.findall(r"sha256:[0-9a-f]{64}", altered.err))) == 2
    assert pin in altered.err
    assert {*out.iterdir()} == {run, pinned}, "nothing was drawn where the store cannot be trusted"
    resumed = cli("run", "--resume", pinned)
    assert (resumed.code, len(resumed.err.splitlines())) == (2, 1)
    assert pin in resumed.err
    assert cli("golden", "verify", matrix).code == 1
    assert cli("ls", matrix).code == 0  # and looking at a matrix needs no store
