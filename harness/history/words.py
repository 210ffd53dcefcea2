"""Changes as text: for the terminal, for Markdown, and for the trend pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from harness.history.changes import EXACT, FAILING, Changes, Failing, Moved
from harness.history.entry import Entry
from harness.reporting.escape import escape

NOTHING = "\N{EN DASH}"
MAX_ROWS = 30
"""Rows of each kind that are listed."""

MAX_NAMES = 8
"""Row names in one line."""

MAX_SENTENCE = 300
ENTRIES_IN_TABLE = 10

KINDS = {
    "exchange_db": "exchange",
    "pair_db": "pair",
    "layout_db": "layout",
    "pair_image_db": "pair of the pictures",
    "step_s": "a step",
}


def value(what: str, number: float) -> str:
    """Format a number of the table with its unit."""
    if math.isnan(number):
        return NOTHING
    if number == EXACT:
        return "exact"
    if what.endswith("_db"):
        return f"{number:.1f} dB"
    if what.endswith("_bytes"):
        return f"{number / 1e9:.2f} GB"
    return f"{number:.3f} s" if what.endswith("step_s") else f"{number:.1f} s"


def day(started_at: str) -> str:
    """Day and minute of a time; the text itself where it is none."""
    try:
        return f"{datetime.fromisoformat(started_at):%Y-%m-%d %H:%M}"
    except ValueError:
        return started_at


def headline(changes: Changes) -> str:
    """Summarize the last run against the one before in one line."""
    parts = [
        f"{len(rows)} {words}"
        for rows, words in (
            (changes.newly_failing, "newly failing"),
            (changes.failing_after_gap, "failing, not judged in the run before"),
            (changes.still_failing, "still failing"),
            (changes.mended, "mended"),
            (changes.slower, "slower"),
            (changes.figures, "figures moved"),
            (changes.drifting, "drifting"),
            (changes.appeared, "new rows"),
            (changes.gone, "rows gone"),
        )
        if rows
    ]
    if not changes.last.has_report or not changes.last.rows:
        return f"{changes.last.matrix}, {day(changes.last.started_at)}: the run left no report"
    well = "all well" if changes.last.exit_code == 0 else f"exit code {changes.last.exit_code}"
    told = ", ".join(parts) or (f"{well}, nothing changed" if changes.before else f"{well}, the first run")
    return f"{changes.last.matrix}, {day(changes.last.started_at)}: {told}"


def sections(changes: Changes) -> list[tuple[str, list[str]]]:
    """List the changes by kind: a heading and a sentence for each row; empty kinds are left out."""
    found = [
        ("Newly failing", _failing(changes.newly_failing)),
        ("Failing, and not judged in the run before", _failing(changes.failing_after_gap)),
        ("Still failing", _failing(changes.still_failing)),
        ("Mended", list(changes.mended)),
        ("Slower", [_moved(moved) for moved in changes.slower]),
        ("Figures moved", [_moved(moved) for moved in changes.figures]),
        ("Drifting from run to run, within the bounds so far", [_moved(moved) for moved in changes.drifting]),
        ("The environment changed, so figures and times are not compared", list(changes.environment)),
        ("New rows", _cut(list(changes.appeared), MAX_NAMES)),
        ("Rows of the run before that are missing", _cut(list(changes.gone), MAX_NAMES)),
        ("Not judged", list(changes.others)),
    ]
    return [(head, _cut(lines)) for head, lines in found if lines]


def markdown(changes: Sequence[tuple[Changes, Sequence[Entry]]], problems: Sequence[str] = ()) -> str:
    """Render ``summary.md``: the changes and the last runs of each matrix."""
    lines = []
    for one, entries in changes:
        lines += [f"## {escape(headline(one))}", ""]
        for head, told in sections(one):
            lines += [f"**{head}**", "", *(f"- {escape(line)}" for line in told), ""]
        lines += _table(entries[-ENTRIES_IN_TABLE:])
    lines += [f"- left out: {escape(problem)}" for problem in problems]
    return "\n".join(lines).rstrip() + "\n"


def _table(entries: Sequence[Entry]) -> list[str]:
    kinds = list(dict.fromkeys(entry.comparable_environment for entry in entries))
    lines = [
        "| started | run | exit code | rows that do not pass | wall time | environment |",
        "|---|---|---|---|---|---|",
    ]
    for entry in reversed(entries):
        broken = sum(row.outcome in FAILING for row in entry.rows.values())
        label = environment_label(kinds.index(entry.comparable_environment) + 1)
        cells = [day(entry.started_at), escape(entry.run), str(entry.exit_code), f"{broken} of {len(entry.rows)}"]
        lines.append(f"| {' | '.join([*cells, f'{entry.wall_s:.0f} s', label])} |")
    return [*lines, ""]


def environment_label(number: int) -> str:
    """Name environments A, B, ... in order of appearance."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _failing(failing: Sequence[Failing]) -> list[str]:
    """Describe all rows that fail for the same reason since the same run in one line each."""
    groups: dict[tuple[str | None, str, str], list[Failing]] = {}
    for one in failing:
        groups.setdefault((one.cause, one.sentence, one.since_run), []).append(one)
    return [_group(group) for group in groups.values()]


def _group(group: Sequence[Failing]) -> str:
    one = group[0]
    names = ", ".join(_cut([each.row for each in group], MAX_NAMES))
    num_runs = max(each.num_runs for each in group)
    since = f" since {day(one.since)} ({one.since_run}, {num_runs} runs)" if num_runs > 1 else ""
    cause = f" [{one.cause}]" if one.cause else ""
    sentence = one.sentence if len(one.sentence) <= MAX_SENTENCE else one.sentence[:MAX_SENTENCE] + " …"
    return f"{names}{cause}{since}: {sentence}"


def _moved(moved: Moved) -> str:
    before, now = value(moved.what, moved.before), value(moved.what, moved.now)
    ratio = f" ({moved.now / moved.before:.2f} times)" if moved.what == "step_s" else ""
    return f"{moved.row}: {KINDS[moved.what]} {before} -> {now}{ratio}"


def _cut(lines: list[str], at_most: int = MAX_ROWS) -> list[str]:
    rest = len(lines) - at_most
    return [*lines[:at_most], f"and {rest} more"] if rest > 0 else lines
