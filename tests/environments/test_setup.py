"""``sp-harness engines setup``: an environment made by pip from a lock file, of wheels that lie in a folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from harness.environments import locks, table
from harness.errors import HarnessError, InfrastructureError, UsageError

MODULES = {
    "diffusers": "diffusers",
    "transformers": "transformers",
    "torch": "torch",
    "numpy": "numpy",
    "pillow": "PIL",
    "safetensors": "safetensors",
}


def write_wheel(folder: Path, package: str, module: str) -> None:
    info = f"{package}-1.0.dist-info"
    files = {
        f"{module}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Dist: not-there\n"
        if package == "diffusers"
        else f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of wheels, and a lock file of the engine diffusers that names them."""
    folder, lock_files = tmp_path / "wheels", tmp_path / "locks"
    folder.mkdir()
    lock_files.mkdir()
    for package, module in MODULES.items():
        write_wheel(folder, package, module)
    lock = "# a comment\n" + "".join(f"{package}==1.0\n" for package in sorted(MODULES))
    for version in ("1.9", "1.10"):
        (lock_files / f"diffusers-{version}-cpu.txt").write_text(lock)
    monkeypatch.setattr(locks, "FOLDER", lock_files)
    monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "cache"))
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def set_up(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["engines", "setup", *arguments], catch_exceptions=False)
    return done.output.splitlines()


def test_an_environment_is_made_once_and_entered_and_an_interrupted_one_is_finished(
    wheels: Path, tmp_path: Path
) -> None:
    missing = wheels / "safetensors-1.0-py3-none-any.whl"
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(InfrastructureError, match=r"exit code 1 of: .*Set up again to go on from here"):
        set_up("diffusers", "--cpu")
    assert not table.user_file().exists()
    missing.write_bytes(content)
    made = set_up("diffusers", "--cpu")
    folder = tmp_path / "cache" / "environments" / "diffusers-1.10-cpu"
    assert made[0] == f"{folder}: installing 6 distributions from diffusers-1.10-cpu.txt"
    assert made[-1].endswith('diffusers@1.10 is entered; a variant runs there by environment = "1.10"')
    assert table.read(table.user_file()) == {"diffusers@1.10": str(folder / "bin" / "python")}
    assert set_up("diffusers", "--cpu")[0] == f"{folder}: is complete"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["diffusers", "--version", "1.8", "--cpu"],
            "--version 1.8: no lock file of diffusers --cpu; did you mean '1.9'?",
        ),
        (["diffusers"], "diffusers has lock files for cpu alone; write --cpu"),
        (["spatial", "--cpu"], "no lock file of spatial; there are some of diffusers."),
        (["difusers"], "engine 'difusers': did you mean 'diffusers'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_release_without_a_lock_file_is_answered_with_those_there_are(
    wheels: Path, arguments: list[str], says: str
) -> None:
    with pytest.raises(HarnessError) as caught:
        set_up(*arguments)
    assert isinstance(caught.value, UsageError)
    assert says in str(caught.value)
