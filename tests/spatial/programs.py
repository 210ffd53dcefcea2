"""What the ranks of the SP tests run; loaded by path in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel

from harness.planning.cut import cut
from harness.plugins import Worker
from harness.spatial import group as groups
from harness.spatial import shard, steps, tokens
from harness.spatial.attention import ExchangeMode, SequenceParallelAttention
from harness.spatial.transformer import SpatialTransformer
from harness.types import Size

HEADS, HEAD_DIM = 6, 8
built: dict[Any, groups.SequenceGroup] = {}


def group_of(sequences: Sequence[Sequence[int]], ulysses: int, ring: int) -> groups.SequenceGroup:
    """Build each grid of ranks once."""
    key = (str(sequences), ulysses, ring)
    if key not in built:
        built[key] = groups.build(sequences, ulysses, ring)
    return built[key]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gathers_what_was_cut(
    rank: int, sequences: list[list[int]], size: str, axis: str, leading: list[int], contiguous: bool, seed: int
) -> bool:
    """Cut random latents, gather them again, and compare on this rank."""
    group = group_of(sequences, len(sequences[0]), 1)
    mine = next(index for index, ranks in enumerate(sequences) if rank in ranks)
    plan = cut(Size.parse(size), group.whole.size, axis)
    if not plan.feasible:
        return True
    height, width = Size.parse(size).tokens_h * 2, Size.parse(size).tokens_w * 2
    full = torch.randn(*leading, height, width, generator=generator(seed + mine))
    local = shard.cut(full, plan, group.whole.rank)
    if not contiguous:
        local = local.transpose(0, -1).contiguous().transpose(0, -1)
        assert not local.is_contiguous() or local.shape[0] == 1 or local.shape[-1] == 1
    return torch.equal(shard.gather(local, plan, group.whole), full)


def build_error(rank: int, sequences: list[list[int]], ulysses: int, ring: int) -> str:
    try:
        groups.build(sequences, ulysses, ring)
    except ValueError as error:
        return str(error)
    return ""


def bytes_of_exchange(rank: int, lengths: list[int]) -> int:
    """What tokens_to_heads of this rank's tokens sends to others, in bytes."""
    from harness.spatial.attention import tokens_to_heads

    group = group_of([list(range(len(lengths)))], len(lengths), 1)
    before = group.traffic.sent_bytes
    part = torch.zeros(1, lengths[group.ulysses.rank], len(lengths) * 2, 5)
    tokens_to_heads([part], lengths, group.ulysses)
    return group.traffic.sent_bytes - before


def attention_error(
    rank: int,
    sequences: list[list[int]],
    ulysses: int,
    ring: int,
    lengths: list[int],
    num_suffix: int,
    masked: bool,
    exchange: ExchangeMode,
    seed: int,
) -> float:
    """Largest difference of this rank's part of the attention from one device's."""
    group = group_of(sequences, ulysses, ring)
    batch, dim = 2, HEADS * HEAD_DIM
    module = small_model().layers[0].attention
    total = sum(lengths)
    random = generator(seed)
    hidden = torch.randn(batch, total + num_suffix, dim, generator=random)
    angles = torch.rand(batch, total + num_suffix, HEAD_DIM // 2, generator=random)
    freqs = torch.polar(torch.ones_like(angles), angles)
    mask = None
    if masked:
        mask = torch.ones(batch, total + num_suffix, dtype=torch.bool)
        mask[1, total + num_suffix // 2 :] = False
    layer = SequenceParallelAttention(module, group, exchange)
    expected = SequenceParallelAttention(module, groups.SequenceGroup())(hidden, freqs, key_mask=mask)
    start = sum(lengths[: group.whole.rank])
    own = slice(start, start + lengths[group.whole.rank])
    local = torch.cat([hidden[:, own], hidden[:, total:]], dim=1)
    local_freqs = torch.cat([freqs[:, own], freqs[:, total:]], dim=1)
    with torch.no_grad():
        found = layer(local, local_freqs, lengths, mask)
    wanted = torch.cat([expected[:, own], expected[:, total:]], dim=1)
    return float((found - wanted).abs().max())


def small_model() -> ZImageTransformer2DModel:
    """A Z-Image DiT of few weights, equal in every process."""
    torch.manual_seed(7)
    model = ZImageTransformer2DModel(
        dim=HEADS * HEAD_DIM,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        cap_feat_dim=16,
        axes_dims=[4, 2, 2],
        axes_lens=[256, 64, 64],
        in_channels=4,
    )
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3 if "pad_token" in name else 0.15)
    return model.eval().requires_grad_(False)


def transformer_error(
    rank: int,
    sequences: list[list[int]],
    ulysses: int,
    ring: int,
    size: str,
    axis: str,
    layout: str,
    exchange: ExchangeMode,
    caption_lengths: list[int],
    seed: int,
) -> float:
    """Largest difference of the gathered prediction from diffusers' own, padded alike; relative to its largest."""
    group = group_of(sequences, ulysses, ring)
    plan = cut(Size.parse(size), group.whole.size, axis, layout=layout)
    latents, captions, expected = predicted(Size.parse(size), plan.pad_tokens, tuple(caption_lengths), seed)
    timestep = torch.full((len(captions),), 0.25)
    with torch.no_grad():
        local = shard.cut(latents, plan, group.whole.rank)
        transformer = SpatialTransformer(small_model(), group, exchange)
        found = transformer(local, timestep, transformer.prepare(captions, plan))
    difference = shard.gather(found, plan, group.whole) - expected
    return float(difference.abs().max() / expected.abs().max())


@cache
def predicted(
    size: Size, pad_tokens: int, caption_lengths: tuple[int, ...], seed: int
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Random latents and captions, and what diffusers' transformer predicts for them."""
    from harness.engines.diffusers import padded_image_sequence

    model, batch = small_model(), len(caption_lengths)
    latents = torch.randn(batch, 4, size.tokens_h * 2, size.tokens_w * 2, generator=generator(seed))
    captions = random_captions(caption_lengths, seed)
    timestep = torch.full((batch,), 0.25)
    with torch.no_grad(), padded_image_sequence(model, pad_tokens):
        expected = torch.stack(model(list(latents.unsqueeze(2)), timestep, captions, return_dict=False)[0]).squeeze(2)
    return latents, captions, expected


class OutOfMemory(steps.Calls):
    """A recorder on a rank that is short of memory, as torch says it."""

    def record(self, function: steps.Function, traffic: groups.Traffic) -> tuple[steps.Function, int]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def recorded_requests(
    rank: int,
    sequences: list[list[int]],
    ulysses: int,
    ring: int,
    exchange: ExchangeMode,
    requests: Sequence[tuple[str, str, str, list[int]]],
    max_bytes: int = steps.MAX_BYTES,
    short_of_memory: Sequence[int] = (),
) -> list[tuple[bool, dict[str, int], int]]:
    """Serve requests (size, axis, layout, caption lengths) eagerly and recorded, three steps each.

    Of each return whether every step is equal to the last bit, what was counted, and how many recordings are kept.
    """
    transformer = SpatialTransformer(small_model(), group_of(sequences, ulysses, ring), exchange)
    worker, kept = Worker(rank, 1, "cpu", "", "float32"), steps.Recordings(max_bytes)
    recorder = OutOfMemory() if rank in short_of_memory else steps.Calls()
    random, results = generator(rank), []
    for seed, (size, axis, layout, lengths) in enumerate(requests):
        plan = cut(Size.parse(size), ulysses * ring, axis, layout=layout)
        conditions = transformer.prepare(random_captions(lengths, seed), plan)
        rows, columns = plan.grid(transformer.group.whole.rank)
        latents = torch.randn(3, len(lengths), 4, rows * 2, columns * 2, generator=random)
        eager = steps.EagerSteps().begin(transformer, latents[0], conditions)
        recorded = steps.RecordedSteps(kept, recorder, worker).begin(transformer, latents[0], conditions)
        equal = True
        for number, each in enumerate(latents):
            timestep = torch.full((len(lengths),), number / 3)
            equal &= torch.equal(eager(each, timestep), recorded(each, timestep))
        results.append((equal, dict(worker.counters), len(kept.kept)))
        worker.counters.clear()
    return results


def random_captions(lengths: Sequence[int], seed: int) -> list[torch.Tensor]:
    random = generator(seed)
    return [torch.randn(length, 16, generator=random) for length in lengths]


def positions_of(size: str, ranks: int, axis: str, layout: str, frame: int) -> torch.Tensor:
    plan = cut(Size.parse(size), ranks, axis, layout=layout)
    return tokens.image_positions(plan, range(ranks), [frame])[0]
