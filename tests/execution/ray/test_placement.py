"""Division of a group of cases among the nodes of a Ray cluster; no cluster is needed."""

from __future__ import annotations

import pytest

from harness.execution.ray.placement import A_LITTLE, Resources, bundles_for, can_hold, fits_nowhere

H100, H200 = "accelerator_type:H100", "accelerator_type:H200"
HEAD: Resources = {"CPU": 8}


def node(gpus: int, kind: str = H200) -> Resources:
    return {"CPU": 16, "GPU": gpus, kind: 1}


def spread(*gpus: int, kind: str = H200) -> list[Resources]:
    return [{"GPU": number, kind: A_LITTLE} for number in gpus]


@pytest.mark.parametrize(
    ("needs", "nodes", "bundles"),
    [
        ({"GPU": 4}, [node(2), node(4)], [{"GPU": 4}]),  # one node where one will do
        ({"GPU": 4}, [node(2), node(2)], spread(2, 2)),
        ({"GPU": 5}, [node(2), HEAD, node(4)], spread(4, 1)),
        ({"GPU": 4}, [node(2), node(2), node(3, H100), node(1, H100)], spread(3, 1, kind=H100)),
        ({"GPU": 4}, [node(2), node(2, H100)], None),  # never over GPUs of two kinds
        ({"GPU": 4}, [node(1), node(1), node(1), node(1), node(2, H100), node(2, H100)], spread(2, 2, kind=H100)),
        ({"GPU": 4, H200: A_LITTLE}, [node(1)] * 4 + [node(2, H100)] * 2, spread(1, 1, 1, 1)),
        ({"GPU": 4, H200: A_LITTLE}, [node(4, H100)], None),
        ({"CPU": 3}, [{"CPU": 2}, {"CPU": 2}], [{"CPU": 2}, {"CPU": 1}]),
        ({"CPU": 3, "GPU": 1}, [{"CPU": 2}, {"CPU": 2}], None),
        ({"CPU": 1}, [], None),
    ],
)
def test_as_few_nodes_as_possible_of_one_kind(
    needs: Resources, nodes: list[Resources], bundles: list[Resources] | None
) -> None:
    assert bundles_for(needs, nodes) == bundles
    assert bundles is None or can_hold(bundles, nodes)


def test_each_bundle_needs_a_node_of_its_own() -> None:
    assert can_hold(spread(2, 1), [node(1), node(2)])
    assert not can_hold(spread(2, 1), [node(4)])
    assert not can_hold(spread(2, 1), [node(2), node(1, H100)])


def test_what_fits_nowhere_is_said_with_what_there_is() -> None:
    nodes = [HEAD, node(2), node(1), node(2, H100)]
    assert fits_nowhere({"GPU": 4}, nodes) == (
        "nodes of the Ray cluster of one kind do not have the 4 GPUs it needs (the most is 3)"
    )
    assert fits_nowhere({"GPU": 3, H100: A_LITTLE}, nodes) == (
        f"nodes of the Ray cluster with {H100}, where its other runs were drawn, do not have the 3 GPUs it needs "
        "(the most is 2)"
    )
