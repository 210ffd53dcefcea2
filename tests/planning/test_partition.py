"""How a matrix is divided over machines: nothing twice, nothing left out, nothing torn apart."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import UsageError
from harness.planning.graph import Graph, case_groups, cost_of
from harness.planning.partition import Shard, divide, part
from harness.session import steps

HEAD = 'name = "m"\nmodel = "fake"\nsteps = 2\ngolden = "off"\n'
VARIANT = '[[variant]]\nengine = "fake"\nulysses = 2\naxis = ["auto", "h", "w"]\n'
MANY = (
    HEAD
    + '[[case]]\nsize = ["96x96", "112x96", "128x128", "144x144", "160x144", "240x176", "320x240"]\nprompt = "x"\n'
    + VARIANT
)
TWINS = HEAD + "".join(
    f'[[case]]\nname = "{name}"\nsize = "128x128"\nprompt = "{prompt}"\n{extra}'
    for name, prompt, extra in [
        ("one", "a", ""),
        ("first", "b", 'sequence = "s"\n'),
        ("alone", "c", ""),
        ("second", "d", 'sequence = "s"\n'),
        ("twin-of-second", "d", ""),
    ]
)


def graph_of(bench: Any, text: str) -> Graph:
    graph: Graph = steps.prepare(bench.matrix_file(text))[1]
    return graph


class TestParse:
    @pytest.mark.parametrize(("text", "index", "of"), [("1/1", 1, 1), ("2/4", 2, 4), ("12/12", 12, 12)])
    def test_what_can_be_read(self, text: str, index: int, of: int) -> None:
        assert Shard.parse(text) == Shard(index, of)
        assert str(Shard.parse(text)) == text

    @pytest.mark.parametrize("text", ["0/4", "5/4", "x/y", "1", "", "1/0", "-1/2", "1/2/3", " 1/2", "1.5/2"])
    def test_what_cannot(self, text: str) -> None:
        with pytest.raises(UsageError) as error:
            Shard.parse(text)
        assert str(error.value) == f"--shard {text!r}: write I/N with I from 1 to N, for example --shard 1/4"


class TestDivide:
    @pytest.mark.parametrize("of", [1, 2, 3, 5, 7, 9])
    def test_every_case_and_every_run_is_in_one_shard(self, bench: Any, of: int) -> None:
        graph = graph_of(bench, MANY)
        shards = [part(graph, cases) for cases in divide(graph, of)]
        assert len(shards) == of
        assert sorted(row.name for shard in shards for row in shard.rows) == sorted(row.name for row in graph.rows)
        digests = [digest for shard in shards for digest in shard.specs]
        assert len(digests) == len(set(digests))
        assert set(digests) == set(graph.specs)

    def test_a_row_finds_all_its_runs_in_its_shard(self, bench: Any) -> None:
        graph = graph_of(bench, MANY)
        for cases in divide(graph, 3):
            shard = part(graph, cases)
            assert all(digest in shard.specs for row in shard.rows for digest in row.runs.values())
            assert list(shard.specs) == [digest for digest in graph.specs if digest in shard.specs]  # in order

    def test_the_cost_is_balanced(self, bench: Any) -> None:
        graph = graph_of(bench, MANY)
        costs = [sum(map(cost_of, part(graph, cases).specs.values())) for cases in divide(graph, 3)]
        largest = max(sum(map(cost_of, group)) for group in case_groups(graph.specs.values()))
        # Whoever ends last got its last group while it had least, hence no more than the mean: Graham's bound.
        assert max(costs) <= sum(costs) / 3 + largest
        assert max(costs) < 1.25 * min(costs)  # what the bound allows would be a shard of nothing

    def test_cases_come_in_the_order_of_the_matrix(self, bench: Any) -> None:
        graph = graph_of(bench, MANY)
        order = list(dict.fromkeys(row.case.name for row in graph.rows))
        assert all(list(cases) == sorted(cases, key=order.index) for cases in divide(graph, 2))

    def test_the_plan_alone_decides(self, bench: Any) -> None:
        assert divide(graph_of(bench, MANY), 3) == divide(graph_of(bench, MANY), 3)

    def test_twins_and_sequences_stay_together(self, bench: Any) -> None:
        graph = graph_of(bench, TWINS + VARIANT)
        together = {"s-1-first", "s-2-second", "twin-of-second"}
        assert [{spec.case.name for spec in group} for group in case_groups(graph.specs.values())] == [
            {"one"},
            together,
            {"alone"},
        ]
        assert sorted(map(set, divide(graph, 3)), key=len, reverse=True)[0] == together

    def test_more_shards_than_cases_leave_some_empty(self, bench: Any) -> None:
        shards = divide(graph_of(bench, TWINS + VARIANT), 5)
        assert [len(cases) for cases in shards] == [3, 1, 1, 0, 0]

    def test_a_case_that_is_skipped_altogether_is_somewhere(self, bench: Any) -> None:
        graph = graph_of(bench, MANY.replace("ulysses = 2", "ulysses = 5"))
        assert not graph.specs
        assert sorted(len(cases) for cases in divide(graph, 3)) == [2, 2, 3]

    def test_the_second_drawing_of_the_cheapest_baseline_is_of_the_whole_matrix(self, bench: Any) -> None:
        """A shard that planned by itself would draw its own cheapest one twice, and judge otherwise than the whole."""
        graph = graph_of(bench, MANY)
        repeats = [sum(spec.repeat for spec in part(graph, cases).specs.values()) for cases in divide(graph, 3)]
        assert sorted(repeats) == [0, 0, 1]
