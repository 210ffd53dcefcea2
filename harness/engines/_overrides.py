"""Overrides of the baseline's transformer: another number of image pads, another order of tokens.

Both override methods on the instance alone and call the originals; the class shows again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness.types import TokenOrder


@contextmanager
def padded_image_sequence(transformer: Any, num_pads: int | None) -> Iterator[None]:
    """Make the stock transformer pad its image sequence with ``num_pads`` tokens in all.

    diffusers pads captions and images in one method, ``_pad_with_ids``. It is overridden on the instance
    alone: the original is called, then pads of the very same kind (pad mask set, position (0, 0, 0)) are
    appended to the image. Attention does not care for the order of its keys and every pad is the same
    token at the same position, so their *number* is all that a correct SP layout changes.

    Raises
    ------
    ValueError
        If the stock pipeline pads with more than ``num_pads`` already.
    """
    if num_pads is None:
        yield
        return
    with _overridden(transformer, "_pad_with_ids", _with_image_pads(transformer._pad_with_ids, num_pads)):
        yield


def _with_image_pads(stock: Callable[..., Any], num_pads: int) -> Callable[..., Any]:
    import torch

    def pad_with_ids(feat: Any, pos_grid_size: Any, pos_start: Any, device: Any, noise_mask_val: Any = None) -> Any:
        padded = stock(feat, pos_grid_size, pos_start, device, noise_mask_val)
        if _is_caption(pos_start):
            return padded
        feat, positions, pad_mask, total, noise_mask = padded
        missing = num_pads - int(pad_mask.sum())
        if missing < 0:
            raise ValueError(f"the pipeline pads with {num_pads - missing} tokens, more than the {num_pads} asked for")
        return (
            torch.cat([feat, feat[-1:].expand(missing, -1)]),
            torch.cat([positions, positions.new_zeros(missing, positions.shape[1])]),
            torch.cat([pad_mask, pad_mask.new_ones(missing)]),
            total + missing,
            noise_mask,
        )

    return pad_with_ids


@contextmanager
def reordered_image_sequence(transformer: Any, order: TokenOrder) -> Iterator[None]:
    """Make the transformer compute with its image tokens in another order, pads included.

    Every token keeps its position and attention does not care for order, so the mathematics is the same;
    sums are taken in another order. What comes out is put back into its own order before it becomes a picture.

    Parameters
    ----------
    transformer
        The stock transformer.
    order
        See :data:`harness.types.TokenOrder`.
    """
    if order == "native":
        yield
        return
    pad, unpatchify = transformer._pad_with_ids, transformer.unpatchify
    orders: list[Any] = []

    def pad_reordered(feat: Any, pos_grid_size: Any, pos_start: Any, device: Any, noise_mask_val: Any = None) -> Any:
        padded = pad(feat, pos_grid_size, pos_start, device, noise_mask_val)
        if _is_caption(pos_start):
            return padded
        feat, positions, pad_mask, total, noise_mask = padded
        places = _places(order, total, pos_grid_size[-2:]).to(feat.device)
        orders.append(places.argsort())
        return feat[places], positions[places], pad_mask[places], total, noise_mask

    def unpatchify_ordered(x: Any, size: Any, patch_size: Any, f_patch_size: Any, x_pos_offsets: Any = None) -> Any:
        ordered = [tokens[: len(places)][places] for tokens, places in zip(x, orders, strict=True)]
        orders.clear()
        return unpatchify(ordered, size, patch_size, f_patch_size, x_pos_offsets)

    with (
        _overridden(transformer, "_pad_with_ids", pad_reordered),
        _overridden(transformer, "unpatchify", unpatchify_ordered),
    ):
        yield


def _places(order: TokenOrder, total: int, grid: tuple[int, int]) -> Any:
    """Return the place in the native sequence of each token of an order: image tokens row by row, then pads."""
    import torch

    places = torch.arange(total)
    if order == "reversed":
        return places.flip(0)
    if order == "columns":
        image = places[: grid[0] * grid[1]]
        return torch.cat([image.view(grid).T.flatten(), places[len(image) :]])
    return torch.randperm(total, generator=torch.Generator().manual_seed(int(order.removeprefix("shuffled-"))))


@contextmanager
def _overridden(instance: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    before = vars(instance).get(name)
    setattr(instance, name, method)
    try:
        yield
    finally:
        if before is None:
            delattr(instance, name)
        else:
            setattr(instance, name, before)


def _is_caption(pos_start: Any) -> bool:
    """Test for a caption: captions start at frame 1, images behind the caption."""
    return bool(pos_start[0] == 1)
