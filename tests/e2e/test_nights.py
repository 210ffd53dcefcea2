"""A week of nights through the command line: first goldens, history, a fault, the issue about it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

TEXT = """\
schema = 1
name = "nightly"
model = "fake"
steps = 2
{top}
[[case]]
size = ["128x128", "144x144"]
prompt = "waves"

[[variant]]
engine = "fake"
ulysses = 2
axis = ["h", "w"]
{more}"""
OFF = 'golden = "off"'
BOUND = '[[bound]]\nrelation = "pair"\nmetric = "psnr"\nat_least = 900\n'
"""No picture with surplus pads keeps it, so the rows of 144x144 fail and keep their names."""

FAULT = '[[variant]]\nengine = "fake"\nulysses = 2\naxis = "h"\nfault = "swapped-ranks"\n'


def run_below(out: Path, number: int) -> Path:
    """Run folders are named after the second in which they began, with a number where several did."""
    return sorted(out.glob("nightly-*"), key=lambda path: (path.name[:23], len(path.name), path.name))[number]


def test_goldens_at_a_url_from_the_first_night_on(
    cli: Any, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "cache"))
    store, out = f"file://{tmp_path}/bucket", tmp_path / "out"
    first = cli("run", write(TEXT.format(top=f'golden_store = "{store}"', more="")), "--out", out)
    assert first.code == 1
    assert "4 no_golden" in first.out
    approved = cli("approve", run_below(out, 0), "--yes", "--by", "a person")
    assert approved.code == 0, approved.err
    assert f"approved {store}/fake/cpu-float32/128x128-" in approved.out
    (pin,) = re.findall(r'golden_digest = "(sha256:[0-9a-f]{64})"$', approved.out, re.MULTILINE)

    unpinned = cli("run", write(TEXT.format(top=f'golden_store = "{store}"', more="")), "--out", out)
    assert (unpinned.code, len(unpinned.err.splitlines())) == (2, 1)
    assert pin in unpinned.err

    matrix = write(TEXT.format(top=f'golden_store = "{store}"\ngolden_digest = "{pin}"', more=""))
    held = cli("run", matrix, "--out", out)
    assert held.code == 0, held.out + held.err
    verified = cli("golden", "verify", matrix)
    assert (verified.code, verified.out) == (0, "2 goldens asked for, 0 problems\n")

    description = next((tmp_path / "bucket").rglob("golden.json"))
    told = json.loads(description.read_text())
    description.write_text(json.dumps(told | {"weights": "others"}))
    altered = cli("run", matrix, "--out", out)
    assert (altered.code, len(altered.err.splitlines())) == (2, 1)
    assert len(set(re.findall(r"sha256:[0-9a-f]{64}", altered.err))) == 2
    assert pin in altered.err
    assert len(list(out.glob("nightly-*"))) == 2, "nothing was drawn where the store cannot be trusted"
    resumed = cli("run", "--resume", run_below(out, 1))
    assert (resumed.code, len(resumed.err.splitlines())) == (2, 1)
    assert pin in resumed.err
    assert cli("golden", "verify", matrix).code == 1
    assert cli("ls", matrix).code == 0  # and looking at a matrix needs no store


def test_history_says_what_changed_and_since_when(cli: Any, write: Any, tmp_path: Path) -> None:
    out, past = tmp_path / "out", tmp_path / "past"
    codes = []
    for more in ("", BOUND, BOUND, ""):
        codes.append(cli("run", write(TEXT.format(top=OFF, more=more)), "--out", out, "--no-explain").code)
        done = cli("history", out, "--out", past, "--slower", 1e9)  # fakes take no time worth comparing
        assert (done.code, done.err) == (0, "")
        said = done.out
        if len(codes) == 2:
            assert "nightly, " in said
            assert "2 newly failing" in said
        if len(codes) == 3:
            assert "2 still failing" in said
            assert f"since 20{run_below(out, 1).name[10:12]}" in said
            assert f"({run_below(out, 1).name}, 2 runs)" in said
            issue = cli("issue", out, "--history", past)
            assert issue.out.startswith("nightly: The picture moved further")
            assert "**Still failing**" in issue.out
    assert codes == [0, 1, 1, 0]
    assert "2 mended" in said
    lines = (past / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["exit_code"] for line in lines] == codes
    for name in ("index.html", "matrix-nightly.html", "summary.md"):
        assert "144x144" in (past / name).read_text() or name == "index.html"

    fault = cli("run", write(TEXT.format(top=OFF, more=FAULT)), "--out", out, "--no-explain")
    assert fault.code == 1
    told = cli("history", out, "--out", past, "--slower", 1e9)
    assert "2 newly failing, 2 new rows" in told.out
    assert "144x144/fake-u2-h-swapped-ranks" in told.out
    assert "<polyline" in (past / "matrix-nightly.html").read_text()


def test_a_table_of_costs_and_a_run_made_small(cli: Any, write: Any, tmp_path: Path) -> None:
    cli("run", write(TEXT.format(top=OFF, more="")), "--out", tmp_path / "out")
    run = run_below(tmp_path / "out", 0)
    shown = cli("table", run)
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^144x144 +fake-u2 +h +aligned +5,4 +47 / 15 ", shown.out, re.MULTILINE)
    marked = cli("table", run, "--markdown")
    assert "| 144x144 | fake-u2 | h | aligned | 5,4 | 47 / 15 |" in marked.out
    packed = cli("pack", run, tmp_path / "small")
    assert packed.out.startswith(f"{tmp_path / 'small'}: 0 of ")
    assert cli("table", tmp_path / "small").out.splitlines()[2:-1] == shown.out.splitlines()[2:-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["history", "absent"], ["absent", "does not exist"]),
        (["history", "."], ["no judged run", "sp-harness run"]),
        (["history", ".", "--slower", "0.5"], ["--slower 0.5", "at least 1"]),
        (["history", ".", "--moved-db", "-1"], ["--moved-db -1"]),
        (["issue", ".", "--log", "absent.log"], ["absent.log", "--log"]),
        (["table", "."], ["report.json", "sp-harness compare"]),
        (["pack", ".", "x"], ["report.json", "sp-harness compare"]),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    for word in words:
        assert word in done.err
