"""Every command as a user meets it: what it prints, what it leaves behind, how it ends."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Protocol

import pytest

from harness import __version__


class Done(Protocol):
    code: int
    out: str
    err: str


class Cli(Protocol):
    def __call__(self, *arguments: object) -> Done: ...


class Write(Protocol):
    def __call__(self, text: str = ..., name: str = ...) -> Path: ...


HEAD = 'schema = 1\nname = "m"\nmodel = "fake"\nsteps = 2\n'
CASE = '[[case]]\nsize = "128x128"\nprompt = "waves"\n'
VARIANT = '[[variant]]\nengine = "fake"\nulysses = 2\naxis = "h"\n'
OFF = 'golden = "off"\n'


def one_line(done: Done, *words: str, code: int = 2) -> None:
    """An error a person can act on: one line, with every word, and no traceback."""
    assert done.code == code, done.out + done.err
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("sp-harness: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in done.out


def only_run(out: Path) -> Path:
    (run,) = out.iterdir()
    return run


# ---------------------------------------------------------------- help


COMMANDS = ["run", "plan", "compare", "approve", "golden verify", "report", "models build", "models ls", "ls"]
COMMANDS += ["history", "issue", "table", "pack", "merge"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    examples = " ".join(done.out.split("Example", 1)[1].split())
    assert f"sp-harness {command}" in examples


@pytest.mark.parametrize("group", [[], ["golden"], ["models"]], ids=str)
def test_help_lists_every_command(cli: Cli, group: list[str]) -> None:
    done = cli(*group, "--help")
    assert (done.code, done.err) == (0, "")
    prefix = " ".join(group)
    for command in COMMANDS:
        if command.startswith(prefix):
            assert re.search(rf"^\W+{command.removeprefix(prefix).split()[0]}\b", done.out, re.MULTILINE)


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "harness.cli", "ls"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("engines: ")
    assert done.stderr == ""


# ---------------------------------------------------------------- plan, ls, models


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="what stands for a full disk")
def test_what_a_machine_lacks_is_one_line_and_no_traceback() -> None:
    command = [sys.executable, "-m", "harness.cli", "models", "ls"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "sp-harness: No space left on device\n")


def test_plan_explains_both_axes(cli: Cli) -> None:
    done = cli("plan", "1280x720", "--ulysses", 2)
    assert (done.code, done.err) == (0, "")
    assert "1280x720: 45 rows x 80 columns = 3600 image tokens, 16 pads on one device" in done.out
    assert "lower cost (48 pads against 112)" in done.out
    assert "23+22" in done.out


def test_plan_as_json_has_the_documented_keys(cli: Cli) -> None:
    done = cli("plan", "720x720", "--ulysses", 2, "--json")
    assert done.code == 0
    choice = json.loads(done.out)
    wanted = {"size", "tokens_h", "tokens_w", "ulysses", "single_pad_tokens", "chosen_axis", "axes"}
    assert wanted <= set(choice)
    assert (choice["size"], choice["tokens_h"], choice["chosen_axis"]) == ("720x720", 45, "h")
    for axis in ("h", "w"):
        keys = {"feasible", "reason", "shard_tokens", "local_tokens", "sequence_target", "pad_tokens"}
        assert keys | {"surplus_pad_tokens"} <= set(choice["axes"][axis])
    assert choice["axes"]["h"]["shard_tokens"] == [23, 22]
    assert choice["axes"]["h"]["pad_tokens"] == 87
    assert choice["axes"]["h"]["surplus_pad_tokens"] == 64


def test_plan_says_so_where_no_cut_is_feasible(cli: Cli) -> None:
    done = cli("plan", "32x32", "--ulysses", 3)
    assert done.code == 0
    assert "neither axis is feasible" in done.out


def test_ls_lists_plugins_rows_and_runs(cli: Cli, write: Write, tmp_path: Path) -> None:
    plugins = cli("ls")
    assert plugins.code == 0
    assert [line.split(":")[0] for line in plugins.out.splitlines()] == ["engines", "metrics", "faults", "reporters"]
    rows = cli("ls", write())
    assert rows.code == 0
    assert "128x128/fake-u2-auto  h 4+4" in rows.out
    assert rows.out.splitlines()[-1] == "fakes: 6 rows, 12 runs"
    recorded = cli("run", write(), "--out", tmp_path / "out", "--no-judge", "--case", "128x128", "--axis", "h")
    assert recorded.code == 0
    runs = cli("ls", tmp_path / "out")
    assert runs.code == 0
    assert runs.out == f"{only_run(tmp_path / 'out')}  not judged\n"
    cli("compare", only_run(tmp_path / "out"))
    assert cli("ls", tmp_path / "out").out == f"{only_run(tmp_path / 'out')}  exit code 0, 1 pass\n"


def test_models_lists_and_builds(cli: Cli, tmp_path: Path) -> None:
    assert cli("models", "ls").out.split() == ["fake", "z-image-random", "nano", "nano-random"]
    one_line(cli("models", "build", "nano-rand", "--to", tmp_path / "x"), "'nano-rand'", "did you mean 'nano-random'?")


# ---------------------------------------------------------------- run


def test_a_run_leaves_a_whole_report_with_a_page_for_every_axis(cli: Cli, write: Write, tmp_path: Path) -> None:
    done = cli("run", write(), "--out", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    run = only_run(tmp_path / "out")
    assert "6 pass in" in done.out
    assert "Goldens are off" in done.out
    assert done.out.splitlines()[-1] == f"report: {run / 'index.html'}"
    assert re.findall(r"^\[(\d+)/12\]", done.out, re.MULTILINE) == [str(number) for number in range(1, 13)]
    names = {path.name for path in run.iterdir()}
    pages = {"index.html", "auto.html", "h.html", "w.html"}
    assert {"plan.json", "journal.jsonl", "report.json", "junit.xml", "summary.md", "results.csv"} | pages <= names

    report = json.loads((run / "report.json").read_text())
    assert (report["schema"], report["exit_code"], report["complete"]) == (1, 0, True)
    assert report["environment"]["sp-harness"] == __version__
    by_name = {(row["case"]["name"], row["variant"]["axis"]): row for row in report["rows"]}
    assert by_name["144x144", "h"]["shares_with"] == "fake-u2-auto"
    assert by_name["144x144", "h"]["runs"]["candidate"] == by_name["144x144", "auto"]["runs"]["candidate"]
    suite = ET.parse(run / "junit.xml").getroot()
    assert len(list(suite.iter("testcase"))) == 6
    assert not list(suite.iter("failure"))
    for page in pages:
        text = (run / page).read_text()
        assert "http://" not in text.replace("http://www.w3.org", "")
        for link in re.findall(r'(?:src|href)="([^"#:]+)', text):
            assert (run / link).exists(), f"{page} links {link}"
    recorded = sorted((run / "runs").iterdir())
    assert len(recorded) == 12
    assert all((folder / "run.json").is_file() for folder in recorded)


def test_filters_choose_rows(cli: Cli, write: Write, tmp_path: Path) -> None:
    done = cli("run", write(), "--out", tmp_path / "out", "--size", "144x144", "--axis", "w", "--engine", "fake")
    assert done.code == 0
    report = json.loads((only_run(tmp_path / "out") / "report.json").read_text())
    assert [(row["case"]["name"], row["variant"]["axis"]) for row in report["rows"]] == [("144x144", "w")]
    assert len(report["runs"]) == 6  # also the baseline reordered and repeated
    one_line(cli("run", write(), "--case", "1*", "--axis", "none"), "no row is selected", "128x128, 144x144")


@pytest.mark.parametrize(
    ("variants", "code", "verdicts"),
    [
        pytest.param(VARIANT, 0, "1 pass", id="all well"),
        pytest.param(VARIANT + 'fault = "swapped-ranks"\n', 1, "1 fail", id="a comparison fails"),
        pytest.param(VARIANT + 'fault = "nan"\n', 1, "1 fail", id="NaN"),
        pytest.param(VARIANT + 'fault = "wrong-size"\n', 1, "1 fail", id="another size"),
        pytest.param(VARIANT + 'fault = "crash"\n', 1, "1 error", id="a rank raises"),
        pytest.param(VARIANT + 'fault = "hang"\n', 1, "1 timeout", id="a rank hangs"),
        pytest.param(VARIANT + 'fault = "out-of-memory"\n', 3, "1 error", id="out of memory"),
        pytest.param(VARIANT.replace("= 2", "= 4"), 2, "1 skip", id="nothing was judged"),
        pytest.param(VARIANT + VARIANT.replace("= 2", "= 4"), 3, "1 pass, 1 skip", id="a required skip"),
        pytest.param(
            VARIANT + VARIANT.replace("= 2", "= 4") + "required = false\n", 0, "1 pass, 1 skip", id="another skip"
        ),
        pytest.param(
            VARIANT + 'fault = "seam"\n' + VARIANT + 'fault = "out-of-memory"\n', 1, "1 fail, 1 error", id="1 before 3"
        ),
    ],
)
def test_exit_codes(cli: Cli, write: Write, tmp_path: Path, variants: str, code: int, verdicts: str) -> None:
    # Short only where it is waited for: a busy machine may hold up what is well for a second.
    limit = "timeout_s = 1\n" if "hang" in variants else ""
    done = cli("run", write(HEAD + OFF + limit + CASE + variants), "--out", tmp_path / "out")
    assert done.code == code, done.out + done.err
    assert f"{verdicts} in " in done.out
    assert done.out.splitlines()[-2].endswith(f"exit code {code}")
    assert "Traceback" not in done.out + done.err
    assert json.loads((only_run(tmp_path / "out") / "report.json").read_text())["exit_code"] == code


def test_a_launch_that_fails_is_infrastructure(cli: Cli, write: Write, tmp_path: Path) -> None:
    """Weights that are no safetensors, found when a rank loads them."""
    from harness import models

    whole = Path(models.resolve("nano").path)
    broken = tmp_path / "broken"
    for path in whole.rglob("*"):
        target = broken / path.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.symlink_to(path)
    (weights,) = (broken / "transformer").glob("*.safetensors")
    weights.unlink()
    weights.write_bytes(b"no weights")
    matrix = HEAD.replace('"fake"', f'"{broken}"') + OFF + CASE + '[[variant]]\nengine = "diffusers"\naxis = "none"\n'
    done = cli("run", write(matrix), "--out", tmp_path / "out")
    assert done.code == 3, done.out + done.err
    assert "diffusers did not start: rank 0 raised" in done.out
    runs = json.loads((only_run(tmp_path / "out") / "report.json").read_text())["runs"].values()
    assert {run["failure"]["kind"] for run in runs} == {"launch"}
    assert all("Traceback" in run["failure"]["detail"] for run in runs)


def test_record_first_and_compare_later(cli: Cli, write: Write, tmp_path: Path) -> None:
    done = cli("run", write(), "--out", tmp_path / "out", "--no-judge")
    assert done.code == 0
    run = only_run(tmp_path / "out")
    assert f"recorded; judge it with: sp-harness compare {run}" in done.out
    assert not (run / "report.json").exists()
    one_line(cli("report", run), str(run), "report.json", f"sp-harness compare {run}")
    before = {path: path.stat().st_mtime_ns for path in run.glob("runs/*/*")}
    done = cli("compare", run)
    assert done.code == 0
    assert "6 pass" in done.out
    assert (run / "index.html").is_file()
    assert {path: path.stat().st_mtime_ns for path in run.glob("runs/*/*")} == before

    (run / "index.html").unlink()
    (run / "summary.md").write_text("")
    done = cli("report", run)
    assert done.code == 0
    assert str(run / "index.html") in done.out.split()
    assert (run / "index.html").is_file()
    assert (run / "summary.md").read_text()


def test_prompts_are_any_text(cli: Cli, write: Write, tmp_path: Path) -> None:
    prompts = [
        "<script>alert(1)</script> & \"quotes\" 'single'",
        "🦊 漢字 \u202e right to left",
        "../../etc/passwd\\..\x7f",
        "long " * 2000,
        "",
        "{{ 7 * 7 }} {% raw %}",
        "line\nbreak, \t tab | pipe",
        "--help",
    ]
    # A JSON string of printable characters is a TOML string too.
    texts = [json.dumps(prompt, ensure_ascii=True).replace("\\ud83e\\udd8a", "\\U0001F98A") for prompt in prompts]
    cases = "".join(f'[[case]]\nname = "p{i}"\nsize = "128x128"\nprompt = {text}\n' for i, text in enumerate(texts))
    done = cli("run", write(HEAD + OFF + cases + VARIANT), "--out", tmp_path / "out")
    assert done.code == 0, done.out + done.err
    run = only_run(tmp_path / "out")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert [row["case"]["prompts"] for row in report["rows"]] == [[prompt] for prompt in prompts]
    pages = "".join(page.read_text(encoding="utf-8") for page in run.glob("*.html"))
    assert "<script>alert" not in pages
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages
    assert "🦊" in pages
    assert "{{ 7 * 7 }}" in pages
    ET.parse(run / "junit.xml")
    paths = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    assert all(re.fullmatch(r"[A-Za-z0-9._/+-]+", path) for path in paths)
    assert max(map(len, paths)) < 200


# ---------------------------------------------------------------- goldens


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
    held = cli("run", matrix, "--out", tmp_path / "held")
    assert held.code == 0
    assert "2 pass" in held.out
    report = json.loads((only_run(tmp_path / "held") / "report.json").read_text())
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
    tampered = cli("run", matrix, "--out", tmp_path / "tampered")
    assert tampered.code == 1
    assert f"{picture}: does not match its digest" in tampered.out
    assert "golden drift" in (only_run(tmp_path / "tampered") / "report.json").read_text()
    verified = cli("golden", "verify", matrix)
    assert verified.code == 1
    assert f"altered: {picture}: does not match its digest" in verified.out

    off = cli("run", matrix, "--out", tmp_path / "off", "--golden", "off")
    assert off.code == 0
    assert "Goldens are off" in off.out

    change_json(golden, schema=2)
    one_line(cli("run", matrix, "--out", tmp_path / "newer"), str(golden), "schema 2 is newer than 1", "update")


def test_another_picture_than_the_approved_one_is_drift(cli: Cli, write: Write, tmp_path: Path) -> None:
    """A golden is a picture: where the baseline itself draws another one, every row says so."""
    import hashlib

    import numpy as np
    from safetensors.numpy import load_file, save_file

    matrix = write(HEAD + CASE + VARIANT)
    cli("run", matrix, "--out", tmp_path / "out")
    assert cli("approve", only_run(tmp_path / "out"), "--yes").code == 0
    (golden,) = (tmp_path / "golden").rglob("golden.json")
    latents = golden.parent / "latents.safetensors"
    moved = load_file(latents)["latents"] + np.float32(0.1)
    save_file({"latents": moved}, latents)
    files = json.loads(golden.read_text())["files"]
    change_json(golden, files=files | {latents.name: hashlib.sha256(latents.read_bytes()).hexdigest()})
    drifted = cli("run", matrix, "--out", tmp_path / "drifted")
    assert drifted.code == 1
    assert "The baseline no longer draws the approved picture" in drifted.out
    pending = cli("approve", only_run(tmp_path / "drifted"))
    one_line(pending, "--yes")
    assert "picture changes (" in pending.out


# ---------------------------------------------------------------- bad input


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
        (["plan", "720x720", "--ulysses", "0"], ["--ulysses 0", "at least 1"]),
        (["plan", "720x720", "--ring", "-1"], ["--ring -1", "at least 1"]),
        (["plan", "720x720", "--axis", "diagonal"], ["--axis 'diagonal'"]),
        (["golden", "verify"], ["matrices/ holds no matrix"]),
        (["golden", "verify", "absent.toml"], ["absent.toml"]),
        (["ls", "absent.toml"], ["absent.toml", "cannot be read"]),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.toml").write_text(HEAD + OFF + CASE + VARIANT)
    one_line(cli(*arguments), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum"], "No such command 'rum'"),
        (["run", "--sise", "1"], "No such option"),
        (["plan"], "Missing argument 'SIZE'"),
        (["plan", "720x720", "--ulysses", "two"], "Invalid value for '--ulysses'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_the_parser_refuses_ends_with_a_box(cli: Cli, arguments: list[str], words: str) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert "Usage:" in done.err
    assert words in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.err).split())
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("case = [", ["no valid TOML"], id="malformed"),
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


@pytest.mark.parametrize(
    ("file", "commands"),
    [
        ("plan.json", ["run --resume", "compare", "approve"]),
        ("report.json", ["report"]),
    ],
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": 2}', ["schema 2 is newer than 1", "update sp-harness"]),
        ("{", ["no valid JSON"]),
        ("[]", ["is no"]),
        ('{"name": "x"}', ["is no"]),
        ('{"name": "x", "matrix": 3, "rows": 4, "specs": 5}', ["is no"]),
    ],
    ids=["newer", "half", "list", "incomplete", "nonsense"],
)
def test_files_of_a_run_that_are_not_ours_are_one_line(
    cli: Cli, tmp_path: Path, file: str, commands: list[str], text: str, words: list[str]
) -> None:
    (tmp_path / file).write_text(text)
    for command in commands:
        one_line(cli(*command.split(), tmp_path), str(tmp_path / file), *words)
