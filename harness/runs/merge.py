"""Merging of run folders: shards of one matrix, drawn on different machines, become one run."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import codec, files
from harness.errors import UsageError
from harness.planning.graph import case_groups
from harness.planning.partition import Merged, divide
from harness.runs.folder import Plan, RunFolder
from harness.runs.journal import Journal
from harness.runs.machines import differing
from harness.types import Matrix, Run, RunSpec


@dataclass(frozen=True)
class _Source:
    """Run folder to be merged."""

    folder: RunFolder

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def whole(self) -> Plan:
        """Plan of the whole matrix."""
        return self.folder.plan.whole or self.folder.plan

    @property
    def of(self) -> int:
        """Number of shards the matrix was divided into."""
        plan = self.folder.plan
        return plan.shard.of if plan.shard else plan.merged.of if plan.merged else 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the run folders it consists of."""
        plan = self.folder.plan
        return plan.merged.runs if plan.merged else (plan.name,)

    @cached_property
    def runs(self) -> dict[str, Run]:
        return self.folder.runs()

    @property
    def place(self) -> tuple[int, str, str]:
        """Sort key that does not depend on the order of the arguments."""
        shard = self.folder.plan.shard
        return (shard.index if shard else 0, self.folder.plan.started_at, self.folder.plan.name)


def merge(paths: Sequence[Path], out: Path, mixed: bool = False, golden_store: str | None = None) -> RunFolder:
    """Create a run folder from the runs of others, which are left unchanged.

    Parameters
    ----------
    paths
        Run folders of one matrix, in any order: shards, complete or interrupted, and earlier merges of them.
    out
        Parent of the new folder.
    mixed
        Accept runs of different devices and library versions; each case still needs one of both.
    golden_store
        Golden store on this machine; that of the first shard by default.

    Raises
    ------
    UsageError
        If the folders do not belong together, or hold different results of one run.
    FileError
        If one is no run folder.
    """
    unique = {path.resolve(): path for path in paths}
    sources = sorted((_Source(RunFolder.open(path)) for path in unique.values()), key=lambda source: source.place)
    first = sources[0]
    for source in sources:
        source.folder.check_whole()
    for other in sources[1:]:
        _check_same_matrix(first, other)
        _check_same_runs(first, other)
    if not mixed:
        _check_same_machines(sources)
    chosen = _choose(sources)
    _check_one_machine_for_a_case(first.whole, chosen)
    merged = Merged(first.of, tuple(sorted({name for source in sources for name in source.names})))
    started_at = min(source.whole.started_at for source in sources)
    matrix = replace(first.whole.matrix, golden_store=golden_store or first.whole.matrix.golden_store)
    plan = replace(first.whole, merged=merged, started_at=started_at, matrix=matrix)
    folder = RunFolder.of(out, plan)
    with files.writing(folder.path, "nothing was merged"):
        try:
            _fill(folder, sources, chosen)
        except OSError:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
    return folder


def division_notes(folder: RunFolder, runs: Mapping[str, Run]) -> Iterator[str]:
    """Yield the notes of a report on a shard, or on the runs that a merged folder lacks."""
    plan = folder.plan
    if plan.shard:
        yield f"This is shard {plan.shard} of the matrix; see all of it with: sp-harness merge RUN ..."
    if plan.merged is None:
        return
    yield f"Merged from {', '.join(plan.merged.runs)}."
    for index, cases in enumerate(divide(plan.graph, plan.merged.of), start=1):
        wanted = {digest for row in plan.rows if row.case.name in cases for digest in row.runs.values()}
        lacking = len(wanted - set(runs))
        if lacking:
            state = "is missing" if lacking == len(wanted) else f"lacks {lacking} of its {len(wanted)} runs"
            yield f"Shard {index}/{plan.merged.of} {state}: {', '.join(cases)}."


# ---------------------------------------------------------------- checks


def _check_same_matrix(first: _Source, other: _Source) -> None:
    if other.of != first.of:
        raise UsageError(
            f"{other.path}: is of a matrix divided into {other.of}, {first.path} of one divided into {first.of}; "
            "merge the shards of one division"
        )
    if other.whole.golden != first.whole.golden:
        raise UsageError(
            f"{other.path}: was run with --golden {other.whole.golden}, {first.path} with --golden {first.whole.golden}"
        )
    ours, theirs = _content(first.whole.matrix), _content(other.whole.matrix)
    others = [key for key in ours if ours[key] != theirs[key]]
    if others:
        raise UsageError(
            f"{other.path}: was planned from another matrix than {first.path} (its {' and '.join(others)} differ); "
            "run every shard with one matrix file and the same filters"
        )


def _content(matrix: Matrix) -> dict[str, Any]:
    """Encode a matrix without the places of its files."""
    left_out = ("path", "golden_store", "golden_keys", "interpreters")
    return {key: value for key, value in codec.encode(matrix).items() if key not in left_out}


def _check_same_runs(first: _Source, other: _Source) -> None:
    for ours, theirs in zip(first.whole.rows, other.whole.rows, strict=True):
        if ours.skip != theirs.skip:
            sides = [f"{row.skip!r}" if row.skip else "none" for row in (theirs, ours)]
            raise UsageError(
                f"{other.path}: the skip of {ours.name} is {sides[0]}, in {first.path} {sides[1]}; "
                "install the same engines on every machine"
            )
        for role, digest in ours.runs.items():
            if theirs.runs.get(role) != digest:
                what = _difference(first.whole.specs[digest], other.whole.specs.get(theirs.runs.get(role, "")))
                raise UsageError(f"{other.path}: {ours.name} was planned with {what} than in {first.path}")


def _difference(ours: RunSpec, theirs: RunSpec | None) -> str:
    if theirs and theirs.weights != ours.weights:
        return f"other weights of {ours.case.model} ({theirs.weights[:12]}, not {ours.weights[:12]})"
    if theirs and theirs.source != ours.source:
        return f"other code or library versions ({theirs.source[:12]}, not {ours.source[:12]})"
    return "another plan"


def _check_same_machines(sources: Sequence[_Source]) -> None:
    found = differing((source.path, run) for source in sources for run in source.runs.values())
    if found:
        raise UsageError(
            f"the machines differ: {found}; add --mixed to merge all the same (the report says which case was "
            "drawn where)"
        )


def _choose(sources: Sequence[_Source]) -> dict[str, _Source]:
    """Choose the folder to take each run from; a result is preferred to a failure of the machine."""
    chosen: dict[str, _Source] = {}
    for source in sources:
        for digest, run in source.runs.items():
            known = chosen.get(digest)
            if known is None or _is_lost(known.runs[digest]):
                chosen[digest] = source
            elif not _is_lost(run) and not _agree(known, source, digest):
                raise UsageError(
                    f"{known.path} and {source.path} hold different results of run {digest} ({run.spec.case.name}, "
                    f"{run.spec.engine}); leave one of the folders out"
                )
    return chosen


def _check_one_machine_for_a_case(whole: Plan, chosen: Mapping[str, _Source]) -> None:
    """Refuse runs of one group that differ in device or versions, ``mixed`` or not."""
    for group in case_groups(whole.specs.values()):
        digests = [spec.digest for spec in group if spec.digest in chosen]
        found = differing((chosen[digest].path, chosen[digest].runs[digest]) for digest in digests)
        if found:
            raise UsageError(
                f"{group[0].case.name}: its runs are of different machines ({found}) and cannot be compared; leave "
                "one of the folders out, and finish what is merged with sp-harness run --resume RUN"
            )


def _is_lost(run: Run) -> bool:
    return run.failure is not None and run.failure.kind.infrastructure


def _agree(first: _Source, other: _Source, digest: str) -> bool:
    ours, theirs = first.runs[digest], other.runs[digest]
    if ours.failure or theirs.failure:
        return (ours.failure and ours.failure.kind) == (theirs.failure and theirs.failure.kind)
    names = [*ours.images, *([ours.latents] if ours.latents else [])]
    places = [source.folder.folder_of(ours.spec) for source in (first, other)]
    return ours.images == theirs.images and all(
        filecmp.cmp(places[0] / name, places[1] / name, shallow=False) for name in names
    )


# ---------------------------------------------------------------- the new folder


def _fill(folder: RunFolder, sources: Sequence[_Source], chosen: Mapping[str, _Source]) -> None:
    for digest, source in chosen.items():
        for file in sorted((source.path / "runs" / digest).iterdir()):
            _link(file, folder.path / "runs" / digest / file.name)
    for number, source in enumerate(sources, start=1):
        for file in sorted((source.path / "explained").glob("*.json")):
            _link(file, folder.path / "explained" / file.name)
        if (source.path / "proposals").is_dir():
            shutil.copytree(source.path / "proposals", folder.path / "proposals", dirs_exist_ok=True)
        if (source.path / "logs").is_dir():
            place = folder.path / "logs" / source.path.name
            if place.exists():  # folders of several machines may share a name
                place = place.with_name(f"{place.name}-{number}")
            shutil.copytree(source.path / "logs", place)
    lines = [line for source in sources for line in _journal(source)]
    files.write_text(folder.path / "journal.jsonl", "".join(f"{line}\n" for line in lines))


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it; run files are replaced as a whole, so a link never changes its source."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _journal(source: _Source) -> Iterator[str]:
    """Yield a journal behind a ``begun`` event, so that the pause before it is not counted as recording."""
    events = Journal.read(source.path).events
    if events:
        yield json.dumps({"time": events[0]["time"], "event": "begun", "merged": source.folder.plan.name})
    yield from map(json.dumps, events)
