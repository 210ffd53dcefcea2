"""Approving: what it would change, and the only way in for a golden."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness import compare, golden
from harness.diagnose.sentence import describe
from harness.errors import ConfigError, GoldenError, UsageError, did_you_mean
from harness.matrix import read_matrix
from harness.measure import Measurer
from harness.record import RunFolder
from harness.run_goldens import approvable, baseline_of, store_of
from harness.store import is_url
from harness.types import Case, Matrix, Relation, Report, Run

APPROVED = "approved.txt"
"""File of a run folder: what its goldens' store came to after each approval of it."""

Figures = Mapping[str, compare.Approved]
"""Variant label to the figures approved for it."""


@dataclass(frozen=True)
class Change:
    """What approving one case would do."""

    case: Case
    address: str
    """Of the golden in its store."""
    what: str
    """``new``, ``unchanged``, or by how much the picture and the approved figures change."""
    figures: Figures
    kept: Figures
    """Figures approved before, of variants that this run did not draw; none where the picture changes."""


def changes(folder: RunFolder, report: Report, names: Sequence[str] = ()) -> list[Change]:
    """List what approving a run's baselines would change.

    Parameters
    ----------
    folder, report
        The run and its report.
    names
        Cases to approve; by default all that the matrix holds to a golden.

    Raises
    ------
    UsageError
        If a named case is not in the run, or its baseline was not drawn.
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
        address = golden.address_of(case, golden.platform_of(case, run.versions))
        figures = approvable(report, case)
        what, kept = _what_changes(folder, run, address, figures)
        found.append(Change(case, address, what, figures, kept))
    return found


def approve(folder: RunFolder, report: Report, change: Change, by: str | None = None) -> None:
    """Write one approved golden into the store.

    Raises
    ------
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
        "source_commit": _commit(),
        **run.versions,
    }
    platform = golden.platform_of(change.case, run.versions)
    figures = {**change.kept, **change.figures}
    store_of(folder.plan.matrix).write(
        change.address,
        lambda place: golden.write(place, run, folder.folder_of(run.spec), figures, platform, provenance),
    )


def check_known(folder: RunFolder) -> None:
    """Refuse to approve on top of goldens that nobody pinned: the new pin would cover them too.

    A store is known if it holds what the run was held to, what the matrix file pins by now, or what an
    earlier approval of this run left.

    Raises
    ------
    ConfigError
        If the store is pinned and holds something else.
    """
    matrix = folder.plan.matrix
    look = store_of(matrix).look(matrix.golden_keys)
    if not look.descriptions or not (is_url(matrix.golden_store) or matrix.golden_digest):
        return
    known = {matrix.golden_digest, _pin_of_file(matrix), *_left_by(folder)}
    if look.digest not in known:
        raise ConfigError(
            f"{matrix.path}: golden_store {matrix.golden_store} holds goldens that come to {look.digest}, but "
            f"golden_digest says {matrix.golden_digest or 'nothing'}; restore the store, or write its digest into "
            "the file if a person approved what it holds, then approve again"
        )


def pin(folder: RunFolder) -> str | None:
    """Digest to be written into the matrix file after approving; ``None`` where nothing is pinned."""
    matrix = folder.plan.matrix
    if not (is_url(matrix.golden_store) or matrix.golden_digest):
        return None
    digest = store_of(matrix).look(matrix.golden_keys).digest
    with (folder.path / APPROVED).open("a", encoding="utf-8") as noted:
        noted.write(f"{digest}\n")
    return digest


def _left_by(folder: RunFolder) -> list[str]:
    """Digests that earlier approvals of this run left in the store."""
    noted = folder.path / APPROVED
    return noted.read_text(encoding="utf-8").split() if noted.is_file() else []


def _pin_of_file(matrix: Matrix) -> str | None:
    """What the matrix file pins by now, if it is still there and can be read."""
    try:
        return read_matrix(Path(matrix.path)).golden_digest
    except UsageError:
        return None


def _what_changes(folder: RunFolder, run: Run, address: str, figures: Figures) -> tuple[str, Figures]:
    """Say what approving changes and by how much; and which old figures stay approved."""
    try:
        place = store_of(folder.plan.matrix).fetch(address)
        old = golden.load(place)
    except GoldenError as error:
        return f"replaces an altered golden ({error})", {}
    if old is None:
        return "new", {}
    measurer = Measurer(folder)
    measurer.add("golden", lambda: golden.load_sample(place, old))
    measurer.add("run", lambda: folder.sample(run))
    comparison = measurer.measure(Relation.GOLDEN_BASELINE, "golden", "run")
    picture = "" if comparison.exact else f"picture changes ({describe(comparison)} to the old one)"
    weights = "" if old.weights == run.spec.weights else "other weights"
    kept = {} if picture or weights else old.approved
    parts = [picture, weights, *_new_figures(old.approved, figures)]
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
    return name or getpass.getuser()


def _commit() -> str:
    return _git("rev-parse", "HEAD") or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
