"""Comparisons of a run folder: each pair of samples is loaded and measured once.

Equal samples are recognised by the digest of their content: where a golden equals the baseline, a candidate's
distance to both is one measurement. Samples are cached up to a number of bytes, digests and figures without limit.
Comparisons made by another process can be added (:mod:`harness.session.background`).
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

from harness import plugins
from harness.judging.measure import compare_decisions, measure
from harness.plugins import Context, Metric
from harness.runs.folder import RunFolder
from harness.runs.sample import Sample
from harness.types import Comparison, Relation, Row, Run, ShardPlan

EDGES = {
    Relation.EXCHANGE: ("replay", "candidate"),
    Relation.CONTROL: ("baseline", "control"),
    Relation.LAYOUT: ("baseline", "replay"),
    Relation.PAIR: ("baseline", "candidate"),
    Relation.FLOOR: ("baseline", "reordered"),
    Relation.REPEAT: ("baseline", "repeat"),
}
"""Relation to the roles it compares: reference, candidate."""
JUDGED_METRICS = ("psnr", "max-abs")
"""Metrics that bounds refer to; measured whatever a matrix selects."""
KEPT_BYTES = 512 << 20
"""Bytes of cached samples, beyond the two that are compared."""


Names = tuple[tuple[str, str], tuple[str, str]]
"""Key and version of two samples: reference, candidate."""


class Measurer:
    """Measures samples by key, a run's digest or a name given to :meth:`add`.

    Parameters
    ----------
    folder
        The run folder.
    device
        GPU that metrics may use, such as ``cuda:0``; none by default.
    kept_bytes
        Bytes of cached samples; :data:`KEPT_BYTES` by default.
    on_measured
        Called with the names of two samples and their comparison.
    """

    def __init__(
        self,
        folder: RunFolder,
        device: str | None = None,
        kept_bytes: int | None = None,
        on_measured: Callable[[Names, Comparison], None] = lambda names, comparison: None,
    ) -> None:
        self._folder = folder
        self.device = device
        """May be changed at any time: a run holds a GPU for a while."""
        self._kept_bytes = KEPT_BYTES if kept_bytes is None else kept_bytes
        self._on_measured = on_measured
        self._plans: dict[str, ShardPlan | None] = {}
        self._versions: dict[str, str] = {}
        self._loaders: dict[str, Callable[[], Sample]] = {}
        self._samples: OrderedDict[str, Sample] = OrderedDict()  # by last use
        self._contents: dict[str, str] = {}
        self._with_steps: set[str] = set()
        self._measured: dict[tuple[object, ...], tuple[Comparison, bool]] = {}  # and whether both had a trajectory
        self._learnt: dict[Names, Comparison] = {}
        self.num_read = 0
        """Number of times that a sample was read from disk."""
        self.comparing_s = 0.0
        """CPU seconds that this thread spent comparing samples, without loading them."""

    @cached_property
    def _metrics(self) -> list[Metric]:
        matrix = self._folder.plan.matrix
        declared = [bound.metric for _, bound in matrix.declared]
        names = [*JUDGED_METRICS, *declared, *matrix.metrics] if matrix.metrics else plugins.names("metrics")
        return [plugins.load("metrics", name)() for name in dict.fromkeys(names)]

    def add(self, key: str, load: Callable[[], Sample], version: str = "") -> None:
        """Register a sample, which is loaded when it is first needed.

        Parameters
        ----------
        key, load
            Its name, and the function that loads it.
        version
            Distinguishes successive samples of the same name, such as a golden that is approved anew.
        """
        if self._versions.get(key) != version:
            self._versions[key], self._loaders[key] = version, load
            self._samples.pop(key, None)
            self._contents.pop(key, None)

    def of_row(self, row: Row, runs: Mapping[str, Run]) -> list[Comparison]:
        """Compare a row's runs, all of which must have been drawn, by :data:`EDGES`, and a cache's decisions."""
        for role in row.runs:
            self.add_run(runs[row.runs[role]])
        figures = [
            self.measure(relation, row.runs[reference], row.runs[candidate])
            for relation, (reference, candidate) in EDGES.items()
            if candidate in row.runs
        ]
        if row.variant.cache == "none":
            return figures
        return [compare_decisions(runs[row.runs["replay"]], runs[row.runs["candidate"]]), *figures]

    def measure(self, relation: Relation, reference: str, candidate: str) -> Comparison:
        """Compare two samples by their keys."""
        if reference == candidate:
            return Comparison(relation, reference, candidate, same_run=True)
        names = self._name(reference), self._name(candidate)
        found = self._learnt.get(names) or self._compared(relation, reference, candidate)
        self._on_measured(names, found)
        return replace(found, relation=relation, reference=reference, candidate=candidate)

    def learn(self, names: Names, comparison: Comparison) -> None:
        """Add a comparison that was made elsewhere, of samples of these names."""
        self._learnt[names] = comparison

    def sample(self, key: str) -> Sample:
        """Return a sample from the cache, or load it."""
        if key not in self._samples:
            self._samples[key] = self._loaders[key]()
            self.num_read += 1
        self._samples.move_to_end(key)
        while len(self._samples) > 2 and sum(map(_num_bytes, self._samples.values())) > self._kept_bytes:
            self._samples.popitem(last=False)
        return self._samples[key]

    def let_go(self, key: str) -> None:
        """Drop a sample from the cache; its digest and figures stay."""
        self._samples.pop(key, None)

    def add_run(self, run: Run) -> None:
        """Register a run under its digest."""
        self._plans[run.spec.digest] = run.spec.plan
        self.add(run.spec.digest, lambda: self._folder.sample(run), f"{run.started_at} {run.wall_s}")

    def _name(self, key: str) -> tuple[str, str]:
        return key, self._versions.get(key, "")

    def _compared(self, relation: Relation, reference: str, candidate: str) -> Comparison:
        plan = self._plans.get(candidate)
        borders = (plan.axis, plan.origins) if plan and len(plan.origins) > 1 else None
        key = (self._content(reference), self._content(candidate), borders)
        with_steps = {reference, candidate} <= self._with_steps
        found, had_steps = self._measured.get(key, (None, False))
        # A golden has no trajectory: its figures hold for a run of the same content, but for the steps.
        if found is None or (with_steps and not had_steps):
            pair = self.sample(reference), self.sample(candidate)
            before = time.thread_time()
            found = measure(relation, *pair, self._metrics, Context(plan if borders else None, self.device))
            self._measured[key] = found, with_steps
            self.comparing_s += time.thread_time() - before
        return found

    def _content(self, key: str) -> str:
        """Digest a sample's content, loading it at most once for that."""
        if key not in self._contents:
            sample = self.sample(key)
            self._contents[key] = _content(sample)
            self._with_steps |= {key} if sample.trajectory is not None else set()
        return self._contents[key]


def _num_bytes(sample: Sample) -> int:
    arrays = (*(sample.images or ()), sample.latents, sample.trajectory)
    return sum(array.nbytes for array in arrays if array is not None)


def _content(sample: Sample) -> str:
    """Digest pictures and latents, with dtypes and shapes."""
    digest = hashlib.sha256()
    for array in (*(sample.images or ()), *(() if sample.latents is None else (sample.latents,))):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.ravel().data)  # copies only an array that is not contiguous
    digest.update(b"no images" if sample.images is None else b"")
    return digest.hexdigest()
