"""The cache is not emptied between requests: the second one begins with what the first one left.

The first request is right; the second one drifts. The engine is of no use to other requests afterwards, so this one
is for sequences, which have an engine of their own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from harness.faults._planting import instead_of, together
from harness.plugins import Fault, Worker


class CacheSurvivesRequest(Fault):
    """Steps of a later request are served with an earlier one's residuals."""

    name = "cache-survives-request"
    source = "https://github.com/sgl-project/sglang/issues/35054"
    cause = "cache"
    needs = ("cache", "second request")

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Switch the cache on once, and never off."""
        import cache_dit

        return together(
            instead_of(worker, cache_dit, "enable_cache", _enable_once),
            instead_of(worker, cache_dit, "disable_cache", _never_disable),
        )


_forwards: dict[int, Any] = {}
"""The caching ``forward`` of each transformer, which its owner takes off after a request."""


def _enable_once(stock: Any, adapter: Any, **options: Any) -> Any:
    transformer = _transformer_of(adapter)
    if id(transformer) in _forwards:
        transformer.forward = _forwards[id(transformer)]
        return adapter
    return stock(adapter, **options)


def _never_disable(stock: Any, adapter: Any) -> None:
    transformer = _transformer_of(adapter)
    _forwards[id(transformer)] = transformer.forward


def _transformer_of(adapter: Any) -> Any:
    """The package makes a list of what it was given."""
    known = adapter.transformer
    return known[0] if isinstance(known, list) else known
