"""Comparisons of a run folder: each pair of samples is loaded and measured once.

Equal samples are recognised by the digest of their content: where a golden equals the baseline, a candidate's
distance to both is one measurement. Samples are cached up to a number of bytes, digests and figures without limit.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property

from harness import plugins
from harness.judging import own_arithmetic
from harness.judging.measure import compare_decisions, measure
from harness.planning.graph import DRAWS
from harness.plugins import Context, Metric
from harness.runs.folder import RunFolder
from harness.runs.sample import Sample
from harness.types import Comparison, Relation, Row, Run, ShardPlan

EDGES = {
    Relation.EXCHANGE: ("replay", "candidate"),
    Relation.CONTROL: ("baseline", "control"),
    Relation.LAYOUT: ("baseline", "replay"),
    Relation.PAIR: ("baseline", "candidate"),
    Relation.REPEAT: ("baseline", "repeat"),
}
"""Relation to the roles it compares: reference, candidate."""
JUDGED_METRICS = ("psnr", "worst-tile")
"""Metrics that bounds refer to; measured whatever a matrix selects, and of draws of the floor nothing else."""
KEPT_BYTES = 512 << 20
"""Bytes of cached samples, beyond the two that are compared."""
MOST_THREADS = 8
"""Threads that compare: each holds two samples, beyond those that are cached."""


class Measurer:
    """Measures samples by key, a run's digest or a name given to :meth:`add`.

    Parameters
    ----------
    folder
        The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._plans: dict[str, ShardPlan | None] = {}
        self._versions: dict[str, str] = {}
        self._loaders: dict[str, Callable[[], Sample]] = {}
        self._samples: OrderedDict[str, Sample] = OrderedDict()  # by last use
        self._cache = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._contents: dict[str, str] = {}
        self._with_steps: set[str] = set()
        self._measured: dict[tuple[object, ...], tuple[Comparison, bool]] = {}  # and whether both had a trajectory

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

    def compare(self, rows: Sequence[Row], runs: Mapping[str, Run]) -> None:
        """Compare the runs of rows, all of which must have been drawn, on all cores: :meth:`of_row` finds the result.

        Reading, hashing and arithmetic release the interpreter's lock.
        """
        pairs: dict[tuple[str, str], Relation] = {}
        for row in rows:
            for digest in row.runs.values():
                self.add_run(runs[digest])
            for relation, reference, candidate in _edges(row):
                pairs.setdefault((row.runs[reference], row.runs[candidate]), relation)
        with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
            deque(pool.map(lambda pair: self.measure(pairs[pair], *pair), pairs), maxlen=0)

    def of_row(self, row: Row, runs: Mapping[str, Run]) -> list[Comparison]:
        """Compare a row's runs, all of which must have been drawn, by :data:`EDGES`, and a cache's decisions."""
        for role in row.runs:
            self.add_run(runs[row.runs[role]])
        figures = [
            self.measure(relation, row.runs[reference], row.runs[candidate])
            for relation, reference, candidate in _edges(row)
        ]
        if row.variant.cache == "none":
            return figures
        return [compare_decisions(runs[row.runs["replay"]], runs[row.runs["candidate"]]), *figures]

    def measure(self, relation: Relation, reference: str, candidate: str) -> Comparison:
        """Compare two samples by their keys."""
        if reference == candidate:
            return Comparison(relation, reference, candidate, same_run=True)
        found = self._compared(relation, reference, candidate)
        return replace(found, relation=relation, reference=reference, candidate=candidate)

    def sample(self, key: str) -> Sample:
        """Return a sample from the cache, or load it."""
        with self._loading.setdefault(key, threading.Lock()):
            sample = self._samples.get(key) or self._loaders[key]()
            with self._cache:
                self._samples[key] = sample
                self._samples.move_to_end(key)
                while len(self._samples) > 2 and sum(map(_num_bytes, self._samples.values())) > KEPT_BYTES:
                    self._samples.popitem(last=False)
        return sample

    def add_run(self, run: Run) -> None:
        """Register a run under its digest."""
        self._plans[run.spec.digest] = run.spec.plan
        self.add(run.spec.digest, lambda: self._folder.sample(run), f"{run.started_at} {run.wall_s}")

    def _compared(self, relation: Relation, reference: str, candidate: str) -> Comparison:
        plan = self._plans.get(candidate)
        borders = (plan.axis, plan.origins) if plan and len(plan.origins) > 1 else None
        of_floor = relation == Relation.FLOOR
        key = (self._content(reference), self._content(candidate), borders, of_floor)
        with_steps = {reference, candidate} <= self._with_steps
        found, had_steps = self._measured.get(key, (None, False))
        # A golden has no trajectory: its figures hold for a run of the same content, but for the steps.
        if found is None or (with_steps and not had_steps):
            pair = self.sample(reference), self.sample(candidate)
            metrics = [metric for metric in self._metrics if not of_floor or metric.name in JUDGED_METRICS]
            found = measure(relation, *pair, metrics, Context(plan if borders else None))
            self._measured[key] = found, with_steps
        return found

    def _content(self, key: str) -> str:
        """Digest a sample's content, loading it at most once for that."""
        if key not in self._contents:
            sample = self.sample(key)
            self._contents[key] = _content(sample)
            self._with_steps |= {key} if sample.trajectory is not None else set()
        return self._contents[key]


def _edges(row: Row) -> list[tuple[Relation, str, str]]:
    """List relation, reference and candidate: :data:`EDGES`, the draws of the noise floor, and own arithmetic's."""
    edges = [(relation, *roles) for relation, roles in EDGES.items()]
    edges += [(Relation.FLOOR, "baseline", role) for role in DRAWS]
    reference = own_arithmetic.reference_role(row) if row.own else None
    if reference is not None:
        edges += [(Relation.OWN_EXCHANGE, reference, "candidate"), (Relation.PADDED_CONTROL, "replay", "padded")]
    return [(relation, reference, candidate) for relation, reference, candidate in edges if candidate in row.runs]


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
