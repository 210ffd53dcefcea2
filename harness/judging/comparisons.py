"""Comparisons of a run folder: each pair of samples is loaded and measured once.

Equal samples are told by the digest of their content: where a golden equals the baseline, a candidate's
distance to both is one measurement. Samples themselves are kept while there is room, their digests for
good. What another process has measured can be learnt (:mod:`harness.session.background`).
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
"""Roles each relation compares: reference, candidate."""
JUDGED_METRICS = ("psnr", "max-abs")
"""Metrics that bounds speak of; measured whatever a matrix selects."""
KEPT_BYTES = 512 << 20
"""Of samples in memory, beside the two that are compared: most are needed again soon, and none is worth more."""


Names = tuple[tuple[str, str], tuple[str, str]]
"""Key and version of two samples: reference, candidate."""


class Measurer:
    """Measures samples by key; keys are run digests and whatever :meth:`add` names.

    Parameters
    ----------
    folder
        The run folder.
    device
        GPU that metrics may use, as torch names it; none by default.
    kept_bytes
        Of samples in memory; :data:`KEPT_BYTES` by default.
    on_measured
        Told of each comparison of two samples, and of their names.
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
        """May be changed: a GPU is a run's for a while."""
        self._kept_bytes = KEPT_BYTES if kept_bytes is None else kept_bytes
        self._on_measured = on_measured
        self._plans: dict[str, ShardPlan | None] = {}
        self._versions: dict[str, str] = {}
        self._loaders: dict[str, Callable[[], Sample]] = {}
        self._samples: OrderedDict[str, Sample] = OrderedDict()  # by last use
        self._contents: dict[str, str] = {}
        self._with_steps: set[str] = set()
        self._measured: dict[tuple[object, ...], tuple[Comparison, bool]] = {}  # and whether both had their steps
        self._learnt: dict[Names, Comparison] = {}
        self.num_read = 0
        """Samples read from disk, each time that one is."""
        self.comparing_s = 0.0
        """Processor seconds of this thread spent on comparing samples, once they are in memory."""

    @cached_property
    def _metrics(self) -> list[Metric]:
        matrix = self._folder.plan.matrix
        declared = [bound.metric for _, bound in matrix.declared]
        names = [*JUDGED_METRICS, *declared, *matrix.metrics] if matrix.metrics else plugins.names("metrics")
        return [plugins.load("metrics", name)() for name in dict.fromkeys(names)]

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
        names = self._name(reference), self._name(candidate)
        found = self._learnt.get(names) or self._compared(relation, reference, candidate)
        self._on_measured(names, found)
        return replace(found, relation=relation, reference=reference, candidate=candidate)

    def learn(self, names: Names, comparison: Comparison) -> None:
        """Take what was measured elsewhere, of samples that bear these names."""
        self._learnt[names] = comparison

    def sample(self, key: str) -> Sample:
        """A sample, loaded again where it has had to make room."""
        if key not in self._samples:
            self._samples[key] = self._loaders[key]()
            self.num_read += 1
        self._samples.move_to_end(key)
        while len(self._samples) > 2 and sum(map(_num_bytes, self._samples.values())) > self._kept_bytes:
            self._samples.popitem(last=False)
        return self._samples[key]

    def let_go(self, key: str) -> None:
        """Keep a sample in memory no longer; what is known of it stays known."""
        self._samples.pop(key, None)

    def add_run(self, run: Run) -> None:
        """Make a run known by its digest."""
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
        # A golden has no trajectory. What was measured of it serves a run of the same content, but for the steps.
        if found is None or (with_steps and not had_steps):
            pair = self.sample(reference), self.sample(candidate)
            before = time.thread_time()
            found = measure(relation, *pair, self._metrics, Context(plan if borders else None, self.device))
            self._measured[key] = found, with_steps
            self.comparing_s += time.thread_time() - before
        return found

    def _content(self, key: str) -> str:
        """Digest of a sample, which is loaded for it at most once."""
        if key not in self._contents:
            sample = self.sample(key)
            self._contents[key] = _content(sample)
            self._with_steps |= {key} if sample.trajectory is not None else set()
        return self._contents[key]


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
