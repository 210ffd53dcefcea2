"""A node that has joined, as the head asks it; the node at the other end says nothing."""

import contextlib
import threading
from multiprocessing import Pipe

from harness.execution.node import Node
from harness.execution.reservation import Need
from harness.execution.wire import Line

NEED = Need(2, "cpu", "fake", None, "", "fake", {}, "a test")


def test_a_node_that_was_lost_is_not_waited_for() -> None:
    """As where it goes between the dealing of ranks and the asking."""
    here, there = Pipe()
    with contextlib.closing(Line(here)) as line, contextlib.closing(there):
        node = Node("b", 1, line, threading.Condition())
        node.lose()
        asked = []

        def wanted() -> bool:
            asked.append(True)
            return len(asked) < 3  # who waits asks again and again

        assert list(node.hold(NEED, 1, wanted)) == []
        assert node.problem == "node b: it was lost"
        assert not asked
