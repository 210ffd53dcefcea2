"""Approval of goldens: preview of the changes, and writing to the store."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness import files
from harness.diagnose.sentence import describe
from harness.errors import ConfigError, GoldenError, UsageError, did_you_mean
from harness.goldens import golden
from harness.goldens.for_run import approvable, baseline_of
from harness.goldens.open_store import store_of
from harness.goldens.pin import is_pinned, known_digests, note_approved
from harness.goldens.store import Look
from harness.judging import judge
from harness.judging.comparisons import Measurer
from harness.runs.folder import RunFolder
from harness.types import Case, Relation, Report, Run

Figures = Mapping[str, judge.Approved]
"""Variant label to the figures approved for it."""


@dataclass(frozen=True)
class Change:
    """Change that approving one case would make."""

    case: Case
    address: str
    """Of the golden in its store."""
    what: str
    """``new``, ``unchanged``, or by how much the picture and the approved figures change."""
    figures: Figures
    kept: Figures
    """Figures approved before, of variants that this run did not draw; none where the picture changes."""


def changes(folder: RunFolder, report: Report, names: Sequence[str] = ()) -> list[Change]:
    """List the changes that approving a run's baselines would make, without cases whose pictures were packed away.

    Parameters
    ----------
    folder, report
        The run and its report.
    names
        Cases to approve; by default all that the matrix holds to a golden.

    Raises
    ------
    UsageError
        If a named case is not in the run, or its baseline was not drawn, or its pictures are not here.
    """
    cases = {case.name: case for case in folder.plan.matrix.cases}
    store_of(folder.plan.matrix).look(folder.plan.matrix.golden_keys)
    for name in names:
        if name not in cases:
            raise UsageError(f"{folder.path}: there is no case {name!r}; {did_you_mean(name, cases)}")
    found = []
    for name in names or [case.name for case in cases.values() if case.golden == "required"]:
        case = cases[name]
        run = baseline_of(folder, report.runs, case)
        if run is None or run.failure is not None:
            if names:
                raise UsageError(f"{folder.path}: the baseline of case {name!r} was not drawn; run it again")
            continue
        if folder.lost(run):
            if names:
                raise UsageError(
                    f"{folder.path}: holds no picture of case {name!r}, which was left out when it was packed, as it "
                    "passes; approve it from the run folder that was packed"
                )
            continue
        address = golden.address_of(case, golden.platform_of(case, run.versions))
        figures = approvable(report, case)
        what, kept = _what_changes(folder, run, address, figures)
        found.append(Change(case, address, what, figures, kept))
    return found


def left_out(folder: RunFolder, report: Report) -> list[str]:
    """List the cases with a golden whose baseline was drawn and whose pictures are missing in this folder."""
    cases = [case for case in folder.plan.matrix.cases if case.golden == "required"]
    runs = [(case.name, baseline_of(folder, report.runs, case)) for case in cases]
    return [name for name, run in runs if run is not None and run.failure is None and folder.lost(run)]


def approve(folder: RunFolder, report: Report, change: Change, by: str | None = None) -> str:
    """Write one approved golden into the store and return its place there.

    Raises
    ------
    UsageError
        If a folder store cannot be written.
    InfrastructureError
        If a URL store cannot be written; it then holds the golden as a whole or not at all.
    """
    run = baseline_of(folder, report.runs, change.case)
    assert run is not None
    provenance = {
        "approved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "approved_by": by or _user(),
        "run": report.name,
        "drawn_at": run.started_at,
        "source": run.spec.source,
        "approver_commit": _commit(),
        **run.versions,
    }
    platform = golden.platform_of(change.case, run.versions)
    figures = {**change.kept, **change.figures}
    matrix = folder.plan.matrix
    store = store_of(matrix)
    others = dict(store.look(matrix.golden_keys, fresh=False).descriptions) if is_pinned(matrix) else {}
    others.pop(change.address, None)

    def make(place: Path) -> None:
        golden.write(place, run, folder.folder_of(run.spec), figures, platform, provenance)
        if is_pinned(matrix):
            # A failed upload leaves the store without this golden, or, at its very end, with it.
            written = golden.sha256((place / golden.DESCRIPTION).read_bytes())
            note_approved(folder, Look(others).digest, Look({**others, change.address: written}).digest)

    place = store.name(change.address)
    with files.writing(place, "see golden_store"):
        store.write(change.address, make)
    return place


def check_known(folder: RunFolder, pin: str | None) -> None:
    """Refuse to approve beside goldens that are not pinned: the new pin would cover them too.

    The store has to match the run's pin, the present pin of the matrix file, or an earlier approval of this run.

    Parameters
    ----------
    folder
        The run.
    pin
        Present pin of the matrix file.

    Raises
    ------
    ConfigError
        If the store is pinned and holds something else.
    """
    matrix = folder.plan.matrix
    look = store_of(matrix).look(matrix.golden_keys)
    if look.descriptions and is_pinned(matrix) and look.digest not in known_digests(folder, pin):
        raise ConfigError(
            f"{matrix.path}: golden_store {matrix.golden_store} holds goldens that come to {look.digest}, but "
            f"golden_digest says {matrix.golden_digest or 'nothing'}; restore the store, or write its digest into "
            "the file if a person approved what it holds, then approve again"
        )


def pin(folder: RunFolder) -> str | None:
    """Return the new value of ``golden_digest``; ``None`` where the store is under version control."""
    matrix = folder.plan.matrix
    if not is_pinned(matrix) and _lies_beside(Path(matrix.path), Path(matrix.golden_store)):
        return None
    return store_of(matrix).look(matrix.golden_keys).digest


def _lies_beside(matrix: Path, store: Path) -> bool:
    """Whether a store is in the same checkout as the matrix file."""
    checkout = next((parent for parent in matrix.absolute().parents if (parent / ".git").exists()), None)
    return checkout is not None and store.absolute().is_relative_to(checkout)


def _what_changes(folder: RunFolder, run: Run, address: str, figures: Figures) -> tuple[str, Figures]:
    """Describe the change that approving makes, and return the old figures that stay approved."""
    try:
        place = store_of(folder.plan.matrix).fetch(address)
        old = golden.load(place, address)
        if old is None:
            return "new", {}
        sample = golden.load_sample(place, old)
    except GoldenError as error:
        return f"replaces an altered golden ({error})", {}
    measurer = Measurer(folder)
    measurer.add("golden", lambda: sample)
    measurer.add("run", lambda: folder.sample(run))
    comparison = measurer.measure(Relation.GOLDEN_BASELINE, "golden", "run")
    picture = "" if comparison.exact else f"picture changes ({describe(comparison)} to the old one)"
    weights = "" if old.weights == run.spec.weights else "other weights"
    kept = {} if picture or weights else old.approved
    whole = "" if golden.is_whole(old) else "the whole picture takes the place of a reduced one"
    parts = [picture, weights, whole, *_new_figures(old.approved, figures)]
    return "; ".join(part for part in parts if part) or "unchanged", kept


def _new_figures(old: Figures, new: Figures) -> Iterator[str]:
    for label, figures in new.items():
        if label not in old:
            yield f"{label} is approved for the first time"
            continue
        for relation, value in figures.items():
            if old[label].get(relation) != value:
                yield f"{relation} of {label} {_db(old[label].get(relation))} -> {_db(value)}"


def _db(value: float | None) -> str:
    return "exact" if value is None else f"{value:g} dB"


def _user() -> str:
    name = _git("config", "user.name")
    try:
        return name or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _commit() -> str:
    """Return the commit of the approver's checkout; the code that drew the picture is in the run's source digest."""
    return _git("rev-parse", "HEAD") or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
