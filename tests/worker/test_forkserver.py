"""The program ranks are forked from, where the system does not let it fork."""

import errno
import os
import socket
from pathlib import Path

import pytest

from harness.worker import forkserver


def test_a_rank_that_cannot_be_forked_is_told_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    log = tmp_path / "rank-0.log"
    status, ended = os.pipe()
    orders, replies = os.pipe()
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(os, "fork", refuse)
    with ours, theirs:
        made = forkserver.Forkserver(theirs)
        is_rank = made._fork((orders, replies, os.open(log, os.O_CREAT | os.O_WRONLY), ended))
        for descriptor in (made._woken, made._wake):
            os.close(descriptor)
    assert not is_rank
    assert made._statuses == {}
    assert os.read(status, 64) == b"0\n1\n"  # no process, and the exit code of one that failed
    assert os.read(status, 64) == b""  # nothing of the rank is kept open
    os.close(status)
    assert log.read_text() == "the rank cannot be forked: Resource temporarily unavailable\n"
