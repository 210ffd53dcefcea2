"""Who ran out of memory first, read from what is recorded and from what the ranks print; GPUs are for the program."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.execution import failures
from harness.execution.group import WorkerGroup
from harness.execution.group_key import GroupKey
from harness.planning import cut
from harness.session import steps
from harness.types import Case, Failure, FailureKind, RunSpec, Size
from harness.worker.protocol import Raised

MEMORY = "\nh:1:2 [1] transport/p2p.cc:7 NCCL WARN Cuda failure 2 'out of memory'\n"
OTHER = "\nh:1:2 [1] transport/nvls.cc:7 NCCL WARN Cuda failure 1 'invalid argument'\n"
NCCL_ERROR = "RuntimeError: NCCL Error 1: unhandled cuda error (run with NCCL_DEBUG=INFO for details)"
TORCH_ERROR = "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 1 has a total capacity of 139 GiB"
BACKEND_ERROR = "DistBackendError: NCCL error in: NCCLUtils.cpp:94, unhandled cuda error, NCCL version 2.27.5"
"""The first line of what torch raises when a communicator is made; NCCL's own words follow in others."""
TORCH = Failure(FailureKind.OUT_OF_MEMORY, f"rank 1 raised {TORCH_ERROR}", 1)


@pytest.fixture
def nccl(scripts: Path) -> Any:
    import _nccl  # type: ignore[import-not-found]

    return _nccl


@pytest.mark.parametrize(
    ("before", "struck", "printed", "who"),
    [
        (None, None, MEMORY, "NOBODY"),
        (None, TORCH, "", "TORCH"),
        (None, TORCH, MEMORY, "TORCH"),  # what NCCL met and survived
        (TORCH, None, "", "TORCH"),
        (TORCH, Failure(FailureKind.RAISED, f"rank 0 raised {NCCL_ERROR}", 0), MEMORY, "TORCH"),
        (None, Failure(FailureKind.OUT_OF_MEMORY, f"rank 1 raised {BACKEND_ERROR}", 1), MEMORY, "NCCL"),
        # Recorded under another name: that is asked for later, and here it was NCCL all the same.
        (None, Failure(FailureKind.RAISED, f"rank 1 raised {NCCL_ERROR}", 1), MEMORY, "NCCL"),
        (None, Failure(FailureKind.RAISED, f"rank 1 raised {NCCL_ERROR}", 1), OTHER, "UNKNOWN"),
        (None, Failure(FailureKind.HUNG, "no answer within 60 s from ranks 0, 1", 0), MEMORY, "UNKNOWN"),
        (
            None,
            Failure(FailureKind.OUT_OF_MEMORY, "rank 1 ran out of memory and crashed (SIGABRT)", 1, MEMORY),
            MEMORY,
            "NCCL",
        ),
        (
            None,
            Failure(FailureKind.OUT_OF_MEMORY, "rank 1 ran out of memory and crashed (SIGABRT)", 1, "bad_alloc"),
            "bad_alloc",
            "TORCH",
        ),
    ],
)
def test_nccl_counts_only_where_it_says_so_and_the_failure_is_its_own(
    nccl: Any, before: Failure | None, struck: Failure | None, printed: str, who: str
) -> None:
    ending = nccl.ending_of(before, struck, {0: "NCCL version 2.27.5\n", 1: printed})
    assert ending.who == nccl.Who[who]
    assert ending.words == ((f"rank 1: {printed.strip()}",) if "NCCL WARN" in printed else ())
    failure = before or struck
    assert failure is None or (failure.kind.value in ending.told and failure.message in ending.told)
    assert ("in the case before" in ending.told) == (before is not None)


def test_a_group_that_ran_out_inside_nccl_is_known(nccl: Any, tmp_path: Path) -> None:
    """Real ranks, with a stand-in for NCCL's words: the logs and the message are those of a group."""
    case = Case("struck", "fake", Size(144, 144), ("waves",), steps=2)
    plan = cut.cut(case.size, 2, "h")
    spec = RunSpec(case, "fake", "", "fake", "test", ulysses=2, fault="nccl-out-of-memory", plan=plan)
    group = WorkerGroup(GroupKey.of(spec), tmp_path / "logs" / "0-world-2")
    try:
        failure = group.run(spec, tmp_path / "run").failure
    finally:
        group.kill()
    assert failure is not None
    ending = nccl.ending_of(None, failure, nccl.printed_in(SimpleNamespace(path=tmp_path)))
    assert ending.who == nccl.Who.NCCL
    assert ending.words == ("rank 1: host:1:1 [1] enqueue.cc:1 NCCL WARN Cuda failure 2 'out of memory'",)
    assert re.match(nccl.MESSAGE, failure.message)


def test_messages_of_nccl_are_told_from_those_of_torch(nccl: Any) -> None:
    for reply, matches in ((BACKEND_ERROR, True), (TORCH_ERROR, False)):
        # The other rank is not asked for a peer that has died: there is none.
        failure = failures.raised([], 1, Raised(reply, "", FailureKind.OUT_OF_MEMORY))
        assert bool(re.match(nccl.MESSAGE, failure.message)) is matches


def test_one_try_inside_nccl_is_enough_and_what_nobody_can_explain_is_wrong(nccl: Any) -> None:
    def summed_up(*endings: Any) -> Any:
        checks = nccl.Checks("nccl-out-of-memory")
        nccl.summed_up(checks, range(1, len(endings) + 1), endings)
        return checks

    inside = nccl.Ending(nccl.Who.NCCL, "recorded as out of memory: rank 1", ("rank 1: NCCL WARN 'out of memory'",))
    torch, unknown = nccl.Ending(nccl.Who.TORCH, "CUDA out of memory"), nccl.Ending(nccl.Who.UNKNOWN, "the run hangs")
    both = summed_up(torch, inside)
    assert both.ok
    assert ("with 1 MiB left", "", "torch ran out first; CUDA out of memory", True) in both.lines
    assert ("NCCL printed", "", "rank 1: NCCL WARN 'out of memory'", True) in both.lines
    assert not summed_up(torch, nccl.Ending(nccl.Who.NOBODY), nccl.Ending(nccl.Who.LATE)).ok
    assert not summed_up(inside, unknown).ok


def test_it_is_left_out_where_there_are_no_gpus_and_refused_if_asked_for(nccl: Any) -> None:
    import breakdowns  # type: ignore[import-not-found]

    def wanted(device: str, *only: str) -> list[str]:
        names: list[str] = breakdowns._wanted(ArgumentParser(), Namespace(device=device, only=list(only)))
        return names

    assert wanted("cuda") == list(breakdowns.BREAKDOWNS)
    assert set(breakdowns.BREAKDOWNS) - set(wanted("cpu")) == {"nccl-out-of-memory"}
    assert wanted("cuda", "hung", "nccl-out-of-memory") == ["nccl-out-of-memory", "hung"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "nccl-out-of-memory"), "nccl-out-of-memory needs two GPUs: add --device cuda"),
        (("--nccl-spare-mib", "16", "none"), "argument --nccl-spare-mib: 'none' is not a whole number from 1"),
        (("--spare-mib", "0"), "argument --spare-mib: '0' is not a whole number from 1"),
    ],
)
def test_what_a_user_got_wrong_is_a_line(run_script: Callable[..., Any], arguments: tuple[str, ...], said: str) -> None:
    done = run_script("breakdowns.py", *arguments)
    assert done.code == 2
    assert said in done.stderr


def test_in_its_matrix_the_struck_case_needs_new_groups_and_nothing_else(nccl: Any) -> None:
    _, graph = steps.prepare(nccl.MATRIX)
    first, before, struck, *others = [spec for spec in graph.specs.values() if spec.world_size == 2]
    assert [spec.case.name for spec in (first, before, struck, *others)] == [
        "first", "before", "struck", "after", "last",
    ]  # fmt: skip
    assert first.case.size.tokens > before.case.size.tokens
    assert first.case.steps >= before.case.steps, "what is gathered in the end is as long as there are steps"
    assert (struck.case.size, struck.plan, struck.ulysses) == (before.case.size, before.plan, before.ulysses)
    assert struck.options != before.options == first.options, "the engine has a pipeline for each"
    assert {spec.model_path for spec in (first, before, struck)} == {first.model_path}, "one group of ranks"
