"""Plugins: their base classes, what these are given and return, and how a plugin is found.

    from harness.plugins import Drawing, Engine, Option, Worker     an engine
    from harness.plugins import Context, Metric                     a metric
    from harness.plugins import Fault, Worker                       a planted bug
    from harness.plugins import Reporter                            a report format

One file in ``harness/engines``, ``metrics``, ``faults`` or ``reporters`` is one plugin. It holds one class with the
plugin's ``name``; underscores in the file's name become hyphens. Other distributions add plugins through the
entry-point groups ``sp_harness.engines``, ``sp_harness.metrics`` and so on.

A plugin is imported when it is asked for: listing engines costs nothing, and one that is broken or whose packages
are not installed does not affect the others. Standard library only, since engines' own interpreters load this too.
"""

from __future__ import annotations

from harness.plugins.ask import ask
from harness.plugins.engine import Drawing, Engine, Fault, Worker
from harness.plugins.evaluation import Context, Metric, Reporter
from harness.plugins.option import Option
from harness.plugins.registry import KINDS, distribution_of, load, load_all, names

__all__ = [
    "KINDS",
    "Context",
    "Drawing",
    "Engine",
    "Fault",
    "Metric",
    "Option",
    "Reporter",
    "Worker",
    "ask",
    "distribution_of",
    "load",
    "load_all",
    "names",
]
