"""Entries as they are compared: the shards of one run count once, and a run that left no report is known as such."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from harness.history.entry import Entry

SHARD = re.compile(r"-(?P<index>\d+)of(?P<of>\d+)-\d{8}-\d{6}(-\d+)?$")
"""End of the name of a run folder that holds a shard."""
MERGED = re.compile(r"-merged-\d{8}-\d{6}(-\d+)?$")
APART = timedelta(hours=12)
"""Shards of one run start within this time on their machines, and are merged within it."""
SEVERITY = (70, 2, 1, 130, 3, 0)
"""Exit codes, the one that counts first."""


def comparable(entries: Sequence[Entry]) -> list[Entry]:
    """Prepare the entries of one matrix for comparing, in the order of their start.

    Parameters
    ----------
    entries
        Entries of one matrix, ordered by start.

    Returns
    -------
    list of Entry
        Shards that start together as one entry, or none where they were merged; entries without a report in the
        environment of the run before.
    """
    return _with_environments(_joined(entries))


def _joined(entries: Sequence[Entry]) -> list[Entry]:
    groups: list[list[Entry]] = []
    for entry in entries:
        shard = SHARD.search(entry.run)
        group = next((g for g in reversed(groups) if shard and _belongs(entry, shard, g)), None)
        if group is None:
            groups.append([entry])
        else:
            group.append(entry)
    whole = [group[0] for group in groups if MERGED.search(group[0].run)]
    left = [group for group in groups if not (SHARD.search(group[0].run) and _is_merged(group, whole))]
    return [_one(group) for group in left]


def _belongs(entry: Entry, shard: re.Match[str], group: Sequence[Entry]) -> bool:
    """Whether a shard is of the same run as those of a group: as many parts, none of them twice, and soon after."""
    others = [SHARD.search(other.run) for other in group]
    if not all(other and other["of"] == shard["of"] and other["index"] != shard["index"] for other in others):
        return False
    return _near(group[0], entry)


def _near(first: Entry, second: Entry) -> bool:
    try:
        times = [datetime.fromisoformat(entry.started_at) for entry in (first, second)]
        return abs(times[1] - times[0]) <= APART
    except (ValueError, TypeError):  # no times, or one with a zone and one without
        return False


def _is_merged(group: Sequence[Entry], merged: Iterable[Entry]) -> bool:
    rows = {name for entry in group for name in entry.rows}
    return any(_near(group[0], one) and rows <= one.rows.keys() for one in merged)


def _one(group: Sequence[Entry]) -> Entry:
    """Make one entry of the shards of a run; it is complete where all are there and complete."""
    first = group[0]
    shard = SHARD.search(first.run)
    if shard is None:
        return first
    codes = [entry.exit_code for entry in group]
    there = len(group) == int(shard["of"]) and all(entry.complete for entry in group)
    return replace(
        first,
        run=f"{first.run[: shard.start()]} ({len(group)} of {shard['of']} shards)",
        exit_code=min(codes, key=lambda code: SEVERITY.index(code) if code in SEVERITY else 0),
        complete=there,
        wall_s=max(entry.wall_s for entry in group),
        environment=_environment(group),
        rows={name: row for entry in group for name, row in entry.rows.items()},
    )


def _environment(group: Sequence[Entry]) -> dict[str, str]:
    """Unite the environments of shards, each value once."""
    names = dict.fromkeys(name for entry in group for name in entry.environment)
    found = {name: dict.fromkeys(e.environment[name] for e in group if name in e.environment) for name in names}
    return {name: " and ".join(sorted(values)) for name, values in found.items()}


def _with_environments(entries: Sequence[Entry]) -> list[Entry]:
    """Give entries without a report the environment of the run before, as they say nothing of a change."""
    found: list[Entry] = []
    known = next((entry.environment for entry in entries if entry.environment), {})
    for entry in entries:
        known = entry.environment or known
        found.append(entry if entry.environment else replace(entry, environment=known))
    return found
