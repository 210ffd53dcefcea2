"""Failures of ranks that raise, end or do not answer: kind, the rank that caused it, one line, and its output."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence

from harness.execution.rank import Rank
from harness.types import Failure, FailureKind
from harness.worker import exhaustion, protocol
from harness.worker.protocol import Raised

STACK_GRACE_S = 5.0
"""Time a rank gets to print its stacks."""
STACK_SETTLE_S = 0.3
"""The collective a rank waits in is printed by another thread, just after the stacks."""
PEER_GRACE_S = 1.0
"""A process that ends closes its connections a moment before its exit code is known."""

CRASHED = {
    FailureKind.RAISED: "crashed",
    FailureKind.OUT_OF_MEMORY: "ran out of memory and crashed",
    FailureKind.DISK_FULL: "found a disk full and crashed",
    FailureKind.EXHAUSTED: "ran out of descriptors or processes and crashed",
}
REMEDIES = {
    kind: f"; {words}, then finish with: sp-harness run --resume RUN"
    for kind, words in {
        FailureKind.OUT_OF_MEMORY: "free memory or take a machine with more",
        FailureKind.DISK_FULL: "make room on that disk",
        FailureKind.EXHAUSTED: "raise the limits of open files and processes (ulimit -n, ulimit -u)",
        FailureKind.KILLED: "see what killed it",
        FailureKind.STOPPED: "see what stopped it",
    }.items()
}
"""Remedy of a failure of the machine, with which its message ends."""


class Unwritable(Exception):
    """Files of a run cannot be written; holds the place and the system's error."""

    def __init__(self, reply: protocol.Unwritable) -> None:
        self.place = reply.folder
        self.error = OSError(reply.errno, os.strerror(reply.errno))
        super().__init__(f"{self.place}: {self.error.strerror}")


def raised(ranks: Sequence[Rank], index: int, reply: Raised) -> Failure:
    """Failure of a rank that has raised; a rank that ended before, and made it raise, is named instead."""
    peer = _ended_peer(ranks, index)
    if peer is not None:
        return ended(ranks, peer)
    message, detail = reply.message, reply.detail
    kind = reply.machine or FailureKind.RAISED
    if kind == FailureKind.RAISED:
        for other, rank in enumerate(ranks):  # the rank that raises first may only have waited in the collective
            if ran_out := exhaustion.told_by_nccl(message, rank.log_since()):
                kind, line = ran_out
                where = f"rank {other}: {kind.value} inside NCCL; rank {index} raised {message}"
                return Failure(kind, where + REMEDIES.get(kind, ""), other, f"--- rank {other}\n{line}\n{detail}")
    return Failure(kind, f"rank {index} raised {message}{REMEDIES.get(kind, '')}", index, detail)


def _ended_peer(ranks: Sequence[Rank], index: int) -> int | None:
    """Find a rank whose end made another raise: a collective fails when a peer's connection closes."""
    deadline = time.monotonic() + PEER_GRACE_S
    others = [other for other in range(len(ranks)) if other != index]
    while others and time.monotonic() < deadline:
        for other in others:
            if ranks[other].poll() is not None:
                return other
        time.sleep(0.02)
    return None


def ended(ranks: Sequence[Rank], index: int) -> Failure:
    """Failure of a rank that has ended by itself, by a signal, or with its node."""
    rank = ranks[index]
    code = 0 if rank.lost else rank.wait()
    printed = rank.log_since()[-8000:]
    if rank.lost:
        message = f"rank {index} was lost: {rank.lost}{REMEDIES[FailureKind.KILLED]}"
        return Failure(FailureKind.KILLED, message, index, printed)
    # Nobody but a user, the kernel's out-of-memory killer or a batch system sends these two.
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        kind, verb = FailureKind.KILLED, "was killed from outside"
    else:  # below Python nobody raises: a library ends the process
        kind = exhaustion.told_last_in(printed) or FailureKind.RAISED
        verb = CRASHED[kind]
    return Failure(kind, f"rank {index} {verb} ({_ending(code)}){REMEDIES.get(kind, '')}", index, printed)


def _ending(code: int) -> str:
    """Name an exit code; real-time signals have no names."""
    if code >= 0:
        return f"exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return known.get(-code, f"signal {-code}")


def unlike(ranks: Sequence[Rank], versions: Sequence[Mapping[str, str]]) -> Failure | None:
    """Failure of a group whose nodes have GPUs of different kinds, on which even weights made there differ."""
    kinds = [found.get("device", "the CPU") for found in versions]
    other = next((index for index, kind in enumerate(kinds) if ranks[index].node and kind != kinds[0]), None)
    if other is None:
        return None
    where = f"rank {other} on node {ranks[other].node} draws on {kinds[other]}, rank 0 on {kinds[0]}"
    return Failure(FailureKind.LAUNCH, f"{where}; a group needs GPUs of one kind", other)


def hung(ranks: Sequence[Rank], missing: Sequence[int], timeout_s: float) -> Failure:
    """Failure of ranks that have not answered within the time limit, are stopped, or whose node cannot be reached."""
    stacks, stopped = _stacks(ranks, missing), {index: ranks[index].stopped() for index in missing}
    if (lost := next((index for index in missing if ranks[index].lost), None)) is not None:
        return ended(ranks, lost)
    message = f"no answer within {timeout_s:g} s from rank{'s' if len(missing) > 1 else ''} "
    message += ", ".join(map(str, missing))
    message += "".join(f"; rank {index} does not run: {state}" for index, state in stopped.items() if state)
    # Ranks that wait for a stopped one are not the cause.
    rank = next((index for index, state in stopped.items() if state), missing[0])
    kind = FailureKind.STOPPED if stopped[rank] else FailureKind.HUNG
    return Failure(kind, message + REMEDIES.get(kind, ""), rank, stacks)


def _stacks(ranks: Sequence[Rank], missing: Sequence[int]) -> str:
    """Stacks of the ranks that do not answer, printed by themselves into their logs."""
    offsets = {index: ranks[index].log.stat().st_size for index in missing}
    for index in missing:
        ranks[index].print_stacks()
    awaited = [index for index in missing if not ranks[index].stopped() and not ranks[index].lost]
    deadline = time.monotonic() + STACK_GRACE_S
    while time.monotonic() < deadline and not all(
        "most recent call first" in ranks[index].log_since(offsets[index]) for index in awaited
    ):
        time.sleep(0.05)
    time.sleep(STACK_SETTLE_S)
    texts = {index: ranks[index].log_since(offset).strip() for index, offset in offsets.items()}
    return "\n".join(f"--- rank {index}\n{text or '(prints nothing)'}" for index, text in texts.items())
