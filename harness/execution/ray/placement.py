"""Needs of a group of cases, and the nodes of a Ray cluster that can hold it: one if possible, else several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from harness.types import RunSpec

A_LITTLE = 0.001
"""Share of a node's one ``accelerator_type``, as ray itself asks for it: every task of the node gets some."""

Resources = Mapping[str, float]
"""Of a node or a bundle, by ray's names for them."""


@dataclass
class Group:
    """Runs that stay together, and how far they are."""

    number: int
    specs: list[RunSpec]
    done: set[str] = field(default_factory=set)
    times_placed: int = 0
    kind: str = ""
    """Resource of the node that drew its first run, such as ``accelerator_type:H200``."""

    def planned(self, spec: RunSpec) -> RunSpec:
        """Find a run as it was planned here, where its model may lie elsewhere."""
        return next(each for each in self.specs if each.digest == spec.digest)

    @property
    def lacking(self) -> list[RunSpec]:
        """Runs that have not come back."""
        return [spec for spec in self.specs if spec.digest not in self.done]

    @property
    def to_compute(self) -> list[RunSpec]:
        """Runs that are lacking, with all requests of their sequences; the earlier ones are computed again, unseen."""
        sequences = {spec.sequence for spec in self.lacking if spec.sequence}
        return [spec for spec in self.specs if spec.digest not in self.done or spec.sequence in sequences]

    @property
    def needs(self) -> dict[str, float]:
        """Resources it needs: GPUs for runs on GPUs, cores for runs on a CPU.

        Runs that are compared come from one kind of machine: once a run is there, so is the kind.
        """
        found: dict[str, float] = {self.kind: A_LITTLE} if self.kind and self.done else {}
        for spec in self.specs:
            kind = "GPU" if spec.case.device == "cuda" else "CPU"
            found[kind] = max(found.get(kind, 0), spec.world_size)
        return found


def alive() -> list[Resources]:
    """Resources of each living node of the cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def kind_of(node: Resources) -> str:
    """Resource that names the kind of a node's GPUs; empty where it has none."""
    return next((name for name in node if name.startswith("accelerator_type:")), "")


def kind_by_id(node_id: str) -> str:
    """Kind of a node (see :func:`kind_of`) by its id."""
    import ray

    return next((kind_of(node["Resources"]) for node in ray.nodes() if node["NodeID"] == node_id), "")  # type: ignore[no-untyped-call]


def bundles_for(needs: Resources, nodes: Sequence[Resources]) -> list[Resources] | None:
    """Divide needs among as few nodes as possible, all of one kind; ``None`` where the cluster cannot hold them."""
    if can_hold([needs], nodes):
        return [needs]
    counted = _counted(needs)
    if len(counted) > 1:  # a sequence on CPU and GPU
        return None
    unit, wanted = counted[0], int(needs[counted[0]])
    found: list[list[Resources]] = []
    for kind in sorted({kind_of(node) for node in nodes}):
        sizes = sorted((int(node.get(unit, 0)) for node in nodes if kind_of(node) == kind), reverse=True)
        ends = [min(end, wanted) for end in accumulate(sizes)]
        shares = [end - start for start, end in zip([0, *ends], ends, strict=False) if end > start]
        if sum(shares) == wanted and all(name in (unit, kind) for name in needs):
            found.append([{unit: share} | ({kind: A_LITTLE} if kind else {}) for share in shares])
    return min(found, key=len, default=None)


def can_hold(bundles: Sequence[Resources], nodes: Sequence[Resources]) -> bool:
    """Whether each of the bundles, the largest first, would find a node of its own if all nodes were idle."""
    left = sorted(nodes, key=lambda node: [node.get(name, 0) for name in ("GPU", "CPU")])
    for bundle in bundles:
        fitting = [node for node in left if all(node.get(name, 0) >= number for name, number in bundle.items())]
        if not fitting:
            return False
        left.remove(fitting[0])
    return True


def fits_nowhere(needs: Resources, nodes: Sequence[Resources]) -> str:
    """Make the message of needs that the cluster cannot hold."""
    kind = kind_of(needs)
    sizes = [[node for node in nodes if kind_of(node) == one] for one in ({kind} if kind else set(map(kind_of, nodes)))]
    counted = _counted(needs)
    wanted = " and ".join(f"{needs[name]:g} {name}s" for name in counted)
    most = " and ".join(
        f"{max((sum(node.get(name, 0) for node in each) for each in sizes), default=0):g}" for name in counted
    )
    where = f" with {kind}, where its other runs were drawn," if kind else " of one kind"
    return f"nodes of the Ray cluster{where} do not have the {wanted} it needs (the most is {most})"


def _counted(needs: Resources) -> list[str]:
    return [name for name in needs if name in ("CPU", "GPU")]
