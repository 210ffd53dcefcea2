"""What to make of ranks that raise, die or do not answer: whose fault it is, in one line, and what they printed."""

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
"""What a rank waits for is printed by a thread of its own, just after the stacks."""
PEER_GRACE_S = 1.0
"""A dying process closes its connections a moment before its end can be seen."""

CRASHED = {
    FailureKind.RAISED: "crashed",
    FailureKind.OUT_OF_MEMORY: "ran out of memory and crashed",
    FailureKind.DISK_FULL: "found a disk full and crashed",
}
REMEDIES = {FailureKind.DISK_FULL: "; make room on that disk, then finish with: sp-harness run --resume RUN"}
"""What to do about a failure, where there is one thing to do."""


class Unwritable(Exception):
    """What a rank has drawn cannot be written; says where, and what the system says."""

    def __init__(self, place: str, error: OSError) -> None:
        super().__init__(f"{place}: {error.strerror or error}")
        self.place = place
        self.error = error


def unwritable(rank: Rank, reply: protocol.Unwritable) -> Unwritable:
    """A rank says that it cannot write what it has drawn: one on another node leaves its files over there first."""
    place = f"node {rank.node}: {reply.folder}" if rank.node else reply.folder
    return Unwritable(place, OSError(reply.errno, os.strerror(reply.errno)))


def raised(ranks: Sequence[Rank], index: int, reply: Raised) -> Failure:
    """A rank has raised; the one whose death made it raise is named instead."""
    dead = _dead_peer(ranks, index)
    if dead is not None:
        return died(ranks, dead)
    message, detail = reply.message, reply.detail
    kind = reply.machine or FailureKind.RAISED
    if kind == FailureKind.RAISED:
        for other, rank in enumerate(ranks):  # whoever raises first speaks of the collective that both are in
            if ran_out := exhaustion.told_by_nccl(message, rank.log_since()):
                kind, line = ran_out
                where = f"rank {other}: {kind.value} inside NCCL; rank {index} raised {message}"
                return Failure(kind, where + REMEDIES.get(kind, ""), other, f"--- rank {other}\n{line}\n{detail}")
    return Failure(kind, f"rank {index} raised {message}{REMEDIES.get(kind, '')}", index, detail)


def _dead_peer(ranks: Sequence[Rank], index: int) -> int | None:
    """The rank whose death made another raise: a collective fails when a peer's connection closes."""
    deadline = time.monotonic() + PEER_GRACE_S
    others = [other for other in range(len(ranks)) if other != index]
    while others and time.monotonic() < deadline:
        for other in others:
            if ranks[other].poll() is not None:
                return other
        time.sleep(0.02)
    return None


def died(ranks: Sequence[Rank], index: int) -> Failure:
    """A rank has ended by itself, by a signal, or with its machine.

    Raises
    ------
    Unwritable
        If it was given up, as this machine cannot keep what it sends.
    """
    rank = ranks[index]
    if rank.unwritable:
        folder, error = rank.unwritable
        raise Unwritable(str(folder), error)
    code = rank.wait()
    if rank.lost:
        return Failure(FailureKind.KILLED, f"rank {index} was lost: {rank.lost}", index, rank.log_since()[-8000:])
    printed = rank.log_since()[-8000:]
    # Nobody but a user, the kernel's out-of-memory killer or a batch system sends these two.
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        kind, verb = FailureKind.KILLED, "was killed from outside"
    else:  # below Python nobody raises: a library ends the process
        kind = exhaustion.told_last_in(printed) or FailureKind.RAISED
        verb = CRASHED[kind]
    return Failure(kind, f"rank {index} {verb} ({_ending(code)}){REMEDIES.get(kind, '')}", index, printed)


def _ending(code: int) -> str:
    """Name an exit code as people know it; signals of the real-time kind have no names."""
    if code >= 0:
        return f"exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return known.get(-code, f"signal {-code}")


def unlike(ranks: Sequence[Rank], versions: Sequence[Mapping[str, str]]) -> Failure | None:
    """Ranks of one group draw on GPUs of different kinds; weights made on a GPU differ with its kind, too."""
    kinds = [found.get("device", "the CPU") for found in versions]
    other = next((index for index, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is None:
        return None
    where = f" on node {ranks[other].node}" if ranks[other].node else ""
    message = f"rank {other}{where} draws on {kinds[other]}, rank 0 on {kinds[0]}; join nodes with GPUs of one kind"
    return Failure(FailureKind.LAUNCH, message, other)


def hung(ranks: Sequence[Rank], missing: Sequence[int], timeout_s: float) -> Failure:
    """Ranks have not answered within the time limit."""
    stacks, asleep = _stacks(ranks, missing), {index: ranks[index].asleep() for index in missing}
    message = f"no answer within {timeout_s:g} s from rank{'s' if len(missing) > 1 else ''} "
    message += ", ".join(map(str, missing))
    message += "".join(f"; rank {index} does not run: {state}" for index, state in asleep.items() if state)
    # Ranks that wait for one which does not run are not to blame.
    rank = next((index for index, state in asleep.items() if state), missing[0])
    return Failure(FailureKind.HUNG, message, rank, stacks)


def _stacks(ranks: Sequence[Rank], missing: Sequence[int]) -> str:
    """Stacks of the ranks that do not answer, printed by themselves into their logs."""
    offsets = {index: ranks[index].log.stat().st_size for index in missing}
    for index in missing:
        ranks[index].print_stacks()
    awaited = [index for index in missing if not ranks[index].asleep()]
    deadline = time.monotonic() + STACK_GRACE_S
    while time.monotonic() < deadline and not all(
        "most recent call first" in ranks[index].log_since(offsets[index]) for index in awaited
    ):
        time.sleep(0.05)
    time.sleep(STACK_SETTLE_S)
    texts = {index: ranks[index].log_since(offset).strip() for index, offset in offsets.items()}
    return "\n".join(f"--- rank {index}\n{text or '(prints nothing)'}" for index, text in texts.items())
