"""The run graph: what is computed once, what is skipped, and what makes a run another run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness import plugins
from harness.engines.spatial import SpatialEngine
from harness.errors import ConfigError
from harness.planning.cut import choose_axis, cut
from harness.planning.graph import Graph, build
from harness.session import steps
from harness.types import Case, Matrix, ModelSpec, OwnArithmetic, Pads, Row, Size, Variant

FAKE = ModelSpec("fake", "", "weights", 6)
NANO = ModelSpec("nano", "models/nano", "weights", 6)
CASE = Case("144x144", "fake", Size(144, 144), ("a ball",))
PLAIN = Case("128x128", "fake", Size(128, 128), ("a ball",))
AXES: tuple[Any, ...] = ("auto", "h", "w")


def graph_of(cases: list[Case], variants: list[Variant], model: ModelSpec = FAKE) -> Graph:
    pairs = tuple((case.name, variant.label) for case in cases for variant in variants)
    return build(Matrix("m", "m.toml", "golden", tuple(cases), tuple(variants), pairs), lambda case: model)


def split(axis: Any = "auto", **more: Any) -> Variant:
    return Variant("fake", **{"ulysses": 2, "axis": axis, **more})


def by_axis(graph: Graph) -> dict[str, Row]:
    return {row.variant.axis: row for row in graph.rows}


def only(graph: Graph) -> Row:
    (row,) = graph.rows
    return row


class TestSharing:
    def test_a_baseline_and_a_control_serve_all_variants_of_a_case(self) -> None:
        graph = graph_of([CASE], [split(axis) for axis in AXES])
        for role in ("baseline", "control"):
            assert len({row.runs[role] for row in graph.rows}) == 1
        assert len({row.runs["candidate"] for row in graph.rows}) == 2

    def test_cases_share_nothing(self) -> None:
        first, second = graph_of([CASE, PLAIN], [split()]).rows
        assert not set(first.runs.values()) & set(second.runs.values())

    @pytest.mark.parametrize("size", ["720x1280", "1280x720", "720x720", "128x128", "240x176"])
    def test_auto_uses_the_run_of_the_axis_it_chose(self, size: str) -> None:
        case = replace(CASE, name=size, size=Size.parse(size))
        chosen: Any = choose_axis(case.size, 2).chosen_axis
        other = "w" if chosen == "h" else "h"
        rows = by_axis(graph_of([case], [split(axis) for axis in AXES]))
        assert rows["auto"].plan == rows[chosen].plan == cut(case.size, 2, chosen)
        assert rows["auto"].runs == rows[chosen].runs
        assert rows["auto"].shares_with is None
        assert rows[chosen].shares_with == "fake-u2-auto"
        assert rows[other].shares_with is None
        assert rows[other].runs["candidate"] != rows["auto"].runs["candidate"]

    def test_replays_with_equal_totals_are_one_run(self) -> None:
        rows = by_axis(graph_of([CASE], [split("h"), split("w")]))
        assert rows["h"].plan != rows["w"].plan
        assert rows["h"].runs["replay"] == rows["w"].runs["replay"]
        tall = replace(CASE, size=Size(720, 1280))  # 48 pads on h, 112 on w
        rows = by_axis(graph_of([tall], [split("h"), split("w")]))
        assert rows["h"].runs["replay"] != rows["w"].runs["replay"]

    def test_a_replay_is_the_baseline_told_to_pad(self) -> None:
        graph = graph_of([CASE], [split("h")])
        row = only(graph)
        baseline, replay = (graph.specs[row.runs[role]] for role in ("baseline", "replay"))
        assert replay == replace(baseline, image_pad_tokens=47)
        assert baseline.image_pad_tokens is None

    def test_without_surplus_pads_the_baseline_is_the_replay(self) -> None:
        for case in (PLAIN, replace(CASE, size=Size(80, 144))):  # no pads at all; 19 pads, as on one device
            row = only(graph_of([case], [split("h")]))
            assert row.plan is not None
            assert row.plan.surplus_pad_tokens == 0
            assert row.runs["replay"] == row.runs["baseline"]

    def test_the_engine_of_the_baseline_on_one_device_is_the_baseline(self) -> None:
        row = only(graph_of([CASE], [Variant("diffusers")], NANO))
        assert len({row.runs[role] for role in ("baseline", "replay", "control", "candidate")}) == 1


ALL = {"baseline", "replay", "control", "candidate", "reordered", "repeat"}


class TestSpecs:
    def test_a_candidate_is_split_and_its_control_is_not(self) -> None:
        graph = graph_of([CASE], [split("w")])
        row = only(graph)
        candidate, control = (graph.specs[row.runs[role]] for role in ("candidate", "control"))
        assert (candidate.world_size, control.world_size) == (2, 1)
        assert candidate.plan == cut(CASE.size, 2, "w")
        assert control.plan == cut(CASE.size, 1, "h")

    def test_a_control_has_the_fault_and_the_options_of_its_candidate(self) -> None:
        graph = graph_of([CASE], [split("h", fault="seam", options={"step_s": 0})])
        row = only(graph)
        for role in ("candidate", "control"):
            spec = graph.specs[row.runs[role]]
            assert (spec.fault, spec.options) == ("seam", {"step_s": 0})
        assert graph.specs[row.runs["baseline"]].fault is None

    def test_another_engine_has_another_baseline_than_itself(self) -> None:
        case = replace(CASE, model="nano")
        graph = graph_of([case], [Variant("spatial", 2, axis="h")], NANO)
        engines = {role: graph.specs[digest].engine for role, digest in only(graph).runs.items()}
        assert engines == {
            "baseline": "diffusers",
            "replay": "diffusers",
            "control": "spatial",
            "candidate": "spatial",
            "reordered": "diffusers",
            "repeat": "diffusers",
        }

    def test_the_floor_is_the_baseline_reordered_and_the_cheapest_case_is_repeated(self) -> None:
        larger = replace(CASE, name="larger", size=Size(256, 256))
        graph = graph_of([larger, CASE], [split("h"), split("w")])
        for row in graph.rows:
            reordered, baseline = (graph.specs[row.runs[role]] for role in ("reordered", "baseline"))
            assert reordered == replace(baseline, token_order="reversed")
            assert ("repeat" in row.runs) == (row.case == CASE)
            if row.case == CASE:
                assert graph.specs[row.runs["repeat"]] == replace(baseline, repeat=1)

    @pytest.mark.parametrize(
        ("case", "variant", "model", "changed"),
        [
            ({"seed": 1}, {}, {}, ALL),
            ({"prompts": ("a cube",)}, {}, {}, ALL),
            ({"steps": 5}, {}, {}, ALL),
            ({}, {}, {"weights": "other"}, ALL),
            ({}, {"fault": "seam"}, {}, {"control", "candidate"}),
            ({}, {"options": {"step_s": 1}}, {}, {"control", "candidate"}),
            ({}, {"ulysses": 3}, {}, {"replay", "candidate"}),
            ({"name": "other"}, {}, {}, set()),
            ({"timeout_s": 1.0}, {}, {}, set()),
            ({"golden": "off"}, {}, {}, set()),
            ({}, {"required": False}, {}, set()),
            ({}, {}, {"path": "/elsewhere"}, set()),
        ],
    )
    def test_which_runs_a_change_makes_new(
        self, case: dict[str, Any], variant: dict[str, Any], model: dict[str, Any], changed: set[str]
    ) -> None:
        before = only(graph_of([CASE], [split("h")])).runs
        after = only(graph_of([replace(CASE, **case)], [replace(split("h"), **variant)], replace(FAKE, **model))).runs
        assert {role for role in before if before[role] != after[role]} == changed


class TestMissing:
    def test_a_run_is_listed_once_and_only_if_a_row_needs_it(self) -> None:
        graph = graph_of([CASE, PLAIN], [split(axis) for axis in AXES])
        digests = [spec.digest for spec in graph.missing(())]
        assert sorted(digests) == sorted(graph.specs)
        row = graph.rows[0]
        assert {spec.digest for spec in graph.missing((), [row])} == set(row.runs.values())
        settled = {row.runs["baseline"]}
        assert {spec.digest for spec in graph.missing(settled, [row])} == set(row.runs.values()) - settled
        assert graph.missing(set(graph.specs)) == []

    def test_skipped_rows_need_nothing(self) -> None:
        graph = graph_of([CASE], [split(ulysses=4)])
        assert graph.missing(()) == []


class TestSkips:
    def test_an_axis_with_fewer_tokens_than_ranks(self) -> None:
        flat = replace(CASE, size=Size(144, 16))
        rows = by_axis(graph_of([flat], [split(axis) for axis in AXES]))
        assert rows["h"].skip == "no cut: axis h: 1 rows of tokens over 2 ranks leave rank 1 empty"
        assert rows["h"].runs == {}
        assert rows["auto"].skip is None
        assert rows["auto"].plan == cut(flat.size, 2, "w")

    def test_both_axes_infeasible(self) -> None:
        row = only(graph_of([replace(CASE, size=Size(16, 16))], [split()]))
        assert str(row.skip).startswith("no cut: neither axis is feasible: 1 rows")
        assert "1 columns of tokens over 2 ranks leave rank 1 empty" in str(row.skip)

    @pytest.mark.parametrize("engine", ["fake", "spatial"])
    def test_a_degree_that_does_not_divide_the_heads(self, engine: str) -> None:
        model = FAKE if engine == "fake" else NANO
        row = only(graph_of([CASE], [Variant(engine, 4)], model))
        assert row.skip == f"Ulysses degree 4 does not divide the 6 heads of {model.name}"

    def test_a_model_the_engine_does_not_draw(self) -> None:
        assert "draws the model 'fake', not 'nano'" in str(only(graph_of([CASE], [split()], NANO)).skip)

    def test_other_rows_are_planned_all_the_same(self) -> None:
        graph = graph_of([CASE], [split(ulysses=4), split()])
        assert [row.skip is None for row in graph.rows] == [False, True]
        assert graph.rows[1].runs


def spatial(**options: Any) -> Variant:
    return Variant("spatial", 2, options=options)


def test_a_size_beyond_the_positions_of_a_model_is_skipped_at_once() -> None:
    model = ModelSpec("nano", "models/nano", "weights", 6, most_tokens=(512, 256))
    sizes = {size: Case(size, "nano", Size.parse(size), ("p",)) for size in ("4096x8192", "4112x128", "128x8208")}
    rows = graph_of(list(sizes.values()), [Variant("spatial", 2, axis="h")], model).rows
    assert [(row.skip, bool(row.runs)) for row in rows] == [
        (None, True),
        ("nano has rotary positions for pictures of at most 4096 pixels wide, and 4112x128 is 4112", False),
        ("nano has rotary positions for pictures of at most 8192 pixels high, and 128x8208 is 8208", False),
    ]


class TestWhatAnEngineDoesNotHave:
    @pytest.mark.parametrize(
        ("variant", "says"),
        [
            (Variant("fake", 2, axis="none"), "fake has no axis 'none'; known: auto, h, w"),
            (Variant("diffusers", axis="h"), "diffusers has no axis 'h'; known: none"),
            (split(fault="sem"), "fake has no fault 'sem'; did you mean 'seam'?"),
            (Variant("diffusers", fault="seam"), "diffusers has no fault 'seam'; known: none"),
            (split(options={"step": 1}), "fake has no option 'step'; did you mean 'step_s'?"),
            (Variant("spatial", 2, fault="gather-swaped"), "did you mean 'gather-swapped'?"),
            (split(cache="cache-dit"), "fake has no cache 'cache-dit'; known: none"),
            (Variant("diffusers", layout="exact"), "diffusers has no layout 'exact'; known: aligned"),
            (spatial(exchange="fuesd"), "spatial takes no exchange = 'fuesd'; did you mean 'fused'?"),
            (spatial(keys=True), "spatial takes no keys = True; known: forward, reversed, twice"),
            (spatial(threads=0), "spatial takes no threads = 0; write an integer at least 1"),
            (spatial(threads=1.5), "spatial takes no threads = 1.5; write an integer at least 1"),
            (spatial(cache_threshold=1), "takes no cache_threshold = 1; write a number above 0 and below 1"),
            (spatial(cache_mask="0111"), "1 to compute it and 0 to serve it from the cache, the first a 1"),
            (spatial(cache_mask=1111), "1 to compute it and 0 to serve it from the cache, the first a 1"),
            (spatial(cache_mask="1" * 5000), "1 to compute it and 0 to serve it from the cache, the first a 1"),
            (spatial(cache_mask="1001"), 'has no effect without a cache; add cache = "cache-dit", or remove it'),
            (spatial(cache_threshold=0.5), 'has no effect without a cache; add cache = "cache-dit", or remove it'),
            (
                replace(spatial(cache_mask="1001", cache_threshold=0.5), cache="cache-dit"),
                "cache_threshold has no effect beside cache_mask; remove one of them",
            ),
            (
                split(options={"step_s": "slow"}),
                "fake takes no step_s = 'slow'; write a number at least 0 and at most 3600",
            ),
            (
                split(options={"step_s": True}),
                "fake takes no step_s = True; write a number at least 0 and at most 3600",
            ),
        ],
        ids=lambda value: value.label if isinstance(value, Variant) else "",
    )
    def test_is_a_mistake_in_the_file(self, variant: Variant, says: str) -> None:
        with pytest.raises(ConfigError) as error:
            graph_of([CASE], [variant])
        assert str(error.value).startswith(f"m.toml: variant {variant.label!r}: ")
        assert str(error.value).endswith(says)
        assert len(str(error.value).splitlines()) == 1

    @pytest.mark.parametrize("name", plugins.names("engines"))
    def test_no_option_of_any_engine_takes_what_it_does_not_declare(self, name: str) -> None:
        engine = plugins.load("engines", name)
        nasty = ("", "fuesd", "<b>", "\0", "9" * 5000, -1, 0, 7, 10**30, -0.5, 1.5, 1e308, True)
        for option, declared in engine.options.items():
            cache = "cache-dit" if option.startswith("cache_") else "none"
            for value in nasty:
                variant = Variant(name, axis=engine.axes[0], cache=cache, options={option: value})
                if declared.problem(value) is None:
                    graph_of([CASE], [variant])
                    continue
                with pytest.raises(ConfigError, match=rf"{name} takes no {option} = "):
                    graph_of([CASE], [variant])

    def test_an_unknown_model_names_the_file(self, bench: Any) -> None:
        path = bench.matrix_file('model = "nanno"\n[[case]]\nsize="16x16"\nprompt=""\n[[variant]]\nengine="fake"\n')
        with pytest.raises(
            ConfigError, match=r"bench\.toml: model: model 'nanno' is neither .* did you mean 'nano'\?$"
        ):
            steps.prepare(path)


class TestDeclaredPads:
    @pytest.fixture
    def flat(self, monkeypatch: pytest.MonkeyPatch) -> type[SpatialEngine]:
        """An engine that cuts the flat sequence and pads 144x144 with 47 tokens instead of 15."""
        monkeypatch.setattr(SpatialEngine, "axes", ("none",))
        monkeypatch.setattr(SpatialEngine, "image_pads", classmethod(lambda cls, case, variant, model: 47))
        return SpatialEngine

    def row(self, **variant: Any) -> tuple[Row, Graph]:
        graph = graph_of([replace(CASE, model="nano")], [Variant("spatial", 2, axis="none", **variant)], NANO)
        return only(graph), graph

    def test_the_replay_has_them(self, flat: type[SpatialEngine]) -> None:
        row, graph = self.row()
        assert (row.pads, row.surplus_pads, row.plan) == (Pads(47, 15), 32, None)
        assert graph.specs[row.runs["replay"]].image_pad_tokens == 47
        assert "padded" not in row.runs

    def test_as_many_as_one_device_need_no_replay_and_unknown_ones_are_none(
        self, flat: type[SpatialEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for declared, surplus in ((15, 0), (None, None)):
            monkeypatch.setattr(flat, "image_pads", classmethod(lambda cls, *of, found=declared: found))
            row, _ = self.row()
            assert row.surplus_pads == surplus
            assert row.runs["replay"] == row.runs["baseline"]

    def test_fewer_than_one_device_cannot_be_replayed(
        self, flat: type[SpatialEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flat, "image_pads", classmethod(lambda cls, *of: 14))
        row, _ = self.row()
        assert row.skip == "spatial adds 14 image pads, one device 15: a replay cannot leave pads out"

    def test_a_control_is_told_them_where_its_arithmetic_is_its_own(
        self, flat: type[SpatialEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flat, "own_arithmetic", True)
        assert "padded" not in self.row()[0].runs
        monkeypatch.setattr(flat, "takes_image_pads", True)
        monkeypatch.setattr(flat, "control_db", {"bfloat16": 40.0})
        row, graph = self.row()
        padded, control = (graph.specs[row.runs[role]] for role in ("padded", "control"))
        assert padded == replace(control, image_pad_tokens=47)
        assert row.own == OwnArithmetic(None)  # in float32 there is no bound
