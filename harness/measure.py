"""Comparisons of a run folder: each pair of samples is loaded and measured once.

Equal samples are told by the digest of their content: where a golden equals the baseline, a candidate's
distance to both is one measurement. Samples themselves are kept while there is room, their digests for
good. A measurer can also work ahead in a thread of its own while other runs are still being computed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from harness import registry
from harness.compare import JUDGED_METRICS, Sample, compare_decisions, measure
from harness.record import RunFolder
from harness.types import Comparison, Metric, Relation, Row, Run, ShardPlan

EDGES = {
    Relation.EXCHANGE: ("replay", "candidate"),
    Relation.CONTROL: ("baseline", "control"),
    Relation.LAYOUT: ("baseline", "replay"),
    Relation.PAIR: ("baseline", "candidate"),
    Relation.FLOOR: ("baseline", "reordered"),
    Relation.REPEAT: ("baseline", "repeat"),
}
"""Roles each relation compares: reference, candidate."""
KEPT_BYTES = 512 << 20
"""Of samples in memory, beside the two that are compared: most are needed again soon, and none is worth more."""


class Measurer:
    """Measures samples by key; keys are run digests and whatever :meth:`add` names."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        selected = folder.plan.matrix.metrics
        declared = [bound.metric for _, bound in folder.plan.matrix.declared]
        names = [*JUDGED_METRICS, *declared, *selected] if selected else registry.names("metrics")
        self._metrics: list[Any] = [registry.load("metrics", name) for name in dict.fromkeys(names)]
        self._plans: dict[str, ShardPlan | None] = {}
        self._versions: dict[str, str] = {}
        self._loaders: dict[str, Callable[[], Sample]] = {}
        self._samples: OrderedDict[str, Sample] = OrderedDict()  # by last use
        self._contents: dict[str, str] = {}
        self._measured: dict[tuple[object, ...], Comparison] = {}

    def add(self, key: str, load: Callable[[], Sample], version: str = "") -> None:
        """Make a sample known; it is loaded when it is first needed.

        Parameters
        ----------
        key, load
            Its name, and what loads it.
        version
            Tells samples apart that bear the same name one after the other, as a golden that is approved anew.
        """
        if self._versions.get(key) != version:
            self._versions[key], self._loaders[key] = version, load
            self._samples.pop(key, None)
            self._contents.pop(key, None)

    def of_row(self, row: Row, runs: Mapping[str, Run]) -> list[Comparison]:
        """The relations of :data:`EDGES` between a row's runs, all of which must have been drawn, and a cache's."""
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
        plan = self._plans.get(candidate)
        borders = (plan.axis, plan.origins) if plan and len(plan.origins) > 1 else None
        key = (self._content(reference), self._content(candidate), borders)
        if key not in self._measured:
            metrics = _made(self._metrics, plan if borders else None)
            self._measured[key] = measure(relation, self._sample(reference), self._sample(candidate), metrics)
        return replace(self._measured[key], relation=relation, reference=reference, candidate=candidate)

    def add_run(self, run: Run) -> None:
        """Make a run known by its digest."""
        self._plans[run.spec.digest] = run.spec.plan
        self.add(run.spec.digest, lambda: self._folder.sample(run))

    def _content(self, key: str) -> str:
        """Digest of a sample, which is loaded for it at most once."""
        if key not in self._contents:
            self._contents[key] = _content(self._sample(key))
        return self._contents[key]

    def _sample(self, key: str) -> Sample:
        """A sample, loaded again where it has had to make room."""
        if key not in self._samples:
            self._samples[key] = self._loaders[key]()
        self._samples.move_to_end(key)
        while len(self._samples) > 2 and sum(map(_num_bytes, self._samples.values())) > KEPT_BYTES:
            self._samples.popitem(last=False)
        return self._samples[key]


Besides = Callable[[Row, Mapping[str, Run], Measurer], None]
"""What else to measure of a row, all of whose runs are there; of the others there are more each time."""


class AheadMeasurer:
    """Measures in a background thread, each pair of runs as soon as both are there.

    Parameters
    ----------
    folder
        The run folder.
    besides
        What else to measure, row by row.
    """

    def __init__(self, folder: RunFolder, besides: Besides) -> None:
        self._measurer = Measurer(folder)
        self._besides = besides
        self._pairs = {
            (row.runs[reference], row.runs[candidate]): relation
            for row in folder.plan.rows
            if row.runs
            for relation, (reference, candidate) in EDGES.items()
            if candidate in row.runs
        }
        self._rows = [row for row in folder.plan.rows if row.runs]
        self._drawn: dict[str, Run] = {}
        self._executor = ThreadPoolExecutor(1, "measure")
        self._futures: list[Future[object]] = []
        for run in folder.runs().values():
            self.finished(run)

    def finished(self, run: Run) -> None:
        """Take note of a run; measure it against every run it waits for."""
        if run.failure is not None:
            return
        self._drawn[run.spec.digest] = run
        self._measurer.add_run(run)
        for pair in [pair for pair in self._pairs if self._drawn.keys() >= set(pair)]:
            self._futures.append(self._executor.submit(self._measurer.measure, self._pairs.pop(pair), *pair))
        for row in [row for row in self._rows if self._drawn.keys() >= set(row.runs.values())]:
            self._rows.remove(row)
            self._futures.append(self._executor.submit(self._besides, row, self._drawn, self._measurer))

    def wait(self) -> Measurer:
        """Wait for what was begun and return the measurer that knows it."""
        self._executor.shutdown(wait=True)
        for future in self._futures:
            future.result()
        return self._measurer

    def abandon(self) -> None:
        """Begin nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _made(classes: Sequence[Any], plan: ShardPlan | None) -> list[Metric]:
    """Metrics ready to measure; those that need a plan are left out where nothing is cut."""
    made: list[Metric] = []
    for kind in classes:
        needs_plan = getattr(kind, "needs_plan", False)
        if not needs_plan:
            made.append(kind())
        elif plan is not None:
            made.append(kind(plan))
    return made


def _num_bytes(sample: Sample) -> int:
    arrays = (*(sample.images or ()), sample.latents, sample.trajectory)
    return sum(array.nbytes for array in arrays if array is not None)


def _content(sample: Sample) -> str:
    """Digest of pictures and latents, shapes included."""
    digest = hashlib.sha256()
    for array in (*(sample.images or ()), *(() if sample.latents is None else (sample.latents,))):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.ravel().data)  # a copy only where values are not in order
    digest.update(b"no images" if sample.images is None else b"")
    return digest.hexdigest()
