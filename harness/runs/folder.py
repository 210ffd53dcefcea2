"""The run folder: what was planned and what has been computed.

    reports/RUN/
      plan.json          the matrix, the rows and the run graph, written before anything is computed
      journal.jsonl      one line for each event, with its time
      runs/DIGEST/       run.json, pictures, latents; a folder appears when its run is over
      logs/GROUP/        what each rank printed
      proposals/         goldens that wait for approval
      explained/         what failing comparisons showed when they were drawn once more with a probe
      report.json ...    written by the reporters

All of it can be read again at any time, on any machine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from harness import codec
from harness.errors import FileError, InfrastructureError, UsageError
from harness.matrix.selection import narrowed
from harness.planning.graph import Graph
from harness.planning.partition import Merged, Shard, divide, part
from harness.runs.sample import Sample, load_sample
from harness.types import SCHEMA, Comparison, Explanation, GoldenPolicy, Matrix, Relation, Report, Row, Run, RunSpec

MEASURED = "measured"
"""Event of the journal: what measuring beside the drawing came to."""


@dataclass(frozen=True)
class Plan:
    """``plan.json``."""

    name: str
    matrix: Matrix
    golden: GoldenPolicy
    rows: tuple[Row, ...]
    specs: Mapping[str, RunSpec]
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    shard: Shard | None = None
    """Which part of ``whole`` this is."""
    whole: Plan | None = None
    """The plan of the whole matrix, where this is one of its shards."""
    merged: Merged | None = None
    """What a folder was merged from."""
    schema: int = SCHEMA

    @property
    def graph(self) -> Graph:
        """The run graph."""
        return Graph(self.rows, self.specs)

    def part(self, shard: Shard) -> Plan:
        """The plan of one shard of this matrix."""
        kept = part(self.graph, divide(self.graph, shard.of)[shard.index - 1])
        matrix = narrowed(self.matrix, [(row.case.name, row.variant.label) for row in kept.rows])
        return replace(self, matrix=matrix, rows=kept.rows, specs=kept.specs, shard=shard, whole=self)


class RunFolder:
    """One run of a matrix on disk."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan

    @classmethod
    def create(
        cls, out: Path, matrix: Matrix, graph: Graph, golden: GoldenPolicy, shard: Shard | None = None
    ) -> RunFolder:
        """Make a new run folder below ``out``, of a whole matrix or of one shard of it.

        Raises
        ------
        UsageError
            If the folder cannot be written.
        """
        plan = Plan("", matrix, golden, graph.rows, graph.specs)
        return cls.of(out, plan.part(shard) if shard else plan)

    @classmethod
    def of(cls, out: Path, plan: Plan) -> RunFolder:
        """Make a new run folder below ``out`` for a plan, and name both after matrix, shard and time.

        Raises
        ------
        UsageError
            If the folder cannot be written.
        """
        which = f"-{plan.shard.index}of{plan.shard.of}" if plan.shard else "-merged" if plan.merged else ""
        stem = f"{plan.matrix.name}{which}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        try:
            path = _new_folder(out, stem)
            plan = replace(plan, name=path.name)
            codec.write_json(path / "plan.json", plan)
        except OSError as error:
            raise UsageError(f"{out}: cannot be written ({error.strerror}); name another folder with --out") from None
        return cls(path, plan)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder.

        Raises
        ------
        FileError
            If it is none.
        """
        if not (path / "plan.json").is_file():
            raise FileError(f"{path}: is no run folder (it has no plan.json); name one such as reports/pr-...")
        return cls(path, codec.read_json(path / "plan.json", Plan, SCHEMA))

    def folder_of(self, spec: RunSpec) -> Path:
        """Folder of one run."""
        return self.path / "runs" / spec.digest

    def runs(self) -> dict[str, Run]:
        """Every run of the plan that is over, by digest; a run whose digest no longer fits is left out."""
        return {digest: run for digest in self.plan.specs if (run := self.run(digest))}

    def run(self, digest: str) -> Run | None:
        """A run of the plan, if it is over and its digest still fits."""
        description = self.path / "runs" / digest / "run.json"
        run = codec.read_json(description, Run, SCHEMA) if description.is_file() else None
        return run if run and run.spec.digest == digest else None

    def is_complete(self) -> bool:
        """Whether every planned run is over, drawn or failed."""
        return self.plan.specs.keys() <= self.runs().keys()

    def replan(self, graph: Graph) -> None:
        """Take a new run graph for the same matrix, for the whole of it where this is a shard.

        Runs whose digests it does not name count no more.
        """
        whole = replace(self.plan.whole or self.plan, name=self.plan.name, rows=graph.rows, specs=graph.specs)
        self.plan = whole.part(self.plan.shard) if self.plan.shard else whole
        codec.write_json(self.path / "plan.json", self.plan)

    def recorded_s(self) -> float:
        """Seconds spent recording, over all sessions that worked on this folder; not what was measured after that."""
        journal = self.path / "journal.jsonl"
        seconds, last = 0.0, None
        for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # cut short when its writer was killed
            if entry["event"] == MEASURED:
                continue
            if entry["event"] != "begun" and last is not None:
                seconds += entry["time"] - last
            last = entry["time"]
        return round(seconds, 2)

    def missing(self, rows: Iterable[Row] | None = None) -> list[RunSpec]:
        """Runs that rows (all by default) still lack.

        A picture is kept, and so is a failure that is the engine's own; one of the machine's is tried again.
        """
        settled = {
            digest for digest, run in self.runs().items() if run.failure is None or not run.failure.kind.infrastructure
        }
        return self.plan.graph.missing(settled, rows)

    def note(self, event: str, **fields: object) -> None:
        """Add a line to the journal.

        Raises
        ------
        InfrastructureError
            If the disk is full or broken.
        """
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields})
        try:
            with (self.path / "journal.jsonl").open("a", encoding="utf-8") as journal:
                journal.write(line + "\n")
        except OSError as error:
            remedy = f"mend that, then finish with: sp-harness run --resume {self.path}"
            raise InfrastructureError(
                f"{self.path}: the journal cannot be written ({error.strerror}); {remedy}"
            ) from None

    def explanation_file(self, comparison: Comparison) -> Path:
        """Where the explanation of a comparison is kept: it serves every row that makes the same one."""
        return self.path / "explained" / f"{comparison.relation}-{comparison.reference}-{comparison.candidate}.json"

    def explanation(self, row: Row) -> Explanation | None:
        """What is known from inside about a row's comparisons; of several, about the first in the way of the data."""
        for relation in (Relation.CONTROL, Relation.EXCHANGE):
            comparison = row.comparison(relation)
            if comparison is not None and self.explanation_file(comparison).is_file():
                return codec.read_json(self.explanation_file(comparison), Explanation, SCHEMA)
        return None

    def lost(self, run: Run) -> list[Path]:
        """Files that a run left and that are not here: of a packed run, those of rows that pass."""
        names = [*run.images, *([run.latents] if run.latents else [])]
        return [path for name in names if not (path := self.folder_of(run.spec) / name).is_file()]

    def check_whole(self) -> None:
        """See that the pictures of every run are here.

        Raises
        ------
        FileError
            If one is missing, and where to look for it.
        """
        for run in self.runs().values():
            self._check_here(run)

    def _check_here(self, run: Run) -> None:
        for path in self.lost(run):
            raise FileError(
                f"{path}: is missing; a packed run holds whole pictures of rows that do not pass alone: use the run "
                f"folder that was packed, or draw anew with: sp-harness run {self.plan.matrix.path}"
            )

    def sample(self, run: Run) -> Sample:
        """Load a run's pictures and latents.

        Raises
        ------
        FileError
            If one is missing.
        """
        self._check_here(run)
        return load_sample(run.spec.digest, self.folder_of(run.spec), run.images, run.latents)


def read_report(path: Path) -> Report:
    """Read the report of a run folder.

    Raises
    ------
    FileError
        If there is none, or it is of a newer schema.
    """
    if not (path / "report.json").is_file():
        raise FileError(f"{path}: holds no report.json; make one with: sp-harness compare {path}")
    return codec.read_json(path / "report.json", Report, SCHEMA)


def _new_folder(out: Path, stem: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):
        raise PermissionError(13, "permission denied")
    number = 1
    while True:
        path = out / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
