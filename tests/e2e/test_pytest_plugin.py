"""``pytest matrix.toml``, through pytest itself, in a folder that has no conftest.py of ours."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest

HEAD = 'schema = 1\nname = "m"\nmodel = "fake"\nsteps = 2\ngolden = "off"\n'
CASES = '[[case]]\nsize = ["128x128", "144x144"]\nprompt = "waves"\n'
VARIANT = '[[variant]]\nengine = "fake"\nulysses = 2\naxis = ["auto", "h", "w"]\n'
FAULTY = '[[variant]]\nengine = "fake"\nulysses = 2\naxis = "h"\nfault = "{}"\ncases = ["144x144"]\n'


def write(pytester: pytest.Pytester, text: str, name: str = "m.toml") -> Path:
    path = pytester.path / name
    path.write_text(text)
    return path


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Warnings are errors here too: a worker or a file that is left open shows."""
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", *arguments, timeout=120)
    assert not [child for child in psutil.Process().children(recursive=True) if child.name() == "sp-rank"]
    return result


def runs(pytester: pytest.Pytester, out: str = "reports") -> list[Path]:
    folder = pytester.path / out
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_every_case_and_variant_is_an_item_and_all_share_their_workers(pytester: pytest.Pytester) -> None:
    write(pytester, HEAD + CASES + VARIANT)
    result = run(pytester, "m.toml", "-v", "--junitxml=out.xml")
    result.assert_outcomes(passed=6)
    for size in ("128x128", "144x144"):
        for axis in ("auto", "h", "w"):
            result.stdout.fnmatch_lines([f"*m.toml::{size}-fake-u2-{axis} PASSED*"])
    (folder,) = runs(pytester)
    result.stdout.fnmatch_lines([f"sp-harness report: *{folder.name}/index.html"])
    assert {"index.html", "auto.html", "h.html", "w.html", "report.json"} <= {path.name for path in folder.iterdir()}
    report = json.loads((folder / "report.json").read_text())
    assert (len(report["rows"]), report["exit_code"], report["complete"]) == (6, 0, True)
    assert len(list((folder / "runs").iterdir())) == 12  # each run once
    groups = [path.name.split("-", 1)[1] for path in (folder / "logs").iterdir()]
    assert groups.count("world-2") == 1
    assert groups.count("world-1") in (1, 2)
    (suite,) = ET.parse(pytester.path / "out.xml").getroot()
    assert suite.get("tests") == "6"


def test_what_is_not_selected_is_not_computed(pytester: pytest.Pytester) -> None:
    write(pytester, HEAD + CASES + VARIANT)
    listed = run(pytester, "m.toml", "--collect-only", "-q")
    listed.stdout.fnmatch_lines(["*6 tests collected*"])
    assert runs(pytester) == []
    chosen = run(pytester, "m.toml", "-k", "144x144 and auto")
    chosen.assert_outcomes(passed=1, deselected=5)
    (folder,) = runs(pytester)
    assert len(list((folder / "runs").iterdir())) == 5  # four roles, and the baseline reordered
    assert len(json.loads((folder / "report.json").read_text())["rows"]) == 1


def test_a_failing_item_prints_figures_and_pictures_and_no_stack_of_ours(pytester: pytest.Pytester) -> None:
    text = HEAD + "timeout_s = 30\n" + CASES + VARIANT.replace('["auto", "h", "w"]', '"h"')
    write(pytester, text + FAULTY.format("seam") + FAULTY.format("crash") + VARIANT.replace("= 2", "= 4"))
    result = run(pytester, "m.toml", "-rs", "--sp-out", "elsewhere", "--junitxml=out.xml")
    result.assert_outcomes(passed=2, failed=2, skipped=6)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*144x144-fake-u2-h-seam*",
            "fail: Splitting over 2 ranks damages the picture*",
            "  exchange * dB",
            "  control * exact",
            "  layout * dB",
            "  pair * dB",
            "*144x144-fake-u2-h-crash*",
            "error: the candidate has no picture: rank 1 raised RuntimeError*",
            "SKIPPED *Ulysses degree 4 does not divide the 6 heads of fake",
        ]
    )
    output = result.stdout.str()
    pictures = re.findall(r"^  (?:\w+) +(\S+\.png)$", output, re.MULTILINE)
    assert len(pictures) == 5 + 4  # the crashed candidate has none
    assert all((pytester.path / picture).is_file() for picture in pictures)
    assert len(runs(pytester, "elsewhere")) == 1
    assert output.count("Traceback") == 1  # the crashed rank's own
    assert "RowFailed" not in output
    (suite,) = ET.parse(pytester.path / "out.xml").getroot()
    assert (suite.get("failures"), suite.get("skipped")) == ("2", "6")


def test_goldens_are_asked_for_unless_they_are_off(pytester: pytest.Pytester) -> None:
    text = HEAD.replace("off", "required") + 'golden_store = "golden"\n' + CASES + VARIANT
    write(pytester, text)
    missing = run(pytester, "m.toml", "-k", "128x128-fake-u2-h")
    missing.assert_outcomes(failed=1, deselected=5)
    missing.stdout.fnmatch_lines(["no_golden: *No golden is approved for this case yet."])
    (folder,) = runs(pytester)
    assert list((folder / "proposals").rglob("golden.json"))
    assert not (pytester.path / "golden").exists()
    run(pytester, "m.toml", "-k", "128x128-fake-u2-h", "--sp-golden", "off").assert_outcomes(passed=1, deselected=5)


def test_goldens_are_checked_once_before_the_first_item_and_not_for_collecting(pytester: pytest.Pytester) -> None:
    pin = f'golden_digest = "sha256:{"0" * 64}"\n'
    write(pytester, pin + HEAD.replace("off", "required") + CASES + VARIANT)
    run(pytester, "m.toml", "--collect-only", "-q").stdout.fnmatch_lines(["*6 tests collected*"])
    result = run(pytester, "m.toml")
    result.assert_outcomes(errors=6)
    result.stdout.fnmatch_lines(["*holds 0 goldens of this matrix*golden_digest says sha256:0000*"])
    assert "Traceback" not in result.stdout.str()
    assert runs(pytester) == []


def test_a_wrong_matrix_is_a_collection_error_of_one_line(pytester: pytest.Pytester) -> None:
    write(pytester, HEAD + CASES + VARIANT.replace('"fake"', '"fak"'))
    result = run(pytester, "m.toml")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*variant[[]1[]].engine: there is no engine 'fak'; did you mean 'fake'?"])
    assert "Traceback" not in result.stdout.str()
    assert runs(pytester) == []


def test_matrices_are_found_in_folders_and_other_toml_files_are_left_alone(pytester: pytest.Pytester) -> None:
    write(pytester, HEAD + CASES + VARIANT)
    write(pytester, '[tool.x]\ncase = "?"\n', "other.toml")
    write(pytester, "half = [", "broken.toml")
    pytester.makepyfile("def test_of_their_own():\n    pass")
    result = run(pytester, "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*7 tests collected*"])
    assert "error" not in result.stdout.str()


def test_a_conftest_that_names_the_plugin_meets_the_entry_point_in_peace(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["harness.pytest_plugin"]')
    write(pytester, HEAD + CASES + VARIANT)
    result = run(pytester, "m.toml", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*6 tests collected*"])
    assert result.ret == 0
    assert "already registered" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("where", ["prepare", "conclude"])
def test_a_bug_of_the_harness_is_the_exit_code_of_the_session(pytester: pytest.Pytester, where: str) -> None:
    write(pytester, HEAD + CASES + VARIANT)
    pytester.makeconftest(f"""
        from harness.session import steps

        def broken(*arguments, **named):
            raise KeyError("nobody expects this")

        steps.{where} = broken
    """)
    result = run(pytester, "m.toml", "-k", "128x128-fake-u2-h", "--sp-golden", "off")
    assert result.ret == 70
    result.stdout.fnmatch_lines(["sp-harness: this is a bug of sp-harness*KeyError*"])
    if where == "conclude":
        (folder,) = runs(pytester)
        assert list((folder / "logs").glob("sp-harness-bug-*.txt"))
