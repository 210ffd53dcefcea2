"""Verification of stored goldens: missing, altered, unused, or not what is pinned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.errors import ConfigError
from harness.goldens import golden
from harness.goldens.for_run import may_ask
from harness.goldens.open_store import store_of
from harness.goldens.pin import check_pin
from harness.goldens.store import Store
from harness.types import Matrix


def verify(matrices: Sequence[Matrix], is_all: bool = True) -> tuple[int, list[str]]:
    """Count the goldens that matrices need, and list their problems, a line each.

    The kind of GPU is not known here: of a ``cuda`` case every platform in the store is verified, and none is
    reported as missing.

    Parameters
    ----------
    matrices
        Matrices whose goldens are verified.
    is_all
        Whether these are all matrices, so that a golden none of them needs is reported as unused.
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
        found = {address for matrix, look in looks for address in look.descriptions if may_ask(matrix, address)}
        asked += len(wanted | found)
        for matrix, look in looks:
            try:
                check_pin(matrix, look)
            except ConfigError as error:
                lines.append(f"pin: {error}")
        lines += _problems(store, wanted, found, is_all)
    return asked, lines


def empty_stores(matrices: Sequence[Matrix]) -> list[str]:
    """List the golden stores in which matrices that are held to goldens have none."""
    stores = {matrix.golden_store: matrix for matrix in matrices if matrix.golden_keys}
    found = {place: store_of(matrix) for place, matrix in stores.items()}
    held = [matrix for matrix in matrices if found.get(matrix.golden_store)]
    filled = {m.golden_store for m in held if found[m.golden_store].look(m.golden_keys, fresh=False).descriptions}
    return [place for place in found if place not in filled]


def _problems(store: Store, wanted: set[str], found: set[str], is_all: bool) -> Iterator[str]:
    """Yield a line for each golden that is missing, unused, or altered.

    Parameters
    ----------
    store
        The golden store.
    wanted
        Addresses that the matrices need.
    found
        Those that the store holds, on any platform.
    is_all
        Whether any other golden of the store is unused.
    """
    yield from (f"missing: {store.name(address)}" for address in sorted(wanted - found))
    unused = store.everything() - wanted - found if is_all and not store.shared else set()
    yield from (f"unused: {store.name(address)}" for address in sorted(unused))
    for address in sorted(found | unused):
        yield from store.problems(address)
