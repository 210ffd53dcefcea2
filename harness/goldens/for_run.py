"""Goldens of a run: compared with, and proposed where missing; a person approves them in ``approval.py``."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from harness import models
from harness.errors import ConfigError, GoldenError, UsageError
from harness.goldens import golden
from harness.goldens.folder_store import Look, Store, is_url, open_store
from harness.goldens.folder_store import verify as verify_store
from harness.judging import judge
from harness.judging.comparisons import Measurer
from harness.matrix.loader import read_matrix
from harness.runs.folder import RunFolder
from harness.types import Case, Comparison, GoldenPolicy, Matrix, Outcome, Relation, Report, Row, Run, digest_of

APPROVED = "approved.txt"
"""File of a run folder: what its goldens' store came to by approvals of it, line by line."""


def store_of(matrix: Matrix) -> Store:
    """Open the store of a matrix."""
    return open_store(matrix.golden_store, models.cache_dir())


def check_store(matrix: Matrix, known: Collection[str] = ()) -> None:
    """Look at every golden's description, and at the pin, and fetch all, before anything is computed.

    A network that fails hours later then costs nothing. A golden that is altered is its row's to tell.

    Parameters
    ----------
    matrix
        The matrix.
    known
        Digests that are as good as the pin.

    Raises
    ------
    FileError
        If one is no golden.json, or of a newer schema.
    ConfigError
        If the store does not hold what the matrix pins.
    InfrastructureError
        If the store cannot be read.
    """
    if not matrix.golden_keys:
        return
    store = store_of(matrix)
    look = store.look(matrix.golden_keys)
    for address in look.descriptions:
        store.read(address)
    check_pin(matrix, look, known)
    for address in look.descriptions:
        if _asks(matrix, address):
            with contextlib.suppress(GoldenError):
                store.fetch(address)


def check_pin(matrix: Matrix, look: Look, known: Collection[str] = ()) -> None:
    """Hold what a store was seen to hold to the matrix' pin, or to digests that are as good.

    Raises
    ------
    ConfigError
        If they differ, or if a URL store has goldens and no pin.
    """
    if look.digest in known:
        return
    where = f"{matrix.path}: golden_store {matrix.golden_store}"
    count = len(look.descriptions)
    if matrix.golden_digest not in (None, look.digest):
        raise ConfigError(
            f"{where} holds {count} goldens of this matrix that come to {look.digest}, but golden_digest says "
            f"{matrix.golden_digest}; restore the store, or write the new digest if a person approved what it holds"
        )
    if matrix.golden_digest is None and is_url(matrix.golden_store) and count:
        raise ConfigError(
            f"{where} holds {count} goldens of this matrix and nothing pins them; if a person approved what it "
            f'holds, write: golden_digest = "{look.digest}"'
        )


def known_digests(folder: RunFolder) -> set[str]:
    """What the store of a run may come to: what the run was held to, the file's pin by now, what approving left."""
    matrix = folder.plan.matrix
    noted = folder.path / APPROVED
    left = noted.read_text(encoding="utf-8").split() if noted.is_file() else []
    return {pin for pin in (matrix.golden_digest, _pin_of_file(matrix), *left) if pin}


def _pin_of_file(matrix: Matrix) -> str | None:
    """What the matrix file pins by now, if it is still there and can be read."""
    try:
        return read_matrix(Path(matrix.path)).golden_digest
    except UsageError:
        return None


def verify(matrices: Sequence[Matrix], is_all: bool = True) -> tuple[int, list[str]]:
    """Count the goldens that matrices ask for, and say in a line each what is wrong with them.

    Which GPU will draw is not known here: of a ``cuda`` case every platform that is there is looked at, and
    none is missed.

    Parameters
    ----------
    matrices
        What asks for goldens.
    is_all
        Whether no other matrix asks for goldens of theirs, so that one that is not asked for is unused.
    """
    asked, lines = 0, []
    for place in dict.fromkeys(matrix.golden_store for matrix in matrices):
        its = [matrix for matrix in matrices if matrix.golden_store == place]
        store = store_of(its[0])
        looks = [(matrix, store.look(matrix.golden_keys)) for matrix in its]
        wanted = {
            golden.address_of(case, golden.platform_of(case, {}))
            for matrix in its
            for case in matrix.cases
            if case.golden == "required" and case.device == "cpu"
        }
        found = {address for matrix, look in looks for address in look.descriptions if _asks(matrix, address)}
        asked += len(wanted | found)
        for matrix, look in looks:
            try:
                check_pin(matrix, look)
            except ConfigError as error:
                lines.append(f"pin: {error}")
        lines += verify_store(store, wanted, found, is_all)
    return asked, lines


def _asks(matrix: Matrix, address: str) -> bool:
    """Whether a matrix may ask for a golden on some machine: its device and dtype are those of a case."""
    return any(
        address.startswith(f"{golden.model_of(case)}/{case.device}-")
        and address.endswith(f"-{case.dtype}/{case.key}")
        and case.golden == "required"
        for case in matrix.cases
    )


class Goldens:
    """The goldens of one run folder: each found once, compared with, proposed where missing."""

    def __init__(self, folder: RunFolder, runs: Mapping[str, Run], pinned: bool = True) -> None:
        self._folder = folder
        self._runs = runs
        self._found: dict[str, golden.Golden | GoldenError | None] = {}
        self._places: dict[str, Path] = {}
        self._store: Store | None = None
        matrix = folder.plan.matrix
        if all(self.policy(case) == "off" for case in matrix.cases):
            return  # and the store is not touched
        self._store = store_of(matrix)
        look = self._store.look(_keys(matrix), fresh=False)
        if pinned:
            check_pin(matrix, look, known_digests(folder))

    def _of(self, case: Case) -> golden.Golden | GoldenError | None:
        """The golden of a case, or what is wrong with it; which one it is depends on who drew the baseline."""
        if self._store is None or self.policy(case) == "off":
            return None
        if case.name not in self._found:
            try:
                self._places[case.name] = self._store.fetch(golden.address_of(case, self.platform(case)))
                self._found[case.name] = golden.load(self._places[case.name])
            except GoldenError as error:
                self._found[case.name] = error
        return self._found[case.name]

    def policy(self, case: Case) -> GoldenPolicy:
        """Whether a case is held to a golden in this run."""
        return "off" if self._folder.plan.golden == "off" else case.golden

    def platform(self, case: Case) -> str:
        """Platform of a case, from what its baseline reported."""
        run = self._baseline(case)
        return golden.platform_of(case, run.versions if run else {})

    def folders(self) -> dict[str, str]:
        """Case key to golden folder, where there is a golden."""
        return {
            case.key: str(self._places[case.name])
            for case in self._folder.plan.matrix.cases
            if isinstance(self._of(case), golden.Golden)
        }

    def is_missing(self, case: Case) -> bool:
        """Whether a golden is asked for and there is none."""
        return self.policy(case) == "required" and self._of(case) is None

    def approved(self, row: Row) -> judge.Approved | None:
        """Figures approved for a row's variant."""
        found = self._of(row.case)
        return found.approved.get(row.variant.label) if isinstance(found, golden.Golden) else None

    def comparisons(self, row: Row, measurer: Measurer) -> list[Comparison]:
        """Baseline and candidate, each against the golden.

        A cached row has none: the golden is the picture drawn without a cache.
        """
        if row.variant.cache != "none" or (found := self._of(row.case)) is None:
            return []
        key = key_of(row.case)
        problem = None
        if isinstance(found, GoldenError):
            problem = str(found)
        elif found.weights != self._folder.plan.specs[row.runs["baseline"]].weights:
            problem = f"the golden was approved for other weights of {row.case.model}; approve the case anew"
        if problem:
            return [Comparison(Relation.GOLDEN_BASELINE, key, row.runs["baseline"], problem=problem)]
        assert isinstance(found, golden.Golden)
        measurer.add(key, lambda: golden.load_sample(self._places[row.case.name], found), digest_of(dict(found.files)))
        return [
            measurer.measure(Relation.GOLDEN_BASELINE, key, row.runs["baseline"]),
            measurer.measure(Relation.GOLDEN_CANDIDATE, key, row.runs["candidate"]),
        ]

    def notes(self) -> tuple[str, ...]:
        """What the report says about goldens as a whole."""
        cases = self._folder.plan.matrix.cases
        if all(self.policy(case) == "off" for case in cases):
            return ("Goldens are off: nothing was held to an approved picture.",)
        if all(self._of(case) is None for case in cases):
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


class GoldensAhead:
    """Compares a row with its golden while later rows are still being drawn: its samples are then at hand."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._goldens: Goldens | None = None
        self._in_vain = False

    def __call__(self, row: Row, runs: Mapping[str, Run], measurer: Measurer) -> None:
        """Compare one row, all of whose runs are among ``runs``, to which others are still added."""
        if self._in_vain:
            return
        try:
            self._goldens = self._goldens or Goldens(self._folder, runs)
            self._goldens.comparisons(row, measurer)
        except Exception:  # a store that is gone or being written; what remains of it is told when rows are judged
            traceback.print_exc()
            self._in_vain = True


def key_of(case: Case) -> str:
    """Name of a case's golden among samples."""
    return f"golden:{case.key}"


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


def _keys(matrix: Matrix) -> tuple[str, ...]:
    """What to look for; a plan of older days names cases alone."""
    return matrix.golden_keys or tuple(f"{golden.model_of(case)}/{case.key}" for case in matrix.cases)
