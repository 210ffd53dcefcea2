"""Ranks on other machines as their parent sees them; the outpost at the other end is stood in for."""

import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.execution import failures, wire
from harness.execution.rank import ForkedRank
from harness.execution.remote import RemoteRank
from harness.execution.wire import Endpoint, Line

TOKEN = b"a token of many letters"
DEADLINE_S = 30.0


@pytest.fixture
def lines() -> Iterator[tuple[Line, Line]]:
    """Our end, and that of the outpost."""
    endpoint = Endpoint("127.0.0.1", wire.free_port("127.0.0.1"))
    called: list[Line] = []
    with wire.listen(endpoint) as listening:
        thread = threading.Thread(target=lambda: called.append(wire.call(endpoint, TOKEN, DEADLINE_S)))
        thread.start()
        here = wire.admit(listening.accept()[0], TOKEN)
        thread.join()
    assert here is not None
    yield here, called[0]
    called[0].close()


def obedient(line: Line) -> None:
    """Do what an outpost does when its rank is killed."""
    while not line.receive()[0].get("kill"):
        pass
    line.send({"ended": -signal.SIGKILL})


def ends(action: threading.Thread) -> bool:
    action.start()
    action.join(DEADLINE_S)
    return not action.is_alive()


def test_a_long_reply_arrives_whole(lines: tuple[Line, Line], tmp_path: Path) -> None:
    here, there = lines
    rank = RemoteRank(here, tmp_path / "log", 0, "b", lambda: None)
    there.send({"reply": {"event": "raised", "detail": "x" * 100_000}})
    replies: list[dict[str, object]] = []
    while not replies:
        replies += rank.read() or []
    assert replies == [{"event": "raised", "detail": "x" * 100_000}]
    threading.Thread(target=obedient, args=(there,), daemon=True).start()
    rank.kill()
    rank.close()


@pytest.mark.parametrize("is_alive", [True, False], ids=["its node answers", "its node is gone"])
def test_a_rank_whose_reply_nobody_reads_can_be_killed(
    lines: tuple[Line, Line], tmp_path: Path, is_alive: bool
) -> None:
    """As where all ranks raise at once: the first reply ends the group, and the others fill their pipes."""
    here, there = lines
    rank = RemoteRank(here, tmp_path / "log", 0, "b", lambda: None)
    there.send({"reply": {"event": "raised", "detail": "x" * 100_000}})
    assert os.read(rank.replies, 1) == b"{"  # it has begun to write what does not fit
    if is_alive:
        threading.Thread(target=obedient, args=(there,), daemon=True).start()
    else:
        there.end()
    assert ends(threading.Thread(target=rank.kill, daemon=True))
    assert rank.poll() == -signal.SIGKILL
    assert ends(threading.Thread(target=rank.close, daemon=True))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="what stands for a full disk")
@pytest.mark.parametrize(
    ("name", "message"), [("image-0.tif", {"file": "image-0.tif"}), ("log", {"log": True})], ids=["picture", "log"]
)
def test_a_full_disk_here_ends_the_rank_and_no_run_is_held_against_it(
    lines: tuple[Line, Line], tmp_path: Path, name: str, message: dict[str, object]
) -> None:
    """However its end is noticed: by itself, or as that of the peer of a rank that raises."""
    here, there = lines
    (tmp_path / name).symlink_to("/dev/full")
    rank = RemoteRank(here, tmp_path / "log", 0, "b", lambda: None)
    rank.write({"folder": str(tmp_path)})
    there.receive()
    there.send(message, b"data")
    assert rank.wait() == -signal.SIGKILL
    assert rank.read() is None
    (tmp_path / name).unlink()  # whoever reads it now would read for ever
    (tmp_path / "log").touch()
    other = ForkedRank(tmp_path / "other", ())
    raised = {"message": "RuntimeError: the connection is closed", "detail": "", "exhausted": None}
    for notice in (lambda: failures.died([rank], 0), lambda: failures.raised([rank, other], 1, raised)):
        with pytest.raises(failures.Unwritable, match="No space left on device") as caught:
            notice()
        assert caught.value.place == str(tmp_path)  # of the head: its node has nothing to do with it
        assert caught.value.error.errno == errno.ENOSPC
    for each in (rank, other):
        each.kill()
        each.close()


def test_a_connection_that_breaks_ends_the_rank_instead_of_leaving_it_waited_for(
    lines: tuple[Line, Line], tmp_path: Path
) -> None:
    here, there = lines
    rank = RemoteRank(here, tmp_path / "log", 0, "b", lambda: None)
    there.end()
    assert rank.wait() == -signal.SIGKILL
    assert rank.lost == "the connection to node b broke"
    assert rank.read() is None
    rank.close()
