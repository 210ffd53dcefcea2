"""Processes that are forked from one that has imported what they need, as the harness' own ranks are."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

from harness.models.z_image import PRELOAD


def context() -> ForkServerContext:
    """Return the context of multiprocessing whose forkserver, one a session, imports torch and the pipeline."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([*PRELOAD, "cache_dit"])
    return made
