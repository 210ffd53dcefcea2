"""``pytest matrices/pr.toml``: one item for each case and variant of a matrix.

Items of one file share their workers, which start with the first item and end with the session, so
that ``-k``, ``-x`` and ``--lf`` compute what they ask for and no more.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import bug
from harness.errors import HarnessError, user_error, worst
from harness.types import Outcome, Row

if TYPE_CHECKING:
    from harness.execution.pool import Pool
    from harness.judging.comparisons import Measurer
    from harness.runs.folder import RunFolder
    from harness.types import Report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add where reports go and whether goldens are held to."""
    group = parser.getgroup("sp-harness")
    group.addoption("--sp-out", default="reports", help="folder for sp-harness' run folders")
    group.addoption(
        "--sp-golden", default="required", choices=("required", "off"), help="off holds nothing to a golden"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect matrix files: TOML files that are named on the command line, or hold cases and variants."""
    if file_path.suffix == ".toml" and (parent.session.isinitpath(file_path) or _is_matrix(file_path)):
        file: pytest.Collector = MatrixFile.from_parent(parent, path=file_path)
        return file
    return None


def _is_matrix(path: Path) -> bool:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return "case" in data and "variant" in data


class MatrixFile(pytest.File):
    """A matrix file; owns the run folder and the workers of its items."""

    def collect(self) -> Iterator[pytest.Item]:
        """Plan the matrix and yield its rows."""
        from harness.session import steps

        try:
            self.matrix, self.graph = steps.prepare(self.path)
        except HarnessError as error:
            raise self.CollectError(str(error)) from None
        for row in self.graph.rows:
            yield RowItem.from_parent(self, name=f"{row.case.name}-{row.variant.label}", row=row)

    def setup(self) -> None:
        """Fetch the goldens before the first item."""
        from harness.goldens import for_run

        if self.config.getoption("--sp-golden") == "required":
            for_run.fetch(self.matrix)

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder, made when the first item runs."""
        from harness.runs.folder import RunFolder

        out = Path(self.config.getoption("--sp-out"))
        return RunFolder.create(out, self.matrix, self.graph, self.config.getoption("--sp-golden"))

    @cached_property
    def pool(self) -> Pool:
        """The workers, which ``pytest_sessionfinish`` ends."""
        from harness.execution.pool import Pool

        pool = Pool(self.folder.path / "logs", keep=True)
        self.config.stash.setdefault(_FILES, []).append(self)
        return pool

    @cached_property
    def measurer(self) -> Measurer:
        """Comparisons made so far."""
        from harness.judging.comparisons import Measurer

        return Measurer(self.folder)

    def judge(self, row: Row) -> Row:
        """Compute what a row lacks and return it with its verdict."""
        from harness.session import steps

        steps.record(self.folder, self.pool, rows=[row])
        (judged,) = steps.conclude(self.folder, self.measurer, rows=[row]).rows
        self.judged.append(row)
        return judged

    @cached_property
    def judged(self) -> list[Row]:
        """Rows that have been judged, in order."""
        return []

    def write_reports(self, problems: Sequence[HarnessError] = ()) -> tuple[Report, dict[str, Path]]:
        """Report on the rows that have been judged, and on what went wrong beside them."""
        from harness.goldens import for_run
        from harness.session import steps

        report = steps.conclude(self.folder, self.measurer, rows=self.judged)
        if problems:
            code = worst([report.exit_code, *(problem.exit_code for problem in problems)])
            report = replace(report, exit_code=code, notes=(*report.notes, *map(str, problems)))
        for_run.propose(self.folder, report)
        return report, steps.write_reports(report, self.folder.path)


_FILES: pytest.StashKey[list[MatrixFile]] = pytest.StashKey()


_PROBLEMS: pytest.StashKey[list[HarnessError]] = pytest.StashKey()
"""Bugs of the harness met in a session, and what kept a report from being written."""


class RowFailed(Exception):
    """A row's verdict is neither pass nor skip."""


EXPECTED = (RowFailed, pytest.Collector.CollectError, pytest.fail.Exception)
"""Exceptions by which an item or a file fails."""


class RowItem(pytest.Item):
    """One case under one variant."""

    def __init__(self, *, row: Row, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.row = row

    def runtest(self) -> None:
        """Compute and judge the row."""
        assert isinstance(self.parent, MatrixFile)
        row = self.parent.judge(self.row)
        assert row.verdict is not None
        if row.verdict.outcome == Outcome.SKIP:
            pytest.skip(row.verdict.sentence)
        if row.verdict.outcome != Outcome.PASS:
            raise RowFailed(_explain(row, self.parent))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show figures and paths instead of our own stack."""
        if isinstance(excinfo.value, RowFailed | HarnessError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Name the item in pytest's own report."""
        return self.path, None, self.name


def _explain(row: Row, file: MatrixFile) -> str:
    from harness.diagnose.sentence import describe

    assert row.verdict is not None
    lines = [f"{row.verdict.outcome}: {row.verdict.sentence}", ""]
    lines += [f"  {comparison.relation:17} {describe(comparison)}" for comparison in row.comparisons]
    runs = file.folder.runs()
    failures = [runs[digest].failure for digest in dict.fromkeys(row.runs.values()) if digest in runs]
    lines += [failure.detail for failure in failures if failure]
    for role, digest in row.runs.items():
        folder = file.folder.path / "runs" / digest
        names = runs[digest].images if digest in runs else ()
        lines += [f"  {role:17} {folder / name}" for name in names or ("run.json",)]
    return "\n".join(lines)


def pytest_exception_interact(node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]) -> None:
    """Keep the traceback where collecting, computing or judging a matrix meets a bug of the harness."""
    error = call.excinfo.value if call.excinfo else None
    file = node.parent if isinstance(node, RowItem) else node
    if not isinstance(file, MatrixFile) or not isinstance(error, Exception) or isinstance(error, EXPECTED):
        return
    if not user_error(error):
        _note(error, file)


def _note(error: Exception, file: MatrixFile) -> None:
    folder = vars(file).get("folder")  # made with the first item
    kept = user_error(error) or bug.keep(error, folder.path / "logs" if folder else None)
    file.config.stash.setdefault(_PROBLEMS, []).append(kept)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the reports of every matrix that had an item run; a bug of the harness decides the exit code."""
    problems = session.config.stash.setdefault(_PROBLEMS, [])
    for file in session.config.stash.get(_FILES, []):
        try:
            file.pool.close()
            file.write_reports(problems)
        except Exception as error:
            _note(error, file)
    if problems:
        session.exitstatus = worst([session.exitstatus, *(problem.exit_code for problem in problems)])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say where the reports are, and what went wrong outside of the items."""
    for file in config.stash.get(_FILES, []):
        terminalreporter.write_line(f"sp-harness report: {file.folder.path / 'index.html'}")
    for problem in config.stash.get(_PROBLEMS, []):
        terminalreporter.write_line(f"sp-harness: {problem}", red=True)
