"""``pytest matrix.toml``, through pytest itself, in a folder that has no conftest.py of ours."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest

HEAD = 'schema = 1\nname = "m"\nmodel = "fake"\nsteps = 2\ngolden = "off"\n'
REQUIRED = HEAD.replace("off", "required") + 'golden_store = "golden"\n'
PINNED = f'golden_digest = "sha256:{"0" * 64}"\n' + REQUIRED
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
    assert {"index.html", "rows", "report.json"} <= {path.name for path in folder.iterdir()}
    report = json.loads((folder / "report.json").read_text())
    assert (len(report["rows"]), report["exit_code"], report["complete"]) == (6, 0, True)
    assert len(list((folder / "runs").iterdir())) == 12  # each run once
    groups = [path.name.split("-", 1)[1] for path in (folder / "logs").iterdir()]
    assert groups.count("world-2") == 1
    assert groups.count("world-1") in (1, 2)
    (suite,) = ET.parse(pytester.path / "out.xml").getroot()
    assert suite.get("tests") == "6"


def test_what_is_not_selected_is_not_computed(pytester: pytest.Pytester) -> None:
    write(pytester, REQUIRED + CASES + VARIANT)
    chosen = run(pytester, "m.toml", "-k", "144x144 and auto", "--sp-golden", "off")
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


def test_goldens_are_asked_for_and_their_pin_is_checked_before_the_first_item(pytester: pytest.Pytester) -> None:
    write(pytester, REQUIRED + CASES + VARIANT)
    write(pytester, PINNED + CASES + VARIANT, "pinned.toml")
    result = run(pytester, "m.toml", "pinned.toml", "-k", "fake-u2-h")
    result.assert_outcomes(failed=2, errors=2, deselected=8)
    result.stdout.fnmatch_lines(["no_golden: *No golden is approved for this case yet."])
    result.stdout.fnmatch_lines(["*holds 0 goldens of this matrix*golden_digest says sha256:0000*"])
    assert "Traceback" not in result.stdout.str()
    (folder,) = runs(pytester)  # of the first matrix alone
    assert len(list((folder / "proposals").rglob("golden.json"))) == 2
    assert not (pytester.path / "golden").exists()


def test_collecting_finds_matrices_and_draws_nothing(pytester: pytest.Pytester) -> None:
    """In a folder with other TOML files, a test, a wrong matrix, and a conftest that names the plugin itself."""
    write(pytester, HEAD + CASES + VARIANT)
    write(pytester, PINNED + CASES + VARIANT, "pinned.toml")
    write(pytester, HEAD + CASES + VARIANT.replace('"fake"', '"fak"'), "wrong.toml")
    write(pytester, '[tool.x]\ncase = "?"\n', "other.toml")
    write(pytester, "half = [", "broken.toml")
    pytester.makepyfile("def test_of_their_own():\n    pass")
    pytester.makeconftest('pytest_plugins = ["harness.pytest_plugin"]')
    result = run(pytester, "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*variant[[]1[]].engine: there is no engine 'fak'; did you mean 'fake'?"])
    result.stdout.fnmatch_lines(["ERROR wrong.toml*", "*13 tests collected, 1 error in *"])
    for words in ("Traceback", "already registered"):
        assert words not in result.stdout.str() + result.stderr.str()
    assert runs(pytester) == []


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
