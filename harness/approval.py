"""Goldens of a run: compared with, proposed where missing, and approved by a person."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness import codec, compare, golden
from harness.diagnose.sentence import describe
from harness.errors import GoldenError, UsageError, did_you_mean
from harness.measure import Measurer
from harness.record import RunFolder
from harness.types import SCHEMA, Case, Comparison, GoldenPolicy, Matrix, Outcome, Relation, Report, Row, Run


def check_store(matrix: Matrix) -> None:
    """Read every golden's description before anything is computed.

    Raises
    ------
    FileError
        If one is no golden.json, or of a newer schema.
    """
    for case in matrix.cases:
        for description in Path(matrix.golden_store).glob(f"*/*/{case.key}/{golden.DESCRIPTION}"):
            codec.read_json(description, golden.Golden, SCHEMA)


class Goldens:
    """The goldens of one run folder: found once, compared with, proposed where missing."""

    def __init__(self, folder: RunFolder, runs: Mapping[str, Run]) -> None:
        self._folder = folder
        self._runs = runs
        self._store = Path(folder.plan.matrix.golden_store)
        self._found: dict[str, golden.Golden | GoldenError | None] = {}
        for case in folder.plan.matrix.cases:
            if self.policy(case) == "required":
                try:
                    self._found[case.name] = golden.load(self.place(case))
                except GoldenError as error:
                    self._found[case.name] = error

    def policy(self, case: Case) -> GoldenPolicy:
        """Whether a case is held to a golden in this run."""
        return "off" if self._folder.plan.golden == "off" else case.golden

    def platform(self, case: Case) -> str:
        """Platform of a case, from what its baseline reported."""
        run = self._baseline(case)
        return golden.platform_of(case, run.versions if run else {})

    def place(self, case: Case) -> Path:
        """Folder of a case's golden in the store."""
        return golden.folder_of(self._store, case, self.platform(case))

    def folders(self) -> dict[str, str]:
        """Case key to golden folder, where there is a golden."""
        return {
            case.key: str(self.place(case))
            for case in self._folder.plan.matrix.cases
            if isinstance(self._found.get(case.name), golden.Golden)
        }

    def is_missing(self, case: Case) -> bool:
        """Whether a golden is asked for and there is none."""
        return self.policy(case) == "required" and self._found[case.name] is None

    def approved(self, row: Row) -> compare.Approved | None:
        """Figures approved for a row's variant."""
        found = self._found.get(row.case.name)
        return found.approved.get(row.variant.label) if isinstance(found, golden.Golden) else None

    def comparisons(self, row: Row, measurer: Measurer) -> list[Comparison]:
        """Baseline and candidate, each against the golden.

        A cached row has none: the golden is the picture drawn without a cache.
        """
        found = self._found.get(row.case.name)
        if found is None or row.variant.cache != "none":
            return []
        key = f"golden:{row.case.key}"
        problem = None
        if isinstance(found, GoldenError):
            problem = str(found)
        elif found.weights != self._folder.plan.specs[row.runs["baseline"]].weights:
            problem = f"the golden was approved for other weights of {row.case.model}; approve the case anew"
        if problem:
            return [Comparison(Relation.GOLDEN_BASELINE, key, row.runs["baseline"], problem=problem)]
        assert isinstance(found, golden.Golden)
        measurer.add(key, lambda: golden.load_sample(self.place(row.case), found))
        return [
            measurer.measure(Relation.GOLDEN_BASELINE, key, row.runs["baseline"]),
            measurer.measure(Relation.GOLDEN_CANDIDATE, key, row.runs["candidate"]),
        ]

    def notes(self) -> tuple[str, ...]:
        """What the report says about goldens as a whole."""
        cases = self._folder.plan.matrix.cases
        if all(self.policy(case) == "off" for case in cases):
            return ("Goldens are off: nothing was held to an approved picture.",)
        if all(self._found.get(case.name) is None for case in cases):
            platforms = ", ".join(sorted({self.platform(case) for case in cases}))
            return (f"There are no goldens for the platform {platforms}; proposals lie in the run folder.",)
        return ()

    def propose(self, report: Report) -> None:
        """Leave a golden in ``proposals/`` for every case that lacks one and whose baseline was drawn."""
        for case in self._folder.plan.matrix.cases:
            baseline = self._baseline(case)
            if self.is_missing(case) and baseline is not None and baseline.failure is None:
                golden.write(
                    golden.folder_of(self._folder.path / "proposals", case, self.platform(case)),
                    baseline,
                    self._folder.folder_of(baseline.spec),
                    approvable(report, case),
                    self.platform(case),
                    {"run": report.name},
                )

    def _baseline(self, case: Case) -> Run | None:
        return baseline_of(self._folder, self._runs, case)


def baseline_of(folder: RunFolder, runs: Mapping[str, Run], case: Case) -> Run | None:
    """The baseline run of a case, drawn without a cache, if it is over."""
    for row in folder.plan.rows:
        if row.case == case and row.runs and row.variant.cache == "none":
            return runs.get(row.runs["baseline"])
    return None


def approvable(report: Report, case: Case) -> dict[str, dict[str, float | None]]:
    """Figures of a case's variants that may be approved: of rows whose split is sound.

    A row that fails only against what was approved before is sound: approving anew is its cure.
    """
    figures = {}
    for row in report.rows:
        if row.case == case and _is_sound(row):
            figures[row.variant.label] = {
                relation.value: latents_db(row.comparison(relation)) for relation in (Relation.PAIR, Relation.LAYOUT)
            }
    return figures


def _is_sound(row: Row) -> bool:
    if row.verdict is None or row.verdict.outcome not in (Outcome.PASS, Outcome.NO_GOLDEN, Outcome.FAIL):
        return False
    broken = {judgement.relation for judgement in row.verdict.judgements if judgement.ok is False}
    return not broken & {Relation.EXCHANGE, Relation.CONTROL}


def latents_db(comparison: Comparison | None) -> float | None:
    """Latents PSNR of a comparison in dB; ``None`` where it is exact."""
    figure = comparison.figure("psnr", "latents") if comparison and not comparison.exact_latents else None
    return round(figure.value, 3) if figure and figure.value is not None else None


# ---------------------------------------------------------------- approving


Figures = Mapping[str, compare.Approved]
"""Variant label to the figures approved for it."""


@dataclass(frozen=True)
class Change:
    """What approving one case would do."""

    case: Case
    folder: Path
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
        place = golden.folder_of(Path(folder.plan.matrix.golden_store), case, golden.platform_of(case, run.versions))
        figures = approvable(report, case)
        what, kept = _what_changes(folder, run, place, figures)
        found.append(Change(case, place, what, figures, kept))
    return found


def approve(folder: RunFolder, report: Report, change: Change, by: str | None = None) -> None:
    """Write one approved golden into the store."""
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
    golden.write(change.folder, run, folder.folder_of(run.spec), figures, platform, provenance)


def _what_changes(folder: RunFolder, run: Run, place: Path, figures: Figures) -> tuple[str, Figures]:
    """Say what approving changes and by how much; and which old figures stay approved."""
    try:
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
