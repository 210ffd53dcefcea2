"""The DiT over ranks against diffusers' own transformer, told only to pad alike."""

from __future__ import annotations

import pytest

TOLERANCE = 1e-5
"""Relative: float32's epsilon of 1.2e-7 times the roundings of some 80 operations in a row, in another order."""

GRIDS = [
    pytest.param("four", [[0, 1, 2, 3]], 2, 2, id="2x2"),
    pytest.param("four", [[0, 1, 2, 3]], 1, 4, id="ring-4"),
    pytest.param("four", [[0, 2], [1, 3]], 2, 1, id="two-pictures-on-ranks-0-2-and-1-3"),
    pytest.param("four", [[0, 2], [1, 3]], 1, 2, id="two-rings-on-ranks-0-2-and-1-3"),
    pytest.param("three", [[0, 1, 2]], 3, 1, id="ulysses-3"),
    pytest.param("three", [[0, 1, 2]], 1, 3, id="ring-3"),
]


EXCHANGE = {"aligned": "separate", "exact": "fused"}


@pytest.mark.parametrize("captions", [[5], [5, 40, 32], [64, 1]], ids=["one", "three-buckets", "two-buckets"])
@pytest.mark.parametrize("layout", ["aligned", "exact"])
@pytest.mark.parametrize("axis", ["h", "w"])
@pytest.mark.parametrize(("world", "sequences", "ulysses", "ring"), GRIDS)
def test_prediction_is_that_of_one_device(request, world, sequences, ulysses, ring, axis, layout, captions):
    ranks = request.getfixturevalue(world)
    errors = ranks(
        "transformer_error", sequences, ulysses, ring, "112x144", axis, layout, EXCHANGE[layout], captions, 3
    )
    assert max(errors) < TOLERANCE


def test_the_comparison_notices_one_pad_too_many(programs):
    """The tolerance above means something: one more pad moves the prediction far past it."""
    import torch

    from harness.engines.diffusers import padded_image_sequence

    model = programs.small_model()
    latents, caption = torch.randn(1, 4, 1, 18, 14), torch.randn(5, 16)
    outputs = []
    for pads in (33, 34):
        with torch.no_grad(), padded_image_sequence(model, pads):
            outputs.append(model(list(latents), torch.tensor([0.25]), [caption], return_dict=False)[0][0])
    assert (outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max() > 100 * TOLERANCE
