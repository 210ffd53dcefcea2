"""Run folder: the plan of a run, and everything computed for it.

    reports/RUN/
      plan.json          the matrix, the rows and the run graph, written before anything is computed
      journal.jsonl      one line for each event, with its time
      runs/DIGEST/       run.json, pictures, latents; a folder appears when its run is over
      logs/GROUP/        output of each rank
      proposals/         goldens that wait for approval
      explained/         explanations of failing comparisons, from runs repeated with a probe
      report.json ...    written by the reporters

Every file can be read again at any time, on any machine.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from harness import codec, files
from harness.errors import FileError, InfrastructureError, NewerSchemaError
from harness.matrix.selection import narrowed
from harness.planning.graph import Graph
from harness.planning.partition import Merged, Shard, divide, part
from harness.reporting.difference_index import REDUCED
from harness.runs import journal
from harness.runs.journal import Journal
from harness.runs.sample import Sample, check_file, load_sample
from harness.types import (
    SCHEMA,
    Comparison,
    Explanation,
    GoldenPolicy,
    Matrix,
    Relation,
    Report,
    Row,
    Run,
    RunSpec,
    check_plain_name,
)


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
    """Part of ``whole`` that this is; ``None`` for a whole matrix."""
    whole: Plan | None = None
    """The plan of the whole matrix, where this is one of its shards."""
    merged: Merged | None = None
    """Sources of a merged folder."""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name in (self.matrix.name, *(case.name for case in self.matrix.cases), *self.specs):
            check_plain_name(name, "name")

    @property
    def graph(self) -> Graph:
        """Run graph of the plan."""
        return Graph(self.rows, self.specs)

    def part(self, shard: Shard) -> Plan:
        """Return the plan of one shard of this matrix."""
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
        """Create a run folder below ``out`` for a whole matrix or one shard of it.

        Raises
        ------
        UsageError
            If the folder cannot be written.
        """
        plan = Plan("", matrix, golden, graph.rows, graph.specs)
        return cls.of(out, plan.part(shard) if shard else plan)

    @classmethod
    def of(cls, out: Path, plan: Plan) -> RunFolder:
        """Create a run folder below ``out`` for a plan, named after matrix, shard and time.

        Raises
        ------
        UsageError
            If the folder cannot be written.
        """
        which = f"-{plan.shard.index}of{plan.shard.of}" if plan.shard else "-merged" if plan.merged else ""
        stem = f"{plan.matrix.name}{which}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        with files.writing(out, "name another folder with --out"):
            path = _new_folder(out, stem)
            plan = replace(plan, name=path.name)
            codec.write_json(path / "plan.json", plan, durable=True)
        return cls(path, plan)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder.

        Raises
        ------
        FileError
            If ``path`` is no run folder.
        """
        if not (path / "plan.json").is_file():
            raise FileError(f"{path}: is no run folder (it has no plan.json); name one such as reports/pr-...")
        with _cure("nothing else holds what was planned: draw anew with sp-harness run MATRIX"):
            return cls(path, codec.read_json(path / "plan.json", Plan, SCHEMA))

    def folder_of(self, spec: RunSpec) -> Path:
        """Return the folder of one run."""
        return self.path / "runs" / spec.digest

    def runs(self) -> dict[str, Run]:
        """Read every finished run of the plan, by digest; one whose recorded digest differs is left out."""
        return {digest: run for digest in self.plan.specs if (run := self.run(digest))}

    def run(self, digest: str) -> Run | None:
        """Read one run of the plan; ``None`` if it is not finished or its recorded digest differs."""
        description = self.path / "runs" / digest / "run.json"
        with _cure(_drawn_anew(self.path)):
            run = codec.read_json(description, Run, SCHEMA) if description.is_file() else None
        return run if run and run.spec.digest == digest else None

    def is_complete(self) -> bool:
        """Whether every planned run is over, drawn or failed."""
        return self.plan.specs.keys() <= self.runs().keys()

    def replan(self, graph: Graph) -> None:
        """Replace the run graph by a new one of the same matrix (of the whole matrix where this is a shard).

        Runs whose digests it does not name are ignored from then on.
        """
        whole = replace(self.plan.whole or self.plan, name=self.plan.name, rows=graph.rows, specs=graph.specs)
        self.plan = whole.part(self.plan.shard) if self.plan.shard else whole
        codec.write_json(self.path / "plan.json", self.plan, durable=True)

    def recorded_s(self) -> float:
        """Sum the seconds spent recording, over all sessions on this folder, without measuring after them."""
        return Journal.read(self.path).recorded_s()

    def missing(self, rows: Iterable[Row] | None = None) -> list[RunSpec]:
        """List the runs that rows (all by default) still lack.

        Pictures and failures of the engine are kept; failures of the machine are tried again.
        """
        settled = {
            digest for digest, run in self.runs().items() if run.failure is None or not run.failure.kind.infrastructure
        }
        return self.plan.graph.missing(settled, rows)

    def note(self, event: str, **fields: object) -> None:
        """Append a line to the journal; it is on disk then, unless it speaks of nothing that is: ``started``, ``step``.

        Raises
        ------
        InfrastructureError
            If the disk is full or broken.
        """
        entry = {"time": round(time.time(), 3), "event": event, **fields}
        try:
            journal.append(self.path, entry, durable=event not in ("started", "step"))
        except OSError as error:
            remedy = f"mend that, then finish with: sp-harness run --resume {self.path}"
            raise InfrastructureError(
                f"{self.path}: the journal cannot be written ({error.strerror}); {remedy}"
            ) from None

    def explanation_file(self, comparison: Comparison) -> Path:
        """Return the file of a comparison's explanation, shared by all rows with that comparison."""
        return self.path / "explained" / f"{comparison.relation}-{comparison.reference}-{comparison.candidate}.json"

    def explanation(self, row: Row) -> Explanation | None:
        """Read the explanation of a row's control comparison, or else of its exchange comparison."""
        for relation in (Relation.CONTROL, Relation.EXCHANGE):
            comparison = row.comparison(relation)
            if comparison is not None and self.explanation_file(comparison).is_file():
                with _cure(f"remove it, then: sp-harness explain {self.path}"):
                    return codec.read_json(self.explanation_file(comparison), Explanation, SCHEMA)
        return None

    def lost(self, run: Run) -> list[Path]:
        """List the files of a run that are missing here; a packed run lacks those of rows that pass."""
        return [path for name in run.file_names if not (path := self.folder_of(run.spec) / name).is_file()]

    def check_whole(self) -> None:
        """Check that the journal can be read, and the files of every finished run are there, as they were recorded.

        Raises
        ------
        FileError
            Naming the first that is not.
        """
        Journal.read(self.path)
        for run in self.runs().values():
            self._check_here(run)
            check_recorded(self.path, run)

    def clear_scratch(self) -> None:
        """Remove what a process that was killed while it wrote has left; for the one process that records."""
        for path in (self.path / "runs").glob(files.building(Path("*")).name):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.path.glob(files.TEMPORARY):
            path.unlink(missing_ok=True)

    def set_damaged_aside(self) -> None:
        """Remove finished runs with damaged or missing files, and damaged lines of the journal, which says so.

        These runs count as not drawn.

        Raises
        ------
        FileError
            If files are missing because the run was packed.
        """
        for number in journal.mend(self.path):
            self.note("damaged", problem=f"{self.path / journal.NAME}: line {number} was no event")
        for digest in self.plan.specs:
            try:
                run = self.run(digest)
                if run:
                    self._check_here(run)
                    check_recorded(self.path, run)
            except FileError as error:
                if any((self.path / "runs" / digest).glob(f"*{REDUCED}")):
                    raise
                self.note("damaged", run=digest, problem=str(error).removesuffix(f"; {_drawn_anew(self.path)}"))
                shutil.rmtree(self.path / "runs" / digest)

    def _check_here(self, run: Run) -> None:
        for path in self.lost(run):
            if not any(path.parent.glob(f"*{REDUCED}")):
                raise FileError(f"{path}: is missing; {_drawn_anew(self.path)}")
            raise FileError(
                f"{path}: is missing; a packed run holds whole pictures of rows that do not pass alone: use the run "
                f"folder that was packed, or draw anew with: sp-harness run {self.plan.matrix.path}"
            )

    def sample(self, run: Run) -> Sample:
        """Load a run's pictures and latents.

        Raises
        ------
        FileError
            If one is missing or damaged.
        """
        self._check_here(run)
        check_recorded(self.path, run)
        return load_sample(run.spec.digest, self.folder_of(run.spec), run.images, run.latents)

    def notes(self) -> Iterator[str]:
        """Yield the notes of a report on what was found damaged in this folder."""
        for event in Journal.read(self.path).events:
            if event["event"] == "damaged":
                became = "counted as not computed" if "run" in event else "removed"
                yield f"Damaged, and {became} when this run was resumed: {event.get('problem')}."


@contextmanager
def _cure(words: str) -> Iterator[None]:
    """Add the remedy to the error of a damaged file."""
    try:
        yield
    except NewerSchemaError:
        raise
    except FileError as error:
        raise FileError(f"{error}; {words}") from None


def read_report(path: Path) -> Report:
    """Read the report of a run folder.

    Raises
    ------
    FileError
        If there is none, or it is of a newer schema.
    """
    if not (path / "report.json").is_file():
        raise FileError(f"{path}: holds no report.json; make one with: sp-harness compare {path}")
    with _cure(f"make it anew with: sp-harness compare {path}"):
        return codec.read_json(path / "report.json", Report, SCHEMA)


def check_recorded(path: Path, run: Run) -> None:
    """Check the files of a run that are there by size and digest; those of earlier versions can be read at least.

    Raises
    ------
    FileError
        Naming the first that is damaged.
    """
    for name in run.file_names:
        file = path / "runs" / run.spec.digest / name
        if file.is_file():
            with _cure(_drawn_anew(path)):
                check_file(file, run.files.get(name))


def _drawn_anew(path: Path) -> str:
    return f"draw it anew with: sp-harness run --resume {path}"


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
