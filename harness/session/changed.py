"""Rows of a matrix that changed files can touch: engines' sources, the matrix file, goldens, this package."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import harness
from harness import plugins
from harness.environments import table
from harness.errors import HarnessError, UsageError
from harness.matrix.golden_store import is_url
from harness.matrix.loader import read_matrix
from harness.types import Case, Matrix, Variant

PACKAGE = Path(harness.__file__).parent
ENGINES, FAULTS = PACKAGE / "engines", PACKAGE / "faults"
TOUCHES_NOTHING = ("reporters", "reporting", "history", "kill_score", "fuzz", "cli", "bug.py", "pytest_plugin.py")
"""Parts of this package that neither draw, measure nor judge."""

Reasons = Mapping[str, str]
"""Row, ``CASE/VARIANT``, to the first file that can touch it and how."""


def since(matrix: Matrix, ref: str) -> Reasons:
    """Find the rows that files changed since a commit can touch, changes that are not committed among them.

    Parameters
    ----------
    matrix
        A matrix whose file lies in a git repository.
    ref
        Commit, branch or tag, such as ``origin/main``.

    Raises
    ------
    UsageError
        If git is not here, or the matrix is in no repository, or there is no such commit.
    """
    path = Path(matrix.path).resolve()
    root = Path(_git(path.parent, "rev-parse", "--show-toplevel").strip()).resolve()
    base = _git(root, "merge-base", ref, "HEAD").strip()
    names = _git(root, "diff", "--name-only", "-z", base, "--")
    names += _git(root, "ls-files", "--others", "--exclude-standard", "-z")
    files = [root / name for name in names.split("\0") if name]
    former = _former(root, base, path) if path in files else None
    return touched(matrix, files, former)


def touched(matrix: Matrix, files: Iterable[Path], former: Matrix | None = None) -> Reasons:
    """Find the rows that files can touch.

    Parameters
    ----------
    matrix
        The matrix.
    files
        Absolute paths of changed files.
    former
        The matrix before, where its file is among them; ``None`` where it cannot be read, which touches all.
    """
    cases, variants = ({entry.name: entry for entry in matrix.cases}, {entry.label: entry for entry in matrix.variants})
    rows = {f"{case}/{label}": (cases[case], variants[label]) for case, label in matrix.pairs}
    roots = {name: _sources(name) for name in {variant.engine for variant in matrix.variants}}
    found: dict[str, str] = {}
    for file in files:
        for row, (case, variant) in rows.items():
            if row not in found and (why := _why(file.resolve(), matrix, former, case, variant, roots)):
                found[row] = f"{file.name} {why}"
    return found


def _why(
    file: Path,
    matrix: Matrix,
    former: Matrix | None,
    case: Case,
    variant: Variant,
    roots: Mapping[str, tuple[Path, ...]],
) -> str:
    """Say how a file can touch a row; empty where it cannot."""
    if file == Path(matrix.path).resolve():
        return "" if former and _has(former, case, variant) else "asks for it, or asks for it otherwise"
    if file == Path(matrix.path).resolve().parent / table.FILE:
        place = table.address(variant.engine, variant.environment)
        return "says in which environment it runs" if place in matrix.interpreters else ""
    if not is_url(matrix.golden_store) and case.key in file.parts and file.is_relative_to(_store(matrix)):
        return "is part of its golden"
    if Path(case.model).is_dir() and file.is_relative_to(Path(case.model).resolve()):
        return "is of its model"
    if file.is_relative_to(PACKAGE):
        return _of_package(file, variant)
    if any(file.is_relative_to(place) for place in roots[variant.engine]):
        return f"is of engine {variant.engine}"
    return ""


def _of_package(file: Path, variant: Variant) -> str:
    if file.relative_to(PACKAGE).parts[0] in TOUCHES_NOTHING:
        return ""
    name = file.stem.replace("_", "-")
    if file.parent == ENGINES and not file.stem.startswith("_"):
        baseline = plugins.load("engines", variant.engine).baseline
        return f"is of engine {name}" if name in (variant.engine, baseline) else ""
    if file.parent == FAULTS and not file.stem.startswith("_"):
        return f"is of the planted bug {name}" if variant.fault == name else ""
    return "takes part in every row"


def _sources(engine: str) -> tuple[Path, ...]:
    """Return the folder of the package, or the file, that an engine of another distribution comes from."""
    module = sys.modules[plugins.load("engines", engine).__module__]
    top = sys.modules[module.__name__.partition(".")[0]]
    places = [Path(place).resolve() for place in getattr(top, "__path__", ())] or [
        Path(module.__file__ or "").resolve()
    ]
    return tuple(place for place in places if place != PACKAGE)


def _store(matrix: Matrix) -> Path:
    return Path(matrix.golden_store).resolve()


def _has(matrix: Matrix, case: Case, variant: Variant) -> bool:
    return case in matrix.cases and variant in matrix.variants and (case.name, variant.label) in matrix.pairs


def _former(root: Path, base: str, path: Path) -> Matrix | None:
    """Read a matrix as it was; ``None`` where there was none, or it cannot be read now."""
    try:
        text = _git(root, "show", f"{base}:{path.relative_to(root).as_posix()}")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / path.name
            file.write_text(text, encoding="utf-8")
            return read_matrix(file)
    except (HarnessError, ValueError):
        return None


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"--changed-since asks git, which does not answer: {error}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[0]
        raise UsageError(f"--changed-since: git {words[0]} in {folder}: {reason}")
    return done.stdout


def sentences(reasons: Reasons, num_rows: int, ref: str) -> Iterator[str]:
    """Say how many rows are drawn and why, a line for each reason."""
    if not reasons:
        yield f"nothing that changed since {ref} can touch a row; nothing is drawn"
        return
    yield f"{len(reasons)} of {num_rows} rows can be touched by what changed since {ref}:"
    for reason in dict.fromkeys(reasons.values()):
        rows = [row for row, why in reasons.items() if why == reason]
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        yield f"  {reason}: {', '.join(rows[:3])}{more}"
