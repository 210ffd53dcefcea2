"""Goldens of a run: fetched before it, compared with its pictures, proposed where missing."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from harness import files
from harness.errors import GoldenError
from harness.goldens import golden
from harness.goldens.open_store import store_of
from harness.goldens.pin import check_pin
from harness.goldens.store import Store
from harness.judging import judge
from harness.judging.comparisons import Measurer
from harness.matrix.golden_store import key_of, model_of
from harness.runs.folder import RunFolder
from harness.types import Case, Comparison, Matrix, Outcome, Relation, Report, Row, Run, digest_of

REDUCED_PICTURE = "the golden holds a reduced picture, to which nothing is measured; approve it anew"
"""Note on a comparison with a golden of an earlier version."""


def fetch(matrix: Matrix, known: Collection[str] = ()) -> None:
    """Read every golden's description, check the pin, and copy URL goldens into the cache.

    To be called before anything is drawn, so that a network failure hours later does no harm. An altered golden,
    its description included, is left to the verdict of its row.

    Parameters
    ----------
    matrix
        The matrix.
    known
        Digests accepted beside the pin (:func:`harness.goldens.pin.known_digests`).

    Raises
    ------
    FileError
        If a golden.json is of a newer schema.
    ConfigError
        If the store does not match the pin.
    InfrastructureError
        If the store cannot be read.
    """
    if not matrix.golden_keys:
        return
    store = store_of(matrix)
    look = store.look(matrix.golden_keys)
    for address in look.descriptions:
        with contextlib.suppress(GoldenError):
            store.read(address)
    check_pin(matrix, look, known)
    for address in look.descriptions:
        if may_ask(matrix, address):
            with contextlib.suppress(GoldenError):
                store.fetch(address)


def may_ask(matrix: Matrix, address: str) -> bool:
    """Whether a matrix may need a golden on some machine, by device and dtype of its cases."""
    return any(
        address.startswith(f"{model_of(case)}/{case.device}-")
        and address.endswith(f"-{case.dtype}/{case.key}")
        and case.golden == "required"
        for case in matrix.cases
    )


class Goldens:
    """Goldens of one run folder, each read once.

    Parameters
    ----------
    folder, runs
        The run folder, and its finished runs.
    known
        Digests accepted beside the pin; ``None`` skips the check of the pin.

    Raises
    ------
    ConfigError
        If the store does not match the pin.
    InfrastructureError
        If it cannot be read.
    """

    def __init__(self, folder: RunFolder, runs: Mapping[str, Run], known: Collection[str] | None) -> None:
        self._folder = folder
        self._runs = runs
        self._found: dict[str, golden.Golden | GoldenError | None] = {}
        self._places: dict[str, Path] = {}
        self._store: Store | None = None
        matrix = folder.plan.matrix
        if all(_is_off(folder, case) for case in matrix.cases):
            return  # without opening the store
        self._store = store_of(matrix)
        look = self._store.look(_keys(matrix), fresh=False)
        if known is not None:
            check_pin(matrix, look, known)

    def _of(self, case: Case) -> golden.Golden | GoldenError | None:
        """Return the golden of a case on its baseline's platform, or the error in it."""
        if self._store is None or _is_off(self._folder, case):
            return None
        if case.name not in self._found:
            try:
                address = golden.address_of(case, self.platform(case))
                self._places[case.name] = self._store.fetch(address)
                self._found[case.name] = golden.load(self._places[case.name], address)
            except GoldenError as error:
                self._found[case.name] = error
        return self._found[case.name]

    def platform(self, case: Case) -> str:
        """Return the platform of a case, from the versions its baseline reported."""
        run = baseline_of(self._folder, self._runs, case)
        return golden.platform_of(case, run.versions if run else {})

    def folders(self) -> dict[str, str]:
        """Map case keys to golden folders, where there is a golden."""
        return {
            case.key: str(self._places[case.name])
            for case in self._folder.plan.matrix.cases
            if isinstance(self._of(case), golden.Golden)
        }

    def is_missing(self, case: Case) -> bool:
        """Whether a golden is required and there is none."""
        return not _is_off(self._folder, case) and self._of(case) is None

    def approved(self, row: Row) -> judge.Approved | None:
        """Return the figures approved for a row's variant."""
        found = self._of(row.case)
        return found.approved.get(row.variant.label) if isinstance(found, golden.Golden) else None

    def comparisons(self, row: Row, measurer: Measurer) -> list[Comparison]:
        """Compare baseline and candidate with the golden.

        A cached row has no such comparison, as goldens are drawn without a cache.
        """
        if row.variant.cache != "none" or (found := self._of(row.case)) is None:
            return []
        key = golden.sample_key(row.case)
        if isinstance(found, GoldenError):
            return [_broken(row, key, str(found))]
        if found.weights != self._folder.plan.specs[row.runs["baseline"]].weights:
            message = f"the golden was approved for other weights of {row.case.model}; approve the case anew"
            return [_broken(row, key, message)]
        measurer.add(key, lambda: golden.load_sample(self._places[row.case.name], found), digest_of(dict(found.files)))
        note = "" if golden.is_whole(found) else REDUCED_PICTURE
        try:
            return [
                replace(measurer.measure(relation, key, row.runs[role]), note=note)
                for relation, role in ((Relation.GOLDEN_BASELINE, "baseline"), (Relation.GOLDEN_CANDIDATE, "candidate"))
            ]
        except GoldenError as error:
            self._found[row.case.name] = error
            return [_broken(row, key, str(error))]

    def notes(self) -> tuple[str, ...]:
        """Return the report's notes on goldens as a whole."""
        cases = self._folder.plan.matrix.cases
        if all(_is_off(self._folder, case) for case in cases):
            return ("Goldens are off: nothing was held to an approved picture.",)
        if all(self._of(case) is None for case in cases):
            platforms = ", ".join(sorted({self.platform(case) for case in cases}))
            return (f"There are no goldens for the platform {platforms}; proposals lie in the run folder.",)
        found = (self._of(case) for case in cases)
        reduced = [
            known.case.name for known in found if isinstance(known, golden.Golden) and not golden.is_whole(known)
        ]
        if reduced:
            names = ", ".join(reduced)
            return (f"Goldens of an earlier version, approved anew they give PSNR and SSIM of pictures too: {names}.",)
        return ()


def _broken(row: Row, key: str, problem: str) -> Comparison:
    return Comparison(Relation.GOLDEN_BASELINE, key, row.runs["baseline"], problem=problem)


def propose(folder: RunFolder, report: Report) -> None:
    """Write a golden into ``proposals/`` of a run folder for every case that lacks one and whose baseline was drawn."""
    cases = [case for case in folder.plan.matrix.cases if not _is_off(folder, case)]
    if not cases:
        return
    found = store_of(folder.plan.matrix).look(_keys(folder.plan.matrix), fresh=False).descriptions
    for case in cases:
        run = baseline_of(folder, report.runs, case)
        if run is None or run.failure is not None:
            continue
        platform = golden.platform_of(case, run.versions)
        if golden.address_of(case, platform) not in found:
            place = golden.folder_of(folder.path / "proposals", case, platform)
            figures = approvable(report, case)
            with files.naming(folder.path):
                golden.write(place, run, folder.folder_of(run.spec), figures, platform, {"run": report.name})


def baseline_of(folder: RunFolder, runs: Mapping[str, Run], case: Case) -> Run | None:
    """Return the baseline run of a case, drawn without a cache, if it is finished."""
    for row in folder.plan.rows:
        if row.case == case and row.runs and row.variant.cache == "none":
            return runs.get(row.runs["baseline"])
    return None


def approvable(report: Report, case: Case) -> dict[str, dict[str, float | None]]:
    """Collect the figures of a case's variants that may be approved.

    Rows whose control or exchange fails are left out. A row that fails against earlier approved figures only is
    taken: approving anew is the remedy.
    """
    figures = {}
    for row in report.rows:
        if row.case == case and _is_sound(row):
            figures[row.variant.label] = {
                relation.value: _latents_db(row.comparison(relation)) for relation in (Relation.PAIR, Relation.LAYOUT)
            }
    return figures


def _is_sound(row: Row) -> bool:
    if row.verdict is None or row.verdict.outcome not in (Outcome.PASS, Outcome.NO_GOLDEN, Outcome.FAIL):
        return False
    broken = {judgement.relation for judgement in row.verdict.judgements if judgement.ok is False}
    return not broken & {Relation.EXCHANGE, Relation.CONTROL}


def _latents_db(comparison: Comparison | None) -> float | None:
    """Return the latents PSNR of a comparison in dB, rounded to 0.001; ``None`` where it is exact."""
    figure = comparison.figure("psnr", "latents") if comparison and not comparison.exact_latents else None
    return round(figure.value, 3) if figure and figure.value is not None else None


def _is_off(folder: RunFolder, case: Case) -> bool:
    """Whether a case is held to no golden in this run."""
    return folder.plan.golden == "off" or case.golden == "off"


def _keys(matrix: Matrix) -> tuple[str, ...]:
    """Return the ``MODEL/CASE`` to look for; plans of older versions have no ``golden_keys``."""
    return matrix.golden_keys or tuple(key_of(case) for case in matrix.cases)
