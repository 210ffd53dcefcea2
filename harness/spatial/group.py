"""The ranks that share one picture, as process groups, and what they send each other.

A sequence-parallel group of ``ulysses * ring`` ranks is a grid: neighbouring ranks trade tokens for heads
(Ulysses), ranks of equal place in those rows share keys and values (ring). Groups are built from explicit
lists of ranks, never from the assumption that these are consecutive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from harness.worker.collectives import PATIENCE


@dataclass
class Traffic:
    """Bytes this rank has sent to others."""

    sent_bytes: int = 0


@dataclass(frozen=True)
class Group:
    """One process group, seen from this rank."""

    rank: int = 0
    size: int = 1
    handle: dist.ProcessGroup | None = None
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True)
class SequenceGroup:
    """All ranks of one picture, in the order of their shards, and the two directions of the grid."""

    whole: Group = field(default_factory=Group)
    ulysses: Group = field(default_factory=Group)
    ring: Group = field(default_factory=Group)

    @property
    def traffic(self) -> Traffic:
        """Bytes that this rank has sent, over all three groups."""
        return self.whole.traffic

    def block(self, ring_rank: int) -> slice:
        """Shards that the Ulysses group of one place in the ring holds."""
        return slice(ring_rank * self.ulysses.size, (ring_rank + 1) * self.ulysses.size)


def build(sequences: Sequence[Sequence[int]], ulysses: int, ring: int) -> SequenceGroup:
    """Build the groups of several pictures drawn side by side; every process must call this alike.

    Parameters
    ----------
    sequences
        For each picture the global ranks that share it, ascending, consecutive or not.
    ulysses, ring
        Degrees; their product is the length of each list.

    Returns
    -------
    SequenceGroup
        The one this process belongs to.

    Raises
    ------
    ValueError
        If a list has another length or is not ascending (process groups number their ranks ascending, so
        shards would change places), or this process is in none.
    """
    me = dist.get_rank()
    traffic = Traffic()
    found: SequenceGroup | None = None
    for ranks in sequences:
        if len(ranks) != ulysses * ring or list(ranks) != sorted(set(ranks)):
            raise ValueError(f"ranks {list(ranks)}: expected {ulysses * ring} different ranks in ascending order")
        whole = _group(ranks, traffic)
        rows = [_group(ranks[start : start + ulysses], traffic) for start in range(0, len(ranks), ulysses)]
        columns = [_group(ranks[start::ulysses], traffic) for start in range(ulysses)]
        if me in ranks:
            place = list(ranks).index(me)
            found = SequenceGroup(whole, rows[place // ulysses], columns[place % ulysses])
    if found is None:
        raise ValueError(f"rank {me} belongs to none of {[list(ranks) for ranks in sequences]}")
    return found


def _group(ranks: Sequence[int], traffic: Traffic) -> Group:
    handle = dist.new_group(list(ranks), timeout=PATIENCE)  # collective over all processes, members or not
    me = dist.get_rank()
    return Group(list(ranks).index(me) if me in ranks else -1, len(ranks), handle, traffic)


@dataclass(frozen=True)
class Exchange:
    """An all-to-all under way."""

    sent: torch.Tensor
    """Kept until the others have read it."""
    arriving: torch.Tensor
    received: list[int]
    work: dist.Work | None

    def wait(self) -> tuple[torch.Tensor, ...]:
        """Wait for what each rank sends here; flat, one tensor for each of them."""
        if self.work is not None:
            self.work.wait()
        parts: tuple[torch.Tensor, ...] = self.arriving.split(self.received)
        return parts


def all_to_all(
    chunks: Sequence[Sequence[torch.Tensor]],
    received: Sequence[int],
    group: Group,
    dim: int = 0,
    overlapped: bool = False,
) -> Exchange:
    """Send tensors to each rank of a group, and receive as many from each.

    A flat contiguous buffer is sent: of a non-contiguous one the wrong elements would go out, without an
    error (pytorch#141816).

    Parameters
    ----------
    chunks
        For each rank the tensors it is sent, joined along ``dim``.
    received
        Elements that each rank sends here.
    group
        The ranks.
    dim
        Along which a rank's tensors are joined.
    overlapped
        Return at once; what is computed until :meth:`Exchange.wait` is computed beside the exchange.
    """
    lengths = [sum(part.numel() for part in parts) for parts in chunks]
    sent = chunks[0][0].new_empty(sum(lengths))
    for parts, place in zip(chunks, sent.split(lengths), strict=True):
        shape = list(parts[0].shape)
        shape[dim] = sum(part.shape[dim] for part in parts)
        torch.cat(list(parts), dim=dim, out=place.view(shape))
    arriving = sent.new_empty(sum(received))
    work = dist.all_to_all_single(arriving, sent, list(received), lengths, group=group.handle, async_op=overlapped)
    group.traffic.sent_bytes += (sent.numel() - lengths[group.rank]) * sent.element_size()
    return Exchange(sent, arriving, list(received), work)


def largest(values: Sequence[int], group: Group, device: torch.device) -> list[int]:
    """Return the largest of each figure over the ranks of a group."""
    if group.size == 1:
        return list(values)
    most = torch.tensor(list(values), dtype=torch.int64, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX, group=group.handle)
    figures: list[int] = most.tolist()
    return figures


def all_gather(part: torch.Tensor, group: Group) -> list[torch.Tensor]:
    """Gather tensors of equal shape, in the order of the ranks."""
    part = part.contiguous()
    parts = [torch.empty_like(part) for _ in range(group.size)]
    dist.all_gather(parts, part, group=group.handle)
    group.traffic.sent_bytes += part.nbytes * (group.size - 1)
    return parts
