"""What ``sp-harness history`` and ``sp-harness issue`` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from harness import codec, plugins
from harness.cli.console import make_console
from harness.errors import FileError, UsageError
from harness.history import files, page, words
from harness.history.changes import Limits, changes
from harness.history.entry import Entry
from harness.reporting.escape import escape
from harness.types import SCHEMA, Report

LAST_LINES = 40
"""Of a log, in an issue about a run without a report."""

MAX_ISSUE = 60_000
"""Characters; a text on GitHub ends at 65,536."""


def history(paths: Sequence[Path], out: Path, slower: float, moved_db: float) -> None:
    """Append what is new to ``history.jsonl``, say what changed, and write the pages."""
    if not slower >= 1:
        raise UsageError(f"--slower {slower:g}: is a factor of at least 1; write for example --slower 1.25")
    if not moved_db >= 0:
        raise UsageError(f"--moved-db {moved_db:g}: is a distance in dB; write for example --moved-db 1")
    limits = Limits(slower, moved_db)
    kept = out / files.HISTORY
    entries, problems = files.read(paths, kept)
    told = [(changes(its, limits), its) for its in _by_matrix(entries)]
    try:
        added = files.keep(kept, entries)
        index = page.write([page.trend(its, one) for one, its in told], out)
        (out / "summary.md").write_text(words.markdown(told, problems), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror}); name another folder with --out") from None
    console = make_console()
    for one, _ in told:
        console.print(words.headline(one), markup=False)
        for head, lines in words.sections(one):
            console.print(f"  {head}:", markup=False)
            for line in lines:
                console.print(f"    {line}", markup=False, soft_wrap=True)
    for problem in problems:
        typer.echo(f"left out: {problem}", err=True)
    typer.echo(f"{added} of {len(entries)} runs are new in {kept}; pages: {index}")


def issue(path: Path, past: Path | None, log: Path | None, link: str | None) -> str:
    """Write the text of an issue about the newest run below a folder; its first line is the title.

    Parameters
    ----------
    path
        A run folder, or a folder of runs, which may be empty: a run may end before it has a run.
    past
        Folder of ``sp-harness history``, to say since when.
    log
        What the run printed, for a run without a report.
    link
        Where the run can be looked at.
    """
    run = files.newest_run(path) if path.is_dir() else None
    parts = [_of_run(run), *_past(run, past)] if run else [_of_log(log)]
    parts += [f"Look at it: {link}"] if link else []
    return "\n\n".join(part.strip() for part in parts)[:MAX_ISSUE] + "\n"


def _of_run(run: Path) -> str:
    report = codec.read_json(run / "report.json", Report, SCHEMA)
    text: str = plugins.load("reporters", "issue")().write(report, run).read_text(encoding="utf-8")
    return text


def _past(run: Path, past: Path | None) -> list[str]:
    """What changed with this run, as far as earlier runs are known."""
    if past is None or not (past / files.HISTORY).is_file():
        return []
    entries, _ = files.read([run], past / files.HISTORY)
    (own,) = [entry for entry in entries if entry.run == run.name][-1:] or [entries[-1]]
    its = [entry for entry in entries if entry.matrix == own.matrix and entry.started_at <= own.started_at]
    told = [line for head, lines in words.sections(changes(its)) for line in (f"**{head}**", "", *_listed(lines), "")]
    return ["\n".join(["### Compared with earlier runs", "", *(told or ["Nothing changed."])])]


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"- {escape(line)}" for line in lines]


def _of_log(log: Path | None) -> str:
    title = "The run ended without a report"
    if log is None:
        return f"{title}\n\nThere is no report and no log; look at the job itself."
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FileError(f"{log}: cannot be read ({error.strerror}); name what the run printed with --log") from None
    said = [line for line in lines if line.startswith("sp-harness: ")]
    title = f"{title}: {said[-1].removeprefix('sp-harness: ')}"[:200] if said else title
    return "\n".join([title, "", *(f"    {line}" for line in lines[-LAST_LINES:])])


def _by_matrix(entries: Sequence[Entry]) -> list[list[Entry]]:
    matrices: dict[str, list[Entry]] = {}
    for entry in entries:
        matrices.setdefault(entry.matrix, []).append(entry)
    return list(matrices.values())
