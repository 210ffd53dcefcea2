"""The last rank thinks it is done and takes no part in the last gather.

The real one skipped a collective of the decode on some ranks; here the only collective so late is the gather.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from harness.faults._planting import instead_of, is_last
from harness.plugins import Fault, Worker


class GatherMissed(Fault):
    """The others wait for it."""

    name = "gather-missed"
    source = "https://github.com/sgl-project/sglang/issues/34514"
    cause = "hang"

    def plant(self, worker: Worker) -> AbstractContextManager[Any]:
        """Return without gathering on the last rank."""
        from harness.spatial import shard

        return (
            instead_of(worker, shard, "gather", lambda stock, local, *rest: local) if is_last(worker) else nullcontext()
        )
