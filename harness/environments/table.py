"""``environments.toml``: interpreters by engine and name, from files and from the command line.

    [sglang]
    python = "~/sglang/.venv/bin/python"        # variants of sglang that name no environment

    [sglang."0.5.9"]
    python = "/opt/sglang-0.5.9/bin/python"     # those with environment = "0.5.9"

The file beside the matrix goes before the user's own. An interpreter is addressed as on the command line: ``sglang``
or ``sglang@0.5.9``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import files, plugins
from harness.errors import ConfigError, UsageError, did_you_mean

FILE = "environments.toml"
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
"""Regular expression of an environment's name."""


def address(engine: str, environment: str = "") -> str:
    """Address of an environment: ``sglang``, or ``sglang@0.5.9`` for one with a name."""
    return f"{engine}@{environment}" if environment else engine


def user_file() -> Path:
    """The user's own file, in the folder of configurations."""
    folder = os.environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "sp-harness" / FILE


def known(folder: Path, words: Sequence[str] = ()) -> dict[str, str]:
    """Collect the interpreters that are known to a matrix.

    Parameters
    ----------
    folder
        Folder of the matrix.
    words
        ``ENGINE[@NAME]=PYTHON`` of the command line, which goes before the files.

    Returns
    -------
    dict of str to str
        Address to absolute path.

    Raises
    ------
    UsageError
        If a file or a word has a mistake.
    """
    return read(user_file()) | read(folder / FILE) | named(words)


def named(words: Sequence[str]) -> dict[str, str]:
    """Read ``ENGINE[@NAME]=PYTHON`` of the command line: address to absolute path.

    Raises
    ------
    UsageError
        If there is no such engine, or a word is of another form.
    """
    return dict(map(_parse_word, words))


def read(path: Path) -> dict[str, str]:
    """Read one file; none that is not there.

    Raises
    ------
    ConfigError
        For a mistake in the file; the message names file and key, and what to write instead.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is no valid TOML: {error}") from None
    return dict(_entries(path, data))


def _entries(path: Path, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for engine, tables in data.items():
        if engine not in plugins.names("engines"):
            raise ConfigError(
                f"{path}: there is no engine {engine!r}; {did_you_mean(engine, plugins.names('engines'))}"
            )
        if not isinstance(tables, dict):
            raise ConfigError(f'{path}: {engine}: is no table; write [{engine}."NAME"] and python = "..." below it')
        for name, value in tables.items():
            default = name == "python" and not isinstance(value, dict)
            python = value if default else value.get("python") if isinstance(value, dict) else None
            key = f"{engine}.python" if default else f'{engine}."{name}".python'
            if not isinstance(python, str) or not python:
                raise ConfigError(f'{path}: {key}: write the path of an interpreter, python = "/path/to/bin/python"')
            yield address(engine, "" if default else name), _absolute(python, path.parent)


def _parse_word(word: str) -> tuple[str, str]:
    where, equals, python = word.partition("=")
    engine, _, name = where.partition("@")
    if engine not in plugins.names("engines"):
        raise UsageError(
            f"--python {word!r}: there is no engine {engine!r}; {did_you_mean(engine, plugins.names('engines'))}"
        )
    if not equals or not python:
        raise UsageError(f"--python {word!r}: write ENGINE=PYTHON or ENGINE@NAME=PYTHON, as {engine}=.venv/bin/python")
    return address(engine, name), _absolute(python, Path.cwd())


def _absolute(python: str, folder: Path) -> str:
    """Absolute path; links stay, since an environment's python is one and its place names the environment."""
    return os.path.abspath(folder / Path(python).expanduser())


def enter(path: Path, engine: str, name: str, python: str) -> None:
    """Add an environment to a file; what is written there stays as it is.

    Raises
    ------
    ConfigError
        If the file has a mistake, or names another interpreter for this environment.
    """
    import tomli_w

    before = read(path).get(address(engine, name))
    if before == python:
        return
    if before is not None:
        raise ConfigError(f"{path}: names {before} for {address(engine, name)}; remove that entry, and set up again")
    addition = tomli_w.dumps({engine: {name: {"python": python}}})
    text = path.read_text(encoding="utf-8-sig").rstrip() if path.is_file() else ""
    text = f"{text}\n\n{addition}" if text else addition
    try:
        tomllib.loads(text)
    except ValueError:
        raise ConfigError(f"{path}: cannot be added to; write into it yourself: {addition!r}") from None
    with files.writing(path, "name another file with --file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, text)
