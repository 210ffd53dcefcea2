"""What a probe records of a denoiser in this process, and that nothing is touched without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as torch_modules

from harness.diagnose import inputs, records
from harness.types import PROBE_FILE, Case, RunSpec, Size
from harness.worker.disk import Unwritable
from harness.worker.probe import recorder
from harness.worker.probe.attention import met_by_any_query
from harness.worker.probe.recorder import probing

CASE = Case("32x32", "tiny", Size(32, 32), ("x",), steps=3)
SPEC = RunSpec(CASE, "tiny", "/model", "weights", "source")
PROBED = replace(SPEC, probe=True)


class Block(nn.Module):
    """Attention with two heads, whose key and value are the tokens themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.to_out = nn.ModuleList([nn.Identity()])

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        out = functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)
        return self.to_out[0](out.transpose(1, 2).flatten(2))


class Denoiser(nn.Module):
    """Blocks by the family's names, one of them below another module as wrappers keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Module()
        self.source.all_x_embedder = nn.ModuleDict({"2-1": nn.Linear(4, 8)})
        self.source.t_embedder = nn.Linear(1, 8)
        self.source.x_pad_token = nn.Parameter(torch.ones(1, 8))
        self.time = 0.0
        self.noise_refiner = nn.ModuleList([Block()])
        self.layers = nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.source.all_x_embedder["2-1"](x)
        self.time += 1.0
        self.source.t_embedder(x.new_full((len(x), 1), self.time))
        for block in (*self.noise_refiner, *self.layers):
            x = block(x, mask)
        return x


class TextEncoder(nn.Module):
    """It has ``layers`` too, and attends."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x)


class CaptionRefiner(nn.Module):
    """What some engines compute once for all steps, in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.context_refiner = nn.ModuleList([Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.context_refiner[0](x)


def draw(denoiser: Denoiser, steps: int, mask: torch.Tensor | None = None) -> list[torch.Tensor]:
    """A request: text, then denoise steps."""
    encoder, generator = TextEncoder(), torch.Generator().manual_seed(1)
    encoder(torch.randn(1, 3, 8, generator=generator))
    return [denoiser(torch.randn(1, 5, 4, generator=generator), mask) for _ in range(steps)]


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser().eval().requires_grad_(False)


def hooks() -> tuple[int, ...]:
    return tuple(len(getattr(torch_modules, f"_global_forward_{when}")) for when in ("hooks", "pre_hooks"))


def test_without_a_probe_nothing_is_patched_and_nothing_written(tmp_path: Path) -> None:
    stock, before = functional.scaled_dot_product_attention, hooks()
    with probing(SPEC, tmp_path, 0):
        assert functional.scaled_dot_product_attention is stock
        assert hooks() == before
    assert list(tmp_path.iterdir()) == []


def test_with_one_everything_is_put_back_also_after_an_error(tmp_path: Path) -> None:
    stock, before = functional.scaled_dot_product_attention, hooks()
    touched = []

    def fail() -> None:
        with probing(PROBED, tmp_path, 0):
            touched.append((functional.scaled_dot_product_attention is not stock, hooks() != before))
            raise RuntimeError("the engine")

    with pytest.raises(RuntimeError, match="the engine"):
        fail()
    assert touched == [(True, True)]
    assert functional.scaled_dot_product_attention is stock
    assert hooks() == before
    assert list(tmp_path.iterdir()) == []


def test_records_that_cannot_be_written_are_no_error_of_the_engine(denoiser: Denoiser, tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match=r"gone: cannot be written"), probing(PROBED, tmp_path / "gone", 0):
        draw(denoiser, CASE.steps)


def test_a_run_without_a_probe_keeps_the_digest_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.types import run

    asked: list[Any] = []

    def seen(value: Any) -> str:
        asked.append(value)
        return stock(value)

    stock = run.digest_of
    monkeypatch.setattr(run, "digest_of", seen)
    assert SPEC.digest != PROBED.digest
    assert [("probe" in fields) for fields in asked] == [False, True]
    assert replace(PROBED, probe=False).digest == SPEC.digest


def test_the_picture_is_the_same_and_the_records_are_of_this_draw(denoiser: Denoiser, tmp_path: Path) -> None:
    plain = draw(denoiser, CASE.steps)
    with probing(PROBED, tmp_path, 1):
        probed = draw(denoiser, CASE.steps)
    assert all(map(torch.equal, plain, probed))
    assert [path.name for path in tmp_path.iterdir()] == [PROBE_FILE.format(rank=1)]
    (tmp_path / PROBE_FILE.format(rank=1)).rename(tmp_path / PROBE_FILE.format(rank=0))
    (found,) = records.read(tmp_path, 1)
    blocks = {"noise_refiner.0", "layers.0", "layers.1"}
    assert set(found.rows) == {(step, module) for step in (1, 2, 3) for module in blocks | {"all_x_embedder.2-1"}}
    # The first blocks at the first and the last step, all others at the first.
    attended = {(1, module) for module in blocks} | {(3, "noise_refiner.0"), (3, "layers.0")}
    assert set(found.keys) == set(found.values) == set(found.masks) == attended
    assert found.keys[1, "layers.0"].shape == (1, 2, 5, 4)
    assert found.masks[1, "layers.0"].all()
    assert found.left_out == ()


def test_times_and_weights_are_those_that_were_used(denoiser: Denoiser, tmp_path: Path) -> None:
    def probed(name: str) -> records.Probe:
        (tmp_path / name).mkdir()
        denoiser.time = 0.0
        with probing(PROBED, tmp_path / name, 0):
            draw(denoiser, CASE.steps)
        return records.read(tmp_path / name, 1)[0]

    first = probed("first")
    again = probed("again")
    assert set(first.times) == {1, 2, 3}
    assert inputs.times_off(first, [again], "float32") == inputs.weights_off(first, [again, again]) == ()
    denoiser.source.x_pad_token.data += 1.0
    assert inputs.weights_off(first, [first, probed("pads")]) == (f"rank 1: {inputs.PAD_TOKENS}",)
    denoiser.layers[1].to_out[0] = nn.Linear(8, 8)
    one = probed("one")
    denoiser.layers[1].to_out[0].weight.data = denoiser.layers[1].to_out[0].weight.data.roll(1, 0)
    assert "rank 1: layers.1" in inputs.weights_off(first, [one, probed("rolled")])
    assert "rank 1: layers.1" not in inputs.weights_off(first, [one, one])
    denoiser.source.t_embedder.bias.data += 0.5
    assert inputs.times_off(first, [probed("late")], "bfloat16") == (1, 2, 3)


def test_a_caption_refined_ahead_of_the_steps_belongs_to_the_first(denoiser: Denoiser, tmp_path: Path) -> None:
    with probing(PROBED, tmp_path, 0):
        CaptionRefiner()(torch.randn(1, 3, 8))
        draw(denoiser, CASE.steps)
    (found,) = records.read(tmp_path, 1)
    assert [call for call in found.rows if call[1] == "context_refiner.0"] == [(1, "context_refiner.0")]
    assert found.keys[1, "context_refiner.0"].shape == (1, 2, 3, 4)
    assert {step for step, module in found.rows if module == "layers.0"} == {1, 2, 3}
    assert found.left_out == ()


def test_sketches_keep_distances_to_about_a_fifth(denoiser: Denoiser, tmp_path: Path) -> None:
    with probing(PROBED, tmp_path, 0):
        outputs = draw(denoiser, CASE.steps)
    (found,) = records.read(tmp_path, 1)
    known = torch.cdist(outputs[0][0], outputs[0][0]).numpy()
    rows = torch.from_numpy(found.rows[1, "layers.1"][0])
    kept = torch.cdist(rows, rows).numpy()
    there = known > 0.1 * known.max()
    ratios = kept[there] / known[there]
    assert ratios.min() > 0.4
    assert ratios.max() < 1.6


def test_of_many_steps_some_are_left_out_and_said(
    denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_TRACED_STEPS", 2)
    case = replace(CASE, steps=5)
    with probing(replace(PROBED, case=case), tmp_path, 0):
        draw(denoiser, case.steps)
    (found,) = records.read(tmp_path, 1)
    assert {step for step, _ in found.rows} == {1, 2, 5}
    assert found.left_out == ("block outputs of steps 3, 4",)


def test_too_large_a_record_is_left_out_and_said(
    denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.worker.probe import attention

    monkeypatch.setattr(attention, "MAX_BYTES", 2 * 4 * 40)  # one call: key and value of five tokens of eight
    with probing(PROBED, tmp_path, 0):
        draw(denoiser, CASE.steps)
    (found,) = records.read(tmp_path, 1)
    assert set(found.keys) == {(1, "noise_refiner.0")}
    assert any("keys of layers.0 at step 1" in line for line in found.left_out)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, [True, True, True]),
        (torch.tensor([[[[True, False, True]]]]), [True, False, True]),
        (torch.tensor([[[[0.0, float("-inf"), 0.0]]]]), [True, False, True]),
        (torch.tensor([[True, False, False], [False, False, True]]), [True, False, True]),
        (torch.tensor([[[[False] * 3], [[True, False, False]]]]), [True, False, False]),
    ],
)
def test_a_key_is_met_if_any_query_of_any_head_sees_it(mask: torch.Tensor | None, expected: list[bool]) -> None:
    assert met_by_any_query(mask, torch.zeros(1, 2, 3, 4)).tolist() == [expected]
