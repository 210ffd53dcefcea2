"""Arguments and matrices that cannot be meant: one line that names the place, and nothing done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.command_line import CASE, HEAD, OFF, ONE_ROW, VARIANT, Cli, Write, one_line

LONG = [[*command, "x" * 5000] for command in (["compare"], ["report"], ["run", "--resume"], ["history"], ["ls"])]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["name either a matrix file or --resume"]),
        (["run", "m.toml", "--resume", "x"], ["name either a matrix file or --resume"]),
        (["run", "absent.toml"], ["absent.toml", "cannot be read"]),
        (["run", "m.toml", "--axis", "x"], ["--axis 'x'", "auto"]),
        (["run", "m.toml", "--engine", "spatal"], ["--engine 'spatal'", "did you mean 'spatial'?"]),
        (["run", "m.toml", "--size", "720p"], ["'720p'", "WIDTHxHEIGHT"]),
        (["run", "m.toml", "--size", "100x100"], ["100", "multiple of 16", "96"]),
        (["run", "m.toml", "--golden", "of"], ["--golden 'of'", "did you mean 'off'?"]),
        (["run", "--resume", "absent"], ["absent", "no run folder"]),
        (["run", "--resume", "."], ["no run folder", "plan.json"]),
        (["run", "--resume", "m.toml"], ["m.toml", "no run folder"]),
        (["compare", "."], ["no run folder"]),
        (["approve", "."], ["no run folder"]),
        (["report", "."], ["report.json", "sp-harness compare"]),
        (["report", "m.toml"], ["m.toml", "report.json"]),
        (["plan", "0x0"], ["0x0", "multiple of 16"]),
        (["plan", "720"], ["'720'", "WIDTHxHEIGHT"]),
        (["plan", "720x721"], ["nearest is 720"]),
        (["plan", "720x720", "--ulysses", "0"], ["--ulysses 0", "at least 1"]),
        (["plan", "720x720", "--ring", "-1"], ["--ring -1", "at least 1"]),
        (["plan", "999984x999984", "--ulysses", "100000000"], ["--ulysses 100000000", "1024 ranks"]),
        (["plan", "720x720", "--axis", "diagonal"], ["--axis 'diagonal'"]),
        (["golden", "verify"], ["matrices/ holds no matrix"]),
        (["golden", "verify", "absent.toml"], ["absent.toml"]),
        (["ls", "absent.toml"], ["absent.toml", "cannot be read"]),
        (["history", "absent"], ["absent", "does not exist"]),
        (["history", "."], ["no judged run", "sp-harness run"]),
        (["history", ".", "--slower", "0.5"], ["--slower 0.5", "at least 1"]),
        (["history", ".", "--moved-db", "-1"], ["--moved-db -1"]),
        (["issue", ".", "--log", "absent.log"], ["absent.log", "--log"]),
        (["table", "."], ["report.json", "sp-harness compare"]),
        (["pack", ".", "x"], ["report.json", "sp-harness compare"]),
        *((command, ["File name too long"]) for command in LONG),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_a_wrong_argument_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.toml").write_text(HEAD + OFF + CASE + VARIANT)
    one_line(cli(*arguments), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("case = [", ["no valid TOML"], id="malformed"),
        pytest.param("case = " + "[" * 50_000, ["no valid TOML", "nested too deeply"], id="nested"),
        pytest.param(HEAD.replace("= 1", "= 2") + CASE + VARIANT, ["schema: 2 is newer than 1"], id="newer schema"),
        pytest.param(HEAD + "stepz = 4\n" + CASE + VARIANT, ["stepz", "did you mean 'steps'?"], id="unknown key"),
        pytest.param(HEAD + CASE + "sed = 1\n" + VARIANT, ["case[1].sed", "did you mean 'seed'?"], id="key of a case"),
        pytest.param(HEAD + VARIANT, ["no case", "[[case]]"], id="no case"),
        pytest.param(HEAD + CASE, ["no variant", "[[variant]]"], id="no variant"),
        pytest.param(HEAD + CASE + CASE + VARIANT, ["case[2]", "case[1]"], id="duplicate cases"),
        pytest.param(HEAD + CASE + VARIANT + VARIANT, ["variant[2]", "variant[1]"], id="duplicate variants"),
        pytest.param(HEAD + CASE + VARIANT.replace('"fake"', '"fak"'), ["'fak'", "did you mean 'fake'?"], id="engine"),
        pytest.param(HEAD + 'metrics = ["psn"]\n' + CASE + VARIANT, ["'psn'", "did you mean 'psnr'?"], id="metric"),
        pytest.param(HEAD.replace('"fake"', '"nan"') + CASE + VARIANT, ["'nan'", "nano"], id="model"),
        pytest.param(HEAD.replace('"fake"', '"./no"') + CASE + VARIANT, ["'./no'", "no such folder"], id="no folder"),
        pytest.param(HEAD + CASE + VARIANT.replace('"h"', '"d"'), ["variant[1].axis"], id="axis"),
        pytest.param(HEAD + CASE + VARIANT + 'fault = "seem"\n', ["'seem'", "did you mean 'seam'?"], id="fault"),
        pytest.param(HEAD + CASE + VARIANT + "options = { stp_s = 1 }\n", ["'stp_s'", "step_s"], id="option"),
        pytest.param(HEAD + CASE.replace("128x128", "128") + VARIANT, ["case[1].size", "WIDTHxHEIGHT"], id="no size"),
        pytest.param(HEAD + CASE.replace("128x128", "128x100") + VARIANT, ["100", "96"], id="no multiple of 16"),
        pytest.param(HEAD + CASE.replace("128x128", "0x128") + VARIANT, ["case[1].size", "0"], id="zero"),
        pytest.param(HEAD + CASE + VARIANT.replace("= 2", "= 0"), ["variant[1].ulysses", "0"], id="degree 0"),
        pytest.param(HEAD + CASE + VARIANT.replace("= 2", "= 1025"), ["variant[1].ulysses", "1024"], id="degree 1025"),
        pytest.param(HEAD + CASE + VARIANT + "ring = 1024\n", ["variant[1]: ", "1024 ranks"], id="degrees together"),
        pytest.param(HEAD.replace("fake", r"fa\u0000ke") + CASE + VARIANT, ["model", "control character"], id="NUL"),
        pytest.param(
            HEAD + 'golden_store = "a\\u0000b"\n' + CASE + VARIANT,
            ["golden_store", "control character"],
            id="NUL store",
        ),
        pytest.param(HEAD + "timeout_s = 1e9\n" + CASE + VARIANT, ["timeout_s", "86400"], id="years"),
        pytest.param(HEAD + CASE + VARIANT.replace("= 2", "= 1.5"), ["variant[1].ulysses"], id="degree 1.5"),
        pytest.param(HEAD.replace("= 2", "= 0") + CASE + VARIANT, ["steps"], id="no steps"),
        pytest.param(HEAD + "timeout_s = -1\n" + CASE + VARIANT, ["timeout_s"], id="negative time"),
        pytest.param(HEAD + CASE.replace('"waves"', "7") + VARIANT, ["case[1].prompt"], id="prompt is a number"),
        pytest.param(HEAD + "timeout_s = inf\n" + CASE + VARIANT, ["timeout_s"], id="endless"),
        pytest.param(HEAD + CASE + "guidance_scale = nan\n" + VARIANT, ["guidance_scale"], id="NaN"),
    ],
)
def test_a_wrong_matrix_is_one_line_that_names_the_file(
    cli: Cli, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    matrix = write(text)
    for command in (["run", matrix, "--out", tmp_path / "out"], ["ls", matrix]):
        one_line(cli(*command), str(matrix), *words)
    assert not (tmp_path / "out").exists()


def test_a_matrix_that_is_no_text_is_one_line(cli: Cli, write: Write) -> None:
    matrix = write()
    matrix.write_bytes(b"\xff\xfe\x00")
    one_line(cli("run", matrix), str(matrix), "no UTF-8 text")
    one_line(cli("run", matrix.parent), str(matrix.parent), "cannot be read")


def test_a_matrix_as_windows_writes_it_is_read(cli: Cli, write: Write) -> None:
    matrix = write(ONE_ROW)
    plain = cli("ls", matrix)
    matrix.write_bytes(b"\xef\xbb\xbf" + ONE_ROW.replace("\n", "\r\n").encode())
    assert cli("ls", matrix) == plain
    assert plain.code == 0


def test_a_model_folder_that_lacks_a_part_is_named(cli: Cli, write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    parts = {part: ["diffusers", "X"] for part in ("tokenizer", "text_encoder", "transformer", "scheduler", "vae")}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "ZImagePipeline", **parts}))
    matrix = write(HEAD.replace('"fake"', f'"{folder}"') + CASE + VARIANT)
    one_line(cli("run", matrix, "--out", tmp_path / "out"), str(matrix), str(folder), "tokenizer")
    (folder / "model_index.json").unlink()
    one_line(cli("run", matrix, "--out", tmp_path / "out"), str(folder), "model_index.json")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_report_folder_that_cannot_be_written_is_one_line(cli: Cli, write: Write, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    one_line(cli("run", write(), "--out", tmp_path / place), str(tmp_path / place), "cannot be written", "--out")


def test_a_read_only_report_folder_is_one_line(
    cli: Cli, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: to the superuser no folder is read-only."""
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    one_line(cli("run", write(), "--out", tmp_path), str(tmp_path), "cannot be written", "--out")
