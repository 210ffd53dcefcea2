"""The matrices of this repository: sound, and together every class of shapes there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.planning.graph import Graph
from harness.session import steps
from harness.types import Matrix, Row, ShardPlan

MATRICES = Path(__file__).resolve().parents[2] / "matrices"
REPORT_SIZES = {"720x1280", "1280x720", "720x720", "1024x1024"}
Planned = tuple[Matrix, Graph]


@pytest.fixture(scope="module")
def pr() -> Planned:
    return steps.prepare(MATRICES / "pr.toml")


@pytest.fixture(scope="module")
def plans(pr: Planned) -> list[ShardPlan]:
    return [row.plan for row in pr[1].rows if row.plan]


def rows_of(planned: Planned, **wanted: Any) -> list[Row]:
    rows = planned[1].rows
    return [row for row in rows if all(getattr(row.variant, key) == value for key, value in wanted.items())]


@pytest.mark.parametrize("path", sorted(MATRICES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_matrix_is_sound(path: Path) -> None:
    matrix, graph = steps.prepare(path)
    assert matrix.name == path.stem
    assert graph.rows
    assert [row.name for row in graph.rows if row.skip and row.variant.required] == []


def test_smoke_has_a_size_with_surplus_pads_and_one_without() -> None:
    _, graph = steps.prepare(MATRICES / "smoke.toml")
    assert {row.plan is not None and row.plan.surplus_pad_tokens > 0 for row in graph.rows} == {True, False}
    assert {row.variant.axis for row in graph.rows} == {"auto", "h", "w"}


class TestPullRequests:
    def test_nano_on_a_cpu_held_to_goldens(self, pr: Planned) -> None:
        for case in pr[0].cases:
            assert (case.model, case.device, case.dtype) == ("nano", "cpu", "float32")
            held = case.sequence is None and case.name != "cached"  # goldens are of single, uncached pictures
            assert case.golden == ("required" if held else "off")

    def test_the_sizes_of_the_original_report_at_full_size(self, pr: Planned) -> None:
        assert {str(case.size) for case in pr[0].cases} >= REPORT_SIZES

    def test_portrait_landscape_and_square(self, pr: Planned) -> None:
        sides = [(case.size.width_px, case.size.height_px) for case in pr[0].cases]
        for small in (False, True):
            some = [(w, h) for w, h in sides if (w * h < 512 * 512) is small]
            assert {(w > h) - (w < h) for w, h in some} == {-1, 0, 1}

    def test_two_ranks_and_three_each_on_every_axis(self, pr: Planned) -> None:
        for ulysses in (2, 3):
            for axis in ("auto", "h", "w"):
                assert rows_of(pr, engine="spatial", ulysses=ulysses, axis=axis)
        names = {case.name for case in pr[0].cases} - {"cached"}
        for axis in ("auto", "h", "w"):
            assert {row.case.name for row in rows_of(pr, ulysses=2, axis=axis, cache="none")} == names

    def test_every_case_has_every_axis(self, pr: Planned) -> None:
        met: dict[tuple[str, int], set[str]] = {}
        for row in pr[1].rows:
            if (row.variant.layout, row.variant.ring, row.variant.cache) == ("aligned", 1, "none"):
                met.setdefault((row.case.name, row.variant.ulysses), set()).add(row.variant.axis)
        assert all(axes == {"auto", "h", "w"} for axes in met.values())

    def test_every_feature_has_its_cheapest_case(self, pr: Planned) -> None:
        rows = pr[1].rows
        assert any(row.case.guidance_scale and row.variant.ulysses > 1 for row in rows)
        assert any(len(row.case.prompts) > 1 and row.variant.ring > 1 for row in rows)
        assert any(row.variant.layout == "exact" and row.case.size.tokens > 3000 for row in rows)
        assert any(row.variant.cache == "cache-dit" for row in rows)
        sequence = [str(case.size) for case in pr[0].cases if case.sequence]
        assert sequence[0] == sequence[-1] != sequence[1]

    @pytest.mark.parametrize(
        ("rule", "axes"),
        [("lower cost", {"h", "w"}), ("tie in cost, more tokens", {"h", "w"}), ("tie in cost and tokens", {"h"})],
    )
    def test_an_axis_is_won_by_every_rule(self, pr: Planned, rule: str, axes: set[str]) -> None:
        choices = [row.choice for row in rows_of(pr, axis="auto") if row.choice]
        assert {choice.chosen_axis for choice in choices if choice.rule.startswith(rule)} == axes

    @pytest.mark.parametrize("axis", ["h", "w"])
    @pytest.mark.parametrize("num_ranks", [2, 3])
    @pytest.mark.parametrize("even", [True, False])
    def test_shards_even_and_uneven(self, plans: list[ShardPlan], axis: str, num_ranks: int, even: bool) -> None:
        shards = [plan.shard_tokens for plan in plans if plan.axis == axis and len(plan.shard_tokens) == num_ranks]
        assert any((len(set(shard)) == 1) is even for shard in shards)

    @pytest.mark.parametrize("num_ranks", [2, 3])
    def test_pads(self, plans: list[ShardPlan], num_ranks: int) -> None:
        some = [plan for plan in plans if len(plan.shard_tokens) == num_ranks]
        assert any(plan.pad_tokens > 0 and plan.surplus_pad_tokens == 0 for plan in some)
        assert any(plan.surplus_pad_tokens > 0 for plan in some)
        assert num_ranks == 3 or any(plan.pad_tokens == 0 for plan in some)

    def test_captions_at_and_off_a_multiple_of_32(self, pr: Planned) -> None:
        from transformers import AutoTokenizer

        model_path = next(iter(pr[1].specs.values())).model_path
        tokenizer = AutoTokenizer.from_pretrained(Path(model_path) / "tokenizer")

        def caption_tokens(prompt: str) -> int:
            chat = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=True)
            return len(tokenizer(text).input_ids)

        lengths = {case.name: caption_tokens(case.prompts[0]) for case in pr[0].cases}
        assert lengths["caption-32"] == 32
        assert any(length % 32 for length in lengths.values())
        assert len({length // 32 for length in lengths.values() if length % 32}) > 1, "one bucket of 32 tokens alone"


def test_the_night_draws_the_sizes_of_the_report_and_many_others_full_size() -> None:
    matrix, graph = steps.prepare(MATRICES / "nightly.toml")
    assert {case.model for case in matrix.cases} == {"z-image-random"}
    assert {case.device for case in matrix.cases} == {"cuda"}
    assert {str(case.size) for case in matrix.cases if case.steps == 8} == REPORT_SIZES
    lane = [case for case in matrix.cases if case.dtype == "float32"]
    assert {case.dtype for case in matrix.cases} == {"bfloat16", "float32"}
    assert {case.steps for case in lane} == {2}
    assert {row.plan.axis for row in graph.rows if row.case in lane and row.plan} == {"h", "w"}
    sizes = {str(case.size) for case in matrix.cases}
    assert sizes >= REPORT_SIZES
    assert len(sizes - REPORT_SIZES) >= 8
    assert max(max(case.size.width_px, case.size.height_px) for case in matrix.cases) == 2048
    # Two GPUs are what the job is given.
    assert max(spec.world_size for spec in graph.specs.values()) == 2


@pytest.mark.parametrize(
    ("gpus", "grids"),
    [
        (4, {(3, 1), (2, 2), (1, 3), (1, 4)}),
        (8, {(5, 1), (6, 1), (2, 2), (3, 2), (2, 3), (2, 4), (1, 5), (1, 8)}),
    ],
)
def test_nights_on_more_gpus_cut_unevenly_at_every_degree(gpus: int, grids: set[tuple[int, int]]) -> None:
    matrix, graph = steps.prepare(MATRICES / f"nightly-{gpus}gpu.toml")
    assert {(row.variant.ulysses, row.variant.ring) for row in graph.rows} == grids
    assert {case.dtype for case in matrix.cases} == {"bfloat16", "float32"}
    assert max(spec.world_size for spec in graph.specs.values()) == gpus
    plans = [row.plan for row in graph.rows if row.plan and str(row.case.size) in ("752x1168", "1072x1072")]
    assert all(len(set(plan.shard_tokens)) > 1 for plan in plans)


def test_goldens_of_the_night_lie_outside_the_checkout() -> None:
    """A runner empties it before every night."""
    store = Path(steps.prepare(MATRICES / "nightly.toml")[0].golden_store)
    assert not store.resolve().is_relative_to(MATRICES.parent)
