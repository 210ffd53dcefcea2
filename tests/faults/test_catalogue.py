"""What every planted bug says of itself."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest

from harness import plugins
from harness.matrix.coverage import CLASSES
from harness.plugins import Worker
from tests.faults.alone import ALONE

CAUSES = {
    "crash",
    "hang",
    "non-determinism",
    "noise",
    "cut/gather",
    "exchange",
    "position",
    "pads",
    "caption",
    "mask",
    "cache",
    "decode",
    "golden drift",
    "environment",
    "weights",
    "modulation",
    "guidance",
    "schedule",
    "not engaged",
}
FAULTS = plugins.names("faults")


def test_there_are_enough_of_them():
    assert len(FAULTS) >= 65
    assert {plugins.load("faults", name).cause for name in FAULTS} >= CAUSES - {"golden drift", "environment"}


def test_some_need_more_than_one_picture_on_two_ranks():
    needed = {need for name in FAULTS for need in plugins.load("faults", name).needs}
    assert needed >= {"guidance", "batch", "ranks: 3", "ring", "cache", "second request"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_its_thread_its_cause_and_its_row(name: str):
    fault = plugins.load("faults", name)
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+(/(issues|pull)/\d+|/blob/\S+)?", fault.source)
    assert fault.cause in CAUSES
    assert set(fault.needs) <= set(CLASSES)
    module = import_module(fault.__module__)
    assert module.__doc__
    assert fault.__doc__


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in ALONE])
def test_a_fault_of_the_split_is_not_there_without_a_split(name: str):
    before = _functions()
    with plugins.load("faults", name)().plant(Worker(0, 1, "cpu", "", "float32")):
        if name not in ("gather-swapped", "gather-uncropped", "rope-origin-dropped"):  # no rank to go wrong with
            assert _functions() == before
    assert _functions() == before


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_fault_leaves_nothing_behind(name: str, rank: int):
    before = _functions()
    with plugins.load("faults", name)().plant(Worker(rank, 3, "cpu", "", "float32")):
        changed = _functions() != before
    assert _functions() == before
    if rank == 2:  # some bugs are planted on the last rank alone
        assert changed


def _functions() -> list[Any]:
    """Every function that a fault may replace."""
    pytest.importorskip("cache_dit")
    import cache_dit
    from cache_dit.caching.cache_blocks.pattern_3_4_5 import CachedBlocks_Pattern_3_4_5
    from cache_dit.caching.cache_contexts.cache_manager import CachedContextManager

    from harness.spatial import attention, pipeline, shard, steps, tokens, transformer

    places = [
        *(attention, pipeline, shard, steps, tokens, transformer, cache_dit),
        *(attention.SequenceParallelAttention, pipeline.SpatialPipeline),
        *(transformer.SpatialBlock, transformer.CaptionEncoder, transformer.SpatialTransformer, steps.Recording),
        *(CachedBlocks_Pattern_3_4_5, CachedContextManager),
    ]
    return [value for place in places for value in vars(place).values() if callable(value)]
