"""What the pages show of a row that was drawn once more with a probe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.planning.cut import cut
from harness.reporters._evidence import MAX_LEDGER_LINES, TOP, evidence_of
from harness.types import BlockError, Case, Explanation, LedgerLine, Outcome, Relation, Row, Size, Variant, Verdict

SIZE = Size(80, 48)  # five columns and three rows of tokens
CASE = Case("80x48", "nano", SIZE, ("x",))
LINE = LedgerLine(1, "layers.0", 0, 0, 15, 15, 0, 0, 17, 17, 32, 32, 0, 0)
BLOCKS = (BlockError(1, "layers.0", 1e-7, 1e-8, 0), BlockError(2, "layers.0", 0.5, 0.1, 1, (0, 0, 16, 16), 2))
INSIDE = Explanation(Relation.EXCHANGE, "r", "c", (LINE,), BLOCKS, 1e-3, (0.5, 1e-6, 0.01, *[0.0] * 12))
VERDICT = Verdict(Outcome.FAIL, "", "exchange", evidence=("one", "two"))


def row_of(inside: Explanation | None = INSIDE, axis: Any = "h") -> Row:
    return Row(CASE, Variant("spatial", 2), plan=cut(SIZE, 2, axis), verdict=VERDICT, explanation=inside)


def test_a_row_without_evidence_shows_nothing() -> None:
    assert evidence_of(replace(row_of(), verdict=None)) is None
    assert evidence_of(replace(row_of(), verdict=Verdict(Outcome.PASS, ""))) is None


def test_without_an_explanation_there_are_lines_alone() -> None:
    found = evidence_of(row_of(None))
    assert found is not None
    assert (found.lines, found.growth, found.token_map, found.ledger) == (("one", "two"), None, None, ())


def test_bars_grow_with_the_error_and_say_who_is_beyond() -> None:
    found = evidence_of(row_of())
    assert found is not None
    assert found.growth is not None
    small, large = found.growth.bars
    assert (small.beyond, large.beyond) == (False, True)
    assert small.y > found.growth.tolerance_y > large.y >= TOP
    assert [mark.text for mark in found.growth.steps] == ["step 1", "step 2"]
    assert large.text == "step 2, layers.0: 0.5, worst on rank 1"


def test_what_is_not_finite_reaches_the_top() -> None:
    blocks = (replace(BLOCKS[0], error=None, median=None),)
    found = evidence_of(row_of(replace(INSIDE, blocks=blocks, token_errors=(None, *[0.0] * 14))))
    assert found is not None
    assert found.growth is not None
    assert found.growth.bars[0].y == TOP
    assert found.token_map is not None
    assert [(cell.x, cell.y, cell.shade) for cell in found.token_map.cells] == [(0, 0, 1.0)]


@pytest.mark.parametrize(("axis", "border"), [("h", (0, 2, 5, 2)), ("w", (3, 0, 3, 3))])
def test_the_map_holds_tokens_beyond_the_tolerance_and_the_borders(axis: str, border: tuple[int, ...]) -> None:
    found = evidence_of(row_of(axis=axis))
    assert found is not None
    assert found.map_title == "step 2, layers.0"
    assert found.token_map is not None
    assert [(cell.x, cell.y) for cell in found.token_map.cells] == [(0, 0), (2, 0)]
    assert found.token_map.cells[0].shade > found.token_map.cells[1].shade
    assert found.token_map.borders == (border,)


def test_a_long_ledger_is_cut_and_says_so() -> None:
    found = evidence_of(row_of(replace(INSIDE, ledger=(LINE,) * (MAX_LEDGER_LINES + 3))))
    assert found is not None
    assert (len(found.ledger), found.ledger_left_out) == (MAX_LEDGER_LINES, 3)
