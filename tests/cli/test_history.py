"""``history`` and ``issue`` over several runs of one matrix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from harness.types import Report
from tests.command_line import Cli

TEXT = """\
schema = 1
name = "nightly"
model = "fake"
steps = 2
golden = "off"

[[case]]
size = ["128x128", "144x144"]
prompt = "waves"

[[variant]]
engine = "fake"
ulysses = 2
axis = ["h", "w"]

"""
BOUND = '[[bound]]\nrelation = "pair"\nmetric = "psnr"\nat_least = 900\n'
"""No picture with surplus pads keeps it, so the rows of 144x144 fail and keep their names."""

FAULT = '[[variant]]\nengine = "fake"\nulysses = 2\naxis = "h"\nfault = "swapped-ranks"\n'


def test_history_says_what_changed_and_since_when(
    cli: Cli, judged: Callable[..., tuple[Path, Report]], tmp_path: Path
) -> None:
    past, runs, codes = tmp_path / "past", [], []
    for more in ("", BOUND, BOUND, ""):
        run, report = judged(TEXT + more)
        runs.append(run)
        codes.append(report.exit_code)
        done = cli("history", run.parent, "--out", past, "--slower", 1e9)  # fakes take no time worth comparing
        assert (done.code, done.err) == (0, "")
        said = done.out
        if len(codes) == 2:
            assert "nightly, " in said
            assert "2 newly failing" in said
        if len(codes) == 3:
            assert "2 still failing" in said
            assert f"since 20{runs[1].name[10:12]}" in said
            assert f"({runs[1].name}, 2 runs)" in said
            issue = cli("issue", run.parent, "--history", past)
            assert issue.out.startswith("nightly: The picture moved further")
            assert "**Still failing**" in issue.out
    assert codes == [0, 1, 1, 0]
    assert "2 mended" in said
    lines = (past / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["exit_code"] for line in lines] == codes
    for name in ("index.html", "matrix-nightly.html", "summary.md"):
        assert "144x144" in (past / name).read_text() or name == "index.html"

    run, report = judged(TEXT + FAULT)
    assert report.exit_code == 1
    told = cli("history", run.parent, "--out", past, "--slower", 1e9)
    assert "2 newly failing, 2 new rows" in told.out
    assert "144x144/fake-u2-h-swapped-ranks" in told.out
    assert "<polyline" in (past / "matrix-nightly.html").read_text()
