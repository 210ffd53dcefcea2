"""Text of an issue about the newest run, with what changed since earlier runs."""

from __future__ import annotations

from pathlib import Path

from harness import codec, plugins
from harness.errors import FileError
from harness.history import files, words
from harness.history.changes import changes
from harness.history.nights import comparable
from harness.reporting.escape import escape
from harness.types import SCHEMA, Report

LAST_LINES = 40
"""Of a log, in an issue about a run without a report."""

MAX_ISSUE = 60_000
"""Characters; a text on GitHub ends at 65,536."""


def issue(path: Path, past: Path | None = None, log: Path | None = None, link: str | None = None) -> str:
    """Write the text of an issue about the newest run below a folder; its first line is the title.

    Parameters
    ----------
    path
        A run folder, or a folder of runs, which may be empty: a job may end before it makes one.
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
    """Say what changed with this run, as far as earlier runs are known."""
    if past is None or not (past / files.HISTORY).is_file():
        return []
    entries, _ = files.read([run], past / files.HISTORY)
    (own,) = [entry for entry in entries if entry.run == run.name][-1:] or [entries[-1]]
    its = comparable([e for e in entries if e.matrix == own.matrix and e.started_at <= own.started_at])
    told = [
        line
        for head, lines in words.sections(changes(its))
        for line in (f"**{head}**", "", *(f"- {escape(line)}" for line in lines), "")
    ]
    return ["\n".join(["### Compared with earlier runs", "", *(told or ["Nothing changed."])])]


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
