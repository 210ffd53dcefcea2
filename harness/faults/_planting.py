"""Replacement of functions, outputs and parameters for the length of a context, shared by planted bugs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any
from unittest.mock import patch

from harness.plugins import Worker


def instead_of(
    worker: Worker, target: Any, name: str, instead: Callable[..., Any], also_alone: bool = False
) -> AbstractContextManager[Any]:
    """Put a function in the place of ``target.name``.

    Parameters
    ----------
    worker
        Where the bug is planted.
    target, name
        Module or class, and its function.
    instead
        Called with the stock function first, then with what that would have been called with.
    also_alone
        Plant on one device too; most bugs of sequence parallelism are not there without it.
    """
    if worker.world_size == 1 and not also_alone:
        return nullcontext()
    stock = getattr(target, name)

    @wraps(stock)
    def planted(*arguments: Any, **options: Any) -> Any:
        return instead(stock, *arguments, **options)

    return patch.object(target, name, planted)


@contextmanager
def hooked(module: Any, hook: Callable[..., Any]) -> Iterator[None]:
    """Call ``hook(module, arguments, options, output)`` after a module's forward; its result replaces the output."""
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def other_parameter(module: Any, name: str, change: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    """Put a changed copy in the place of a module's parameter."""
    from torch.nn import Parameter

    return patch.object(module, name, Parameter(change(getattr(module, name).detach()), requires_grad=False))


@contextmanager
def together(*bugs: AbstractContextManager[Any]) -> Iterator[None]:
    """Plant several changes as one bug."""
    with ExitStack() as stack:
        for bug in bugs:
            stack.enter_context(bug)
        yield


def is_last(worker: Worker) -> bool:
    """Test for the last of several ranks."""
    return worker.world_size > 1 and worker.rank == worker.world_size - 1
