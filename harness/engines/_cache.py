"""Cache-DiT around one request: the real package, switched on for it and off again.

Its DBCache runs the first main layer at every step, compares what that layer added with what it added at
the last computed step, and then either runs the other layers or adds what those had added then. The
package keeps its state in a context; a new one for each request leaves nothing behind.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from harness.plugins import Option

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed import ProcessGroup

PACKAGE = "cache-dit"

FIRST_LAYERS = 1
"""Main layers computed at every step (``Fn_compute_blocks``)."""

WARMUP_STEPS = 2
"""Steps computed first where a threshold decides."""


@dataclass(frozen=True)
class CacheSettings:
    """Choice of the steps that are served: by a mask where one is given, else by a threshold."""

    mask: tuple[int, ...] | None = None
    """One figure a step: 1 computes, 0 is served from the cache."""
    threshold: float = 0.8
    """A step is served if the first layer's residual moved by less than this (relative L1)."""
    max_continuous: int = 1
    """Steps that a threshold may serve in a row; -1 for no limit."""

    @classmethod
    def of(cls, options: Mapping[str, Any], num_steps: int) -> CacheSettings:
        """Read a variant's options, which planning has checked one by one.

        Raises
        ------
        ValueError
            For a mask shorter or longer than the steps, which the package would take and compute wrongly.
        """
        mask = options.get("cache_mask")
        if mask is not None and len(mask) != num_steps:
            raise ValueError(f"cache_mask {mask!r:.80}: write 0 or 1 for each of the {num_steps} steps")
        return cls(
            mask and tuple(map(int, mask)),
            options.get("cache_threshold", cls.threshold),
            options.get("cache_max_continuous", cls.max_continuous),
        )


OPTIONS = {
    "cache_mask": Option(
        str,
        help="one figure a step, 1 to compute it and 0 to serve it from the cache, the first a 1",
        pattern="1[01]{,999}",
        excludes=("cache_threshold", "cache_max_continuous"),
    ),
    "cache_threshold": Option(
        float,
        CacheSettings.threshold,
        "a step is served if the first layer's residual moved by less (relative L1)",
        gt=0,
        lt=1,
    ),
    "cache_max_continuous": Option(
        int, CacheSettings.max_continuous, "steps that a threshold may serve in a row; -1 for no limit", ge=-1, le=1000
    ),
}
"""Options of a variant that speak of the cache; the baseline is given the same."""


def limits(cache: str, options: Mapping[str, Any], num_steps: int) -> str | None:
    """Give the reason why a variant's cache is not available (the text of a skip), or ``None``."""
    if cache == "none":
        return None
    if importlib.util.find_spec("cache_dit") is None:
        return f"the package {PACKAGE} is not installed; pip install 'sp-harness[cache]'"
    try:
        CacheSettings.of(options, num_steps)
    except ValueError as error:
        return str(error)
    return None


def preload(cache: str) -> tuple[str, ...]:
    """Name the modules that a variant's cache needs."""
    return () if cache == "none" else ("cache_dit",)


class CacheLog:
    """The decisions of one request, on this rank."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def decisions(self) -> tuple[bool, ...]:
        """List for each step so far whether the cache served it."""
        served = set(self._context.get_cached_steps())
        return tuple(step in served for step in range(self._context.get_current_step() + 1))


@contextmanager
def cached(transformer: nn.Module, settings: CacheSettings, group: ProcessGroup | None = None) -> Iterator[CacheLog]:
    """Cache the main layers of ``transformer`` (diffusers' or ours) for one request.

    Parameters
    ----------
    transformer
        Its ``forward`` must loop over ``self.layers``, handing each the same further arguments.
    settings
        Equal on all ranks, and on the baseline.
    group
        Ranks that decide together; ``None`` decides alone, also where a process group is alive.
    """
    import cache_dit

    for handler in logging.getLogger("CACHE_DIT").handlers:  # one for all its loggers, and it writes to stdout
        handler.setLevel(logging.ERROR)
    adapter = cache_dit.BlockAdapter(
        transformer=transformer,
        blocks=transformer.layers,
        blocks_name="layers",
        forward_pattern=cache_dit.ForwardPattern.Pattern_3,  # one tensor in, one out
        check_forward_pattern=False,  # the check insists on the name "hidden_states"; Z-Image says "x"
        has_separate_cfg=False,  # guidance is one forward of twice the batch
    )
    try:
        cache_dit.enable_cache(adapter, cache_config=_config(settings))
        manager: Any = transformer._context_manager
        _decide_in(manager, group)
        names: Any = transformer._context_names
        yield CacheLog(manager.get_context(names[0]))
    finally:
        cache_dit.disable_cache(adapter)
        vars(transformer).pop("forward", None)  # disable_cache leaves the bound method on the instance


def _config(settings: CacheSettings) -> Any:
    import cache_dit

    masked = settings.mask is not None
    return cache_dit.DBCacheConfig(
        Fn_compute_blocks=FIRST_LAYERS,
        Bn_compute_blocks=0,
        enable_separate_cfg=False,
        max_warmup_steps=WARMUP_STEPS,
        residual_diff_threshold=settings.threshold,
        max_continuous_cached_steps=settings.max_continuous,
        steps_computation_mask=list(settings.mask) if settings.mask else None,
        steps_computation_policy="static" if masked else "dynamic",
    )


def _decide_in(manager: Any, group: ProcessGroup | None) -> None:
    """Average the difference over ``group``.

    The package averages over the whole world wherever a process group is alive, so that one rank that
    draws alone would wait for the others for ever.
    """
    import torch.distributed as dist
    from cache_dit.caching.cache_contexts import cache_manager

    stock = manager.similarity
    ours = SimpleNamespace(all_reduce=partial(dist.all_reduce, group=group), ReduceOp=dist.ReduceOp)

    def similarity(*states: Any, parallelized: bool = False, **options: Any) -> Any:
        with mock.patch.object(cache_manager, "dist", ours):
            return stock(*states, parallelized=group is not None, **options)

    manager.similarity = similarity
