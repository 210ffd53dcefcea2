"""Selection of rows of a matrix by name, size, axis or engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from harness.errors import UsageError, did_you_mean
from harness.types import Case, Matrix, Variant


@dataclass(frozen=True)
class Selection:
    """Filters of rows: shell patterns on the case's name, exact sizes, axes and engines; an empty one takes all."""

    cases: Sequence[str] = ()
    sizes: Sequence[str] = ()
    axes: Sequence[str] = ()
    engines: Sequence[str] = ()

    def takes(self, case: Case, variant: Variant) -> bool:
        """Whether all filters take a row."""
        return (
            (not self.cases or any(fnmatchcase(case.name, pattern) for pattern in self.cases))
            and (not self.sizes or str(case.size) in self.sizes)
            and (not self.axes or variant.axis in self.axes)
            and (not self.engines or variant.engine in self.engines)
        )


EVERYTHING = Selection()


def select(matrix: Matrix, selection: Selection) -> Matrix:
    """Restrict a matrix to the selected rows.

    Raises
    ------
    UsageError
        If no row is left.
    """
    cases = {case.name: case for case in matrix.cases}
    variants = {variant.label: variant for variant in matrix.variants}
    pairs = tuple((c, v) for c, v in matrix.pairs if selection.takes(cases[c], variants[v]))
    if not pairs:
        known = ", ".join(cases)
        raise UsageError(f"{matrix.path}: no row is selected; its cases are {known} (see sp-harness ls {matrix.path})")
    return narrowed(matrix, pairs)


def alone(matrix: Matrix, name: str) -> Matrix:
    """Restrict a matrix to one row, ``CASE/VARIANT``, and the earlier requests of its sequence.

    Raises
    ------
    UsageError
        If there is no such row.
    """
    return rows_named(matrix, [name])


def rows_named(matrix: Matrix, names: Iterable[str]) -> Matrix:
    """Restrict a matrix to some rows, ``CASE/VARIANT``, and the earlier requests of their sequences.

    Raises
    ------
    UsageError
        If there is no such row.
    """
    rows = {f"{case}/{label}": (case, label) for case, label in matrix.pairs}
    cases = {case.name: case for case in matrix.cases}
    kept: set[tuple[str, str]] = set()
    for name in names:
        if name not in rows:
            raise UsageError(f"{matrix.path}: there is no row {name!r}; {did_you_mean(name, rows)}")
        wanted, label = rows[name]
        sequence = cases[wanted].sequence
        of_variant = [case for case, variant in matrix.pairs if variant == label]
        earlier = of_variant[: of_variant.index(wanted)]
        kept |= {(case, label) for case in earlier if sequence is not None and cases[case].sequence == sequence}
        kept.add((wanted, label))
    return narrowed(matrix, [pair for pair in matrix.pairs if pair in kept])


def narrowed(matrix: Matrix, pairs: Iterable[tuple[str, str]]) -> Matrix:
    """Restrict a matrix to some rows, with the cases and variants that they need."""
    kept = tuple(pairs)
    return replace(
        matrix,
        pairs=kept,
        cases=tuple(case for case in matrix.cases if any(case.name == name for name, _ in kept)),
        variants=tuple(variant for variant in matrix.variants if any(variant.label == label for _, label in kept)),
    )
