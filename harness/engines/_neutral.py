"""Options that change how a picture is computed and nothing of the mathematics: sums in another order.

A harness that fails a row for one of them is wrong itself (``matrices/benign.toml``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from harness.plugins import Option

OPTIONS = {
    "threads": Option(int, 1, "threads of torch in each rank", ge=1),
    "attention": Option(
        str, "native", "back end of diffusers' attention dispatcher, of those a CPU has", ("native", "_native_math")
    ),
    "keys": Option(str, "forward", "order of the keys in attention", ("forward", "reversed")),
}


@contextmanager
def applied(options: Mapping[str, Any]) -> Iterator[None]:
    """Compute one request by these options."""
    with ExitStack() as stack:
        if "threads" in options:
            stack.enter_context(_threads(options["threads"]))
        if "attention" in options:
            from diffusers.models.attention_dispatch import attention_backend

            stack.enter_context(attention_backend(options["attention"]))
        if options.get("keys") == "reversed":
            stack.enter_context(_reversed_keys())
        yield


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _reversed_keys() -> Any:
    from harness.spatial import attention

    stock = attention.attend

    def attend(query: Any, key: Any, value: Any, key_mask: Any) -> Any:
        return stock(query, key.flip(1), value.flip(1), None if key_mask is None else key_mask.flip(1))

    return patch.object(attention, "attend", attend)
