"""Dataclasses to JSON and back, and files that are not what they should be."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.codec import decode, encode, read_json, write_json
from harness.errors import FileError
from harness.planning.cut import choose_axis, cut
from harness.types import (
    SCHEMA,
    BlockError,
    Bound,
    Case,
    Comparison,
    Displaced,
    Explanation,
    Failure,
    FailureKind,
    Figure,
    Judgement,
    LedgerLine,
    Matrix,
    Outcome,
    Relation,
    Report,
    Row,
    Run,
    RunSpec,
    ShardPlan,
    Size,
    Times,
    Variant,
    Verdict,
)

CASE = Case("x", "fake", Size(64, 48), ("a", "b"), negative_prompts=("c", "d"), guidance_scale=2.5)
PLAN = cut(CASE.size, 2, "h")
SPEC = RunSpec(CASE, "fake", "", "w", "s", 2, options={"step_s": 0.5, "flag": True}, plan=PLAN, image_pad_tokens=4)
BOUND = Bound("psnr", "latents", 30.0, "dB", "declared")
MATRIX = Matrix(
    "m",
    "m.toml",
    "golden",
    (CASE,),
    (Variant("fake", 2, options={"a": "b"}),),
    (("x", "fake-u2-auto-a=b"),),
    ("psnr",),
    ((Relation.PAIR, BOUND),),
)
EXPLAINED = Row(
    CASE,
    MATRIX.variants[0],
    choose_axis(CASE.size, 2),
    PLAN,
    runs={"candidate": SPEC.digest},
    comparisons=(
        Comparison(
            Relation.PAIR,
            "a",
            "b",
            exact_image=False,
            figures=(Figure("psnr", "x", "latents", 9.0, "dB", (0, 0, 8, 8)),),
        ),
    ),
    verdict=Verdict(Outcome.FAIL, "broken", "split", judgements=(Judgement(Relation.PAIR, False, "no", BOUND, 9.0),)),
    explanation=Explanation(
        Relation.PAIR,
        "a",
        "b",
        ledger=(LedgerLine(1, "layers.0", 0, 0, 12, 12, 0, 0, 20, 20, 3, 3, 0, 0),),
        blocks=(BlockError(1, "layers.0", None, 0.5, 1, (0, 0, 16, 16), 1),),
        token_errors=(0.5, None),
        redrawn_db={"candidate": None},
        displaced=(Displaced(1, 0, 16),),
    ),
)


def through_json(kind: type, value: Any) -> Any:
    return decode(kind, json.loads(json.dumps(encode(value), allow_nan=False)))


@pytest.mark.parametrize(
    "value",
    [
        Run(SPEC, "ok", ("image-0.png",), "l.safetensors", times=Times(0.1, (0.2, 0.3)), versions={"python": "3.11.9"}),
        Run(SPEC, "error", failure=Failure(FailureKind.OUT_OF_MEMORY, "no room", None, "stack")),
        MATRIX,
        Report("r", MATRIX, (EXPLAINED,), {SPEC.digest: Run(SPEC, "ok")}, "cpu-float32", "off", True, 1, "now", 2.5),
    ],
    ids=["drawn", "failed", "matrix", "report"],
)
def test_there_and_back(value: Any) -> None:
    assert through_json(type(value), value) == value


@settings(max_examples=30)
@given(st.text(max_size=50), st.text(alphabet='\x00\x1b\r\n\u2028"\\/<&\U0001f98a'))
def test_any_text_survives(first: str, second: str) -> None:
    case = replace(CASE, prompts=(first, second))
    assert through_json(Case, case) == case


def test_a_digest_survives_the_journey() -> None:
    assert through_json(RunSpec, SPEC).digest == SPEC.digest


@dataclass
class Numbers:
    values: tuple[float | None, ...]
    where: Path = Path("a/b")
    more: dict[str, float] = field(default_factory=dict)


def test_no_infinity_and_no_nan() -> None:
    numbers = Numbers((1.0, math.inf, -math.inf, math.nan), more={"x": math.inf})
    assert encode(numbers) == {"values": [1.0, None, None, None], "where": "a/b", "more": {"x": None}}


def test_a_newer_file_of_the_same_schema_may_hold_more() -> None:
    assert decode(Size, {"width_px": 16, "height_px": 32, "depth_px": 48}) == Size(16, 32)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Size, {"width_px": 16}),
        (Size, [16, 32]),
        (Case, {"name": "x", "model": "fake", "size": "16x16", "prompts": []}),
        (ShardPlan, {**encode(PLAN), "shard_tokens": 2}),
        (Failure, {"kind": "bored", "message": "x"}),
        (RunSpec, {**encode(SPEC), "options": ["step_s"]}),
    ],
    ids=["missing", "no object", "nested", "no list", "unknown word", "no mapping"],
)
def test_another_shape_is_a_value_error(kind: type, data: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(kind, data)


class TestFiles:
    def test_written_and_read(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "run.json"
        run = Run(SPEC, "ok")
        write_json(path, run)
        write_json(path, run)
        assert read_json(path, Run, SCHEMA) == run
        assert [file.name for file in path.parent.iterdir()] == ["run.json"]
        assert json.loads(path.read_text())["schema"] == SCHEMA

    def test_a_write_that_fails_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "run.json"
        write_json(path, Run(SPEC, "ok"))
        with pytest.raises(TypeError):
            write_json(path, {"not": object()})
        assert read_json(path, Run, SCHEMA) == Run(SPEC, "ok")

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b'{"width_px": 16', "is no valid JSON"),
            (b"\xff\xfe\x00", "is no valid JSON"),
            (b'{"width_px": 16}', "is no Size file"),
            (b"[1, 2]", "is no Size file"),
            (b'"text"', "is no Size file"),
            (b'{"schema": 2, "anything": "else"}', "schema 2 is newer than 1, the newest known here; update"),
        ],
    )
    def test_what_is_no_file_of_ours(self, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "size.json"
        path.write_bytes(content)
        with pytest.raises(FileError) as error:
            read_json(path, Size, 1)
        assert str(error.value).startswith(f"{path}: {says}")
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 2

    @pytest.mark.parametrize("name", [".", "missing.json"])
    def test_what_cannot_be_read(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(FileError, match="cannot be read"):
            read_json(tmp_path / name, Size)
