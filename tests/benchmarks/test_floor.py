"""The operations a floor counts are those that torch counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TOKENS_H, TOKENS_W, CAPTION = 11, 15, 20
"""240x176: pads in the picture and in the caption."""


@pytest.fixture
def floor(scripts: Path) -> Any:
    import _floor

    return _floor


@pytest.fixture
def shapes(floor: Any) -> Any:
    from harness import models

    return floor.Shapes.of(models.resolve("nano"))


def test_operations_are_those_of_a_forward(floor: Any, shapes: Any) -> None:
    import torch
    from diffusers.models.attention_dispatch import attention_backend
    from torch.utils.flop_counter import FlopCounterMode

    from harness import models
    from harness.models.z_image import load_pipeline

    transformer = load_pipeline(models.resolve("nano").path, "float32", "cpu").transformer
    latents = [torch.zeros(16, 1, 2 * TOKENS_H, 2 * TOKENS_W)]
    caption = [torch.zeros(CAPTION, shapes.caption_width)]
    # torch counts no attention kernel on a CPU, but its plain form, two products.
    with torch.no_grad(), attention_backend("_native_math"), FlopCounterMode(display=False) as counter:
        transformer(latents, torch.tensor([0.5]), caption)
    counted = floor.single(shapes, TOKENS_H * TOKENS_W, CAPTION).operations
    assert counted <= counter.get_total_flops(), "a floor may not be above what is done"
    # What is left out (modulation and the time embedding) is small.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_bytes_of_the_blocks_are_most_of_the_transformer(floor: Any, shapes: Any) -> None:
    from harness import models
    from harness.models.z_image import load_pipeline

    transformer = load_pipeline(models.resolve("nano").path, "float32", "cpu").transformer
    blocks = [*transformer.layers, *transformer.noise_refiner]
    held = sum(weight.numel() * 4 for block in blocks for weight in block.parameters())
    # Norms and the bias of the modulation are left out.
    assert len(blocks) * shapes.block_bytes(4) == pytest.approx(held, rel=0.01)
    assert shapes.weight_bytes(4) < sum(weight.numel() * 4 for weight in transformer.parameters())


def test_one_rank_has_the_work_of_one_device(floor: Any, shapes: Any) -> None:
    from harness.planning.cut import cut
    from harness.types import Size

    size = Size(16 * TOKENS_W, 16 * TOKENS_H)
    alone = floor.single(shapes, size.tokens, CAPTION)
    assert floor.spatial(shapes, cut(size, 1, "h"), CAPTION, 0).operations == alone.operations
    assert floor.even(shapes, size.tokens, CAPTION, 1, 0) == alone
    assert 2 * floor.even(shapes, size.tokens, CAPTION, 2, 0).operations == pytest.approx(alone.operations)


def test_computing_and_reading_overlap_and_sending_does_not(floor: Any) -> None:
    rates = floor.Rates(operations_per_s=10.0, read_bytes_per_s=5.0, sent_bytes_per_s=2.0)
    assert rates.floor_s(floor.Work(operations=100.0, sent_bytes=4.0), weight_bytes=20.0) == 12.0
    assert rates.floor_s(floor.Work(operations=100.0), weight_bytes=200.0) == 40.0


def test_the_best_rate_counts(floor: Any) -> None:
    before, after = floor.Rates(1.0, 5.0, 3.0), floor.Rates(2.0, 4.0, 3.0)
    assert floor.best({"single": before}, {"single": after}) == {"single": floor.Rates(2.0, 5.0, 3.0)}


def test_a_line_is_found_again(floor: Any) -> None:
    import growth

    fit = growth._fit([1, 2, 4, 8], [7.5, 8.0, 9.0, 11.0], 1)
    assert fit["coefficients"] == pytest.approx([7.0, 0.5])
    assert fit["largest_residual"] == pytest.approx(0, abs=1e-12)
    assert growth._fit([1, 2, 4], [1.0, 2.0, 5.0], 1)["largest_residual"] > 0.05
