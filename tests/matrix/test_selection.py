"""Rows chosen out of a matrix."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import UsageError
from harness.matrix.loader import read_matrix
from harness.matrix.selection import Selection, narrowed, select


class TestSelection:
    def chosen(self, bench: Any, **wanted: Any) -> set[str]:
        text = bench.matrix_file().read_text() + '[[variant]]\nengine = "spatial"\nulysses = 3\n'
        matrix = select(read_matrix(bench.matrix_file(text)), Selection(**wanted))
        return {f"{case}/{variant}" for case, variant in matrix.pairs}

    def test_everything_by_default(self, bench: Any) -> None:
        assert len(self.chosen(bench)) == 8

    @pytest.mark.parametrize(
        ("wanted", "count"),
        [
            ({"cases": ["144x144"]}, 4),
            ({"cases": ["1?8x*"]}, 4),
            ({"cases": ["144x144", "128x128"]}, 8),
            ({"sizes": ["128x128"]}, 4),
            ({"axes": ["h"]}, 2),
            ({"axes": ["h", "w"]}, 4),
            ({"engines": ["spatial"]}, 2),
            ({"engines": ["fake"], "axes": ["auto"], "sizes": ["144x144"]}, 1),
        ],
    )
    def test_every_filter_narrows(self, bench: Any, wanted: dict[str, Any], count: int) -> None:
        assert len(self.chosen(bench, **wanted)) == count

    def test_what_is_left_out_is_gone_from_the_matrix(self, bench: Any) -> None:
        matrix = select(read_matrix(bench.matrix_file()), Selection(cases=["144*"], axes=["w"]))
        assert [case.name for case in matrix.cases] == ["144x144"]
        assert [variant.label for variant in matrix.variants] == ["fake-u2-w"]
        assert matrix.pairs == (("144x144", "fake-u2-w"),)

    @pytest.mark.parametrize(
        "wanted", [{"cases": ["nope"]}, {"sizes": ["16x16"]}, {"axes": ["none"]}, {"engines": ["diffusers"]}]
    )
    def test_nothing_left_is_a_mistake_that_says_what_there_is(self, bench: Any, wanted: dict[str, Any]) -> None:
        path = bench.matrix_file()
        with pytest.raises(UsageError) as error:
            select(read_matrix(path), Selection(**wanted))
        assert "no row is selected; its cases are 128x128, 144x144" in str(error.value)
        assert str(path) in str(error.value)

    def test_selecting_twice_is_selecting_once(self, bench: Any) -> None:
        selection = Selection(axes=["h"])
        matrix = select(read_matrix(bench.matrix_file()), selection)
        assert select(matrix, selection) == matrix


def test_a_narrowed_matrix_has_what_its_rows_need(bench: Any) -> None:
    text = bench.matrix_file().read_text().replace('["128x128", ', '["96x96", "128x128", ')
    matrix = read_matrix(bench.matrix_file(text))
    kept = narrowed(matrix, [("144x144", "fake-u2-w"), ("96x96", "fake-u2-w")])
    assert [case.name for case in kept.cases] == ["96x96", "144x144"]
    assert [variant.label for variant in kept.variants] == ["fake-u2-w"]
    assert kept.name == matrix.name
