"""Running a matrix from its folder to its exit code: what is judged stays, whatever happens afterwards."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer import Exit

from harness import __version__, codec
from harness.cli.compare import compare
from harness.cli.run import compute
from harness.errors import InfrastructureError
from harness.execution.events import Event
from harness.execution.pool import Pool
from harness.session import explain, steps
from harness.types import Outcome, Report
from tests.command_line import CASE, HEAD, OFF, VARIANT, Cli, Write, one_line, only_run


def test_a_run_leaves_a_whole_report_with_a_page_for_every_row(fakes: Any) -> None:
    done, run = fakes.done, fakes.run
    assert (done.code, done.err) == (0, "")
    assert "6 pass in" in done.out
    assert "Goldens are off" in done.out
    assert done.out.splitlines()[-1] == f"report: {run / 'index.html'}"
    assert re.findall(r"^\[(\d+)/12\]", done.out, re.MULTILINE) == [str(number) for number in range(1, 13)]
    names = {path.name for path in run.iterdir()}
    assert {
        "plan.json",
        "journal.jsonl",
        "report.json",
        "junit.xml",
        "summary.md",
        "results.csv",
        "index.html",
    } <= names

    report = json.loads((run / "report.json").read_text())
    assert (report["schema"], report["exit_code"], report["complete"]) == (1, 0, True)
    assert report["environment"]["sp-harness"] == __version__
    by_name = {(row["case"]["name"], row["variant"]["axis"]): row for row in report["rows"]}
    assert by_name["144x144", "h"]["shares_with"] == "fake-u2-auto"
    assert by_name["144x144", "h"]["runs"]["candidate"] == by_name["144x144", "auto"]["runs"]["candidate"]
    suite = ET.parse(run / "junit.xml").getroot()
    assert len(list(suite.iter("testcase"))) == 6
    assert not list(suite.iter("failure"))
    pages = [run / "index.html", *(run / "rows").iterdir()]
    rows = {f"{name}_fake-u2-{axis}" for name, axis in by_name}
    assert {page.stem for page in pages} == {"index", *rows}
    for page in pages:
        text = page.read_text()
        assert "http://" not in text.replace("http://www.w3.org", "")
        for link in re.findall(r'(?:src|href)="([^"#:]+)', text):
            assert (page.parent / link).exists(), f"{page} links {link}"
    recorded = sorted((run / "runs").iterdir())
    assert len(recorded) == 12
    assert all((folder / "run.json").is_file() for folder in recorded)


def test_whatever_goes_wrong_is_a_verdict_of_its_row(cli: Cli, write: Write, tmp_path: Path) -> None:
    expected = {
        "swapped-ranks": "fail",
        "nan": "fail",
        "wrong-size": "fail",
        "crash": "error",
        "out-of-memory": "error",
        "hang": "timeout",
    }
    short = {fault: "short" if fault == "hang" else "long" for fault in expected}
    variants = [VARIANT + f'fault = "{fault}"\ncases = ["{case}"]\n' for fault, case in short.items()]
    # Short only where it is waited for: a busy machine may hold up what is well for a second.
    cases = CASE + 'name = "long"\n' + CASE + 'name = "short"\nseed = 1\ntimeout_s = 2\n'
    matrix = write(HEAD + OFF + cases + VARIANT + 'cases = ["long"]\n' + "".join(variants))
    done = cli("run", matrix, "--out", tmp_path / "out")
    assert done.code == 1, done.out + done.err
    assert "Traceback" not in done.out + done.err
    assert done.out.splitlines()[-2].endswith("exit code 1")
    report = codec.read_json(only_run(tmp_path / "out") / "report.json", Report)
    assert report.exit_code == 1
    found = {row.variant.fault: row.verdict for row in report.rows if row.verdict}
    assert {fault: verdict.outcome.value for fault, verdict in found.items()} == {None: "pass", **expected}
    assert [fault for fault, verdict in found.items() if verdict.infrastructure] == ["out-of-memory"]


def test_nothing_to_judge_is_a_mistake(cli: Cli, write: Write, tmp_path: Path) -> None:
    done = cli("run", write(HEAD + OFF + CASE + VARIANT.replace("= 2", "= 4")), "--out", tmp_path / "out")
    assert done.code == 2
    assert "1 skip in " in done.out
    one_line(cli("run", write(), "--case", "1*", "--axis", "none"), "no row is selected", "128x128, 144x144")


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
    pages = "".join(page.read_text(encoding="utf-8") for page in run.rglob("*.html"))
    assert "<script>alert" not in pages
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages
    assert "🦊" in pages
    assert "{{ 7 * 7 }}" in pages
    ET.parse(run / "junit.xml")
    paths = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    assert all(re.fullmatch(r"[A-Za-z0-9._/+-]+", path) for path in paths)
    assert max(map(len, paths)) < 200


class Breaks:
    """An executor with nothing left to draw, that breaks where rows are drawn once more."""

    def __init__(self, logs: Path, error: BaseException) -> None:
        self._error = error if logs.name == "explained" else None

    def __enter__(self) -> Breaks:
        return self

    def __exit__(self, *what: object) -> None: ...

    def execute(self, *arguments: Any) -> Iterator[Event]:
        if self._error:
            raise self._error
        yield from ()


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (InfrastructureError("no GPU is left"), 1)], ids=["ctrl-c", "gpu"]
)
def test_a_report_is_there_before_failing_rows_are_explained(
    bench: Any, repaint: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(explain, "_can_be_probed", lambda row: True)  # the fake engine cannot
    folder = bench.drawn(golden="off", edit=repaint("candidate"))
    assert compute(folder, lambda logs: Breaks(logs, error)) == code
    report = codec.read_json(folder.path / "report.json", Report)
    assert Outcome.FAIL in {row.verdict.outcome for row in report.rows if row.verdict}
    assert (report.complete, report.exit_code) == (True, 1)
    assert (folder.path / "index.html").is_file()


def test_what_is_interrupted_while_it_is_judged_can_be_judged_later(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    folder = bench.drawn(golden="off")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_reports", interrupt)
        assert compute(folder, Pool) == 130
    assert f"judge what is there with: sp-harness compare {folder.path}" in capsys.readouterr().out
    with pytest.raises(Exit) as end:
        compare(folder.path)
    assert end.value.exit_code == 0
