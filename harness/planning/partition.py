"""Division of a matrix over machines (``--shard I/N``).

Groups of cases (:func:`harness.planning.graph.case_groups`) are divided, so that whatever is compared is drawn on
one machine, and a sequence is served by one engine. The division is a function of the plan: every machine plans
the whole matrix, divides it alike, and takes its own part. Test runners call such a part a shard; it is not a
rank's shard of a picture.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

from harness.errors import UsageError
from harness.planning.graph import Graph, case_groups, cost_of


@dataclass(frozen=True)
class Shard:
    """One of ``of`` parts of a matrix, counted from 1."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``"2/4"``.

        Raises
        ------
        UsageError
            If the text is not I/N with I from 1 to N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard {text!r}: write I/N with I from 1 to N, for example --shard 1/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


@dataclass(frozen=True)
class Merged:
    """Origin of the runs of a merged folder."""

    of: int
    """Shards that the matrix was divided into."""
    runs: tuple[str, ...]
    """Names of the run folders."""


def divide(graph: Graph, of: int) -> tuple[tuple[str, ...], ...]:
    """Assign every case to one of ``of`` shards of about equal cost.

    Greedy: the costliest group goes first, always to the shard of lowest cost so far; ties keep the order of the
    matrix. With more shards than groups of cases some shards stay empty.

    Returns
    -------
    tuple of tuple of str
        Names of each shard's cases, in the order of the matrix.
    """
    groups = _groups(graph)
    costs = [0.0] * of
    cases: list[list[str]] = [[] for _ in range(of)]
    for cost, names in sorted(groups, key=lambda group: -group[0]):
        least = min(range(of), key=lambda shard: (costs[shard], len(cases[shard])))
        costs[least] += cost
        cases[least] += names
    order = {row.case.name: position for position, row in enumerate(graph.rows)}
    return tuple(tuple(sorted(names, key=order.__getitem__)) for names in cases)


def _groups(graph: Graph) -> list[tuple[float, list[str]]]:
    """List cost and case names of each group; a case that is skipped altogether is one of its own, at no cost."""
    runs = case_groups(graph.specs.values())
    groups = [(sum(map(cost_of, specs)), list[str]()) for specs in runs]
    group_of = {spec.digest: index for index, specs in enumerate(runs) for spec in specs}
    drawn: dict[str, int] = {row.case.name: group_of[digest] for row in graph.rows for digest in row.runs.values()}
    for name in dict.fromkeys(row.case.name for row in graph.rows):
        if name in drawn:
            groups[drawn[name]][1].append(name)
        else:
            groups.append((0.0, [name]))
    return groups


def part(graph: Graph, cases: Container[str]) -> Graph:
    """Restrict a graph to the rows of some cases and the runs that serve them."""
    rows = tuple(row for row in graph.rows if row.case.name in cases)
    wanted = {digest for row in rows for digest in row.runs.values()}
    return Graph(rows, {digest: spec for digest, spec in graph.specs.items() if digest in wanted})
