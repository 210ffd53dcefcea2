"""Patches and positions against diffusers' own, which cut nothing."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.planning.cut import cut, pads_of
from harness.spatial.tokens import caption_positions, patchify, unpatchify
from harness.types import Size

sides = st.integers(1, 12)


def test_patches_are_those_of_diffusers(programs):
    latents = torch.randn(2, 4, 6, 10)
    for item, tokens in zip(latents, patchify(latents), strict=True):
        expected, _, _ = programs.small_model()._patchify_image(item.unsqueeze(1), 2, 1)
        assert torch.equal(tokens, expected)
    assert torch.equal(unpatchify(patchify(latents), latents.shape), latents)


@settings(max_examples=80, deadline=None)
@given(
    rows=sides,
    columns=sides,
    ranks=st.integers(1, 6),
    axis=st.sampled_from(["h", "w"]),
    layout=st.sampled_from(["aligned", "exact"]),
    frame=st.integers(1, 200),
)
def test_every_token_keeps_its_place_and_pads_stand_at_zero(programs, rows, columns, ranks, axis, layout, frame):
    size = Size(columns * 16, rows * 16)
    if not cut(size, ranks, axis).feasible:
        return
    positions = [tuple(row) for row in programs.positions_of(str(size), ranks, axis, layout, frame).tolist()]
    pads = positions.count((0, 0, 0))
    image = [position for position in positions if position != (0, 0, 0)]
    assert sorted(image) == [(frame, row, column) for row in range(rows) for column in range(columns)]
    assert pads == cut(size, ranks, axis, layout=layout).pad_tokens
    if layout == "exact":
        assert pads == pads_of(rows * columns)
        if axis == "h":  # the order of one device, pads last: what makes bit-equality possible
            assert image == sorted(image)
            assert positions[: len(image)] == image


def test_captions_count_from_one(programs):
    model = programs.small_model()
    grid = model.create_coordinate_grid((32, 1, 1), (1, 0, 0)).flatten(0, 2)
    assert torch.equal(caption_positions(32), grid)
