"""Bytes that a rank sends through collectives of torch.distributed, whatever engine calls them.

Counted are the calls themselves, on the process group and of the functional collectives: what a graph replays or a
compiler calls past Python is not, so that an engine which does so counts ``exchanged_bytes`` itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

COUNTER = "collective_bytes"

Count = Callable[[int], None]


def listen(count: Count) -> None:
    """Count from now on, in this process; what is sent to this rank itself is left out."""
    import torch.distributed._functional_collectives as functional
    from torch.distributed import ProcessGroup

    for name, sent in _OF_GROUPS.items():
        if hasattr(ProcessGroup, name):
            setattr(ProcessGroup, name, _counted(getattr(ProcessGroup, name), sent, count))
    nested: list[Any] = []
    for name in _FUNCTIONAL:
        if hasattr(functional, name):
            setattr(functional, name, _counted_by_result(getattr(functional, name), count, nested))


def _counted(call: Callable[..., Any], sent: Callable[..., float], count: Count) -> Callable[..., Any]:
    @functools.wraps(call)
    def counted(group: Any, *arguments: Any, **named: Any) -> Any:
        if group.size() > 1:
            count(round(sent(group, *arguments, **named)))
        return call(group, *arguments, **named)

    return counted


def _counted_by_result(call: Callable[..., Any], count: Count, nested: list[Any]) -> Callable[..., Any]:
    """Count a functional collective: its group has many forms, so that the number of ranks is told by the result."""

    @functools.wraps(call)
    def counted(tensor: Any, *arguments: Any, **named: Any) -> Any:
        if nested:  # older names call newer ones
            return call(tensor, *arguments, **named)
        nested.append(call)
        try:
            result = call(tensor, *arguments, **named)
        finally:
            nested.pop()
        if any(callable(getattr(value, "size", None)) and value.size() == 1 for value in (*arguments, *named.values())):
            return result  # a group of this rank alone
        ratio = result.numel() / tensor.numel() if tensor.numel() else 1
        # A gather grows by the number of ranks; others keep or lose size, and send at least half of what they hold.
        count(round(_bytes(tensor) * (ratio - 1 if ratio > 1.5 else 0.5)))
        return result

    return counted


def _bytes(tensors: Any) -> int:
    if isinstance(tensors, list | tuple):
        return sum(map(_bytes, tensors))
    return int(tensors.numel() * tensors.element_size()) if hasattr(tensors, "element_size") else 0


def _to_others(group: Any, tensors: Any) -> float:
    """Bytes of what is divided over all ranks: a list of one tensor for each, or one tensor in equal parts."""
    if isinstance(tensors, list | tuple) and len(tensors) == group.size():
        return _bytes(tensors) - _bytes(tensors[group.rank()])
    return float(_bytes(tensors) * (1 - 1 / group.size()))


def _scattered(group: Any, outputs: Any, inputs: Any = None, *more: Any, **named: Any) -> float:
    lists = inputs if inputs and isinstance(inputs[0], list | tuple) else [inputs or []]
    return sum(_to_others(group, tensors) for tensors in lists)


def _exchanged(
    group: Any, output: Any, tensor: Any, received: Any = (), sent: Any = (), *more: Any, **named: Any
) -> float:
    kept = sent[group.rank()] / sum(sent) if sent and sum(sent) else 1 / group.size()
    return float(_bytes(tensor) * (1 - kept))


def _divided(group: Any, outputs: Any, inputs: Any, *more: Any, **named: Any) -> float:
    return float(_bytes(inputs) * (1 - 1 / group.size()))


def _gathered(group: Any, outputs: Any, inputs: Any, *more: Any, **named: Any) -> float:
    return float(_bytes(inputs) * (group.size() - 1))


def _once(group: Any, tensors: Any, *more: Any, **named: Any) -> float:
    return float(_bytes(tensors))


def _collected(group: Any, outputs: Any, inputs: Any, *more: Any, **named: Any) -> float:
    return float(_bytes(inputs))


_OF_GROUPS: dict[str, Callable[..., float]] = {
    "allreduce": _once,
    "allreduce_coalesced": _once,
    "reduce": _once,
    "broadcast": _once,
    "send": _once,
    "gather": _collected,
    "allgather": _gathered,
    "_allgather_base": _gathered,
    "allgather_coalesced": _gathered,
    "allgather_into_tensor_coalesced": _gathered,
    "all_gather_single": _gathered,
    "all_gather_single_coalesced": _gathered,
    "alltoall_base": _exchanged,
    "all_to_all_single": _exchanged,
    "alltoall": lambda group, outputs, inputs, *more, **named: _to_others(group, inputs),
    "scatter": _scattered,
    "reduce_scatter": _scattered,
    "_reduce_scatter_base": _divided,
    "reduce_scatter_single": _divided,
    "reduce_scatter_tensor_coalesced": _divided,
    "reduce_scatter_single_coalesced": _divided,
}
"""Methods of a process group, of old and new releases of torch, and the bytes that each sends to others."""

_FUNCTIONAL = (
    "all_reduce",
    "all_gather_tensor",
    "all_gather_tensor_autograd",
    "all_gather_single",
    "all_gather_single_autograd",
    "all_to_all_single",
    "all_to_all_single_autograd",
    "broadcast",
    "reduce_scatter_tensor",
    "reduce_scatter_tensor_autograd",
    "reduce_scatter_single",
    "reduce_scatter_single_autograd",
)
