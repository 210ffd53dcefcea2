"""Ranks on other machines as their parent sees them; the outpost at the other end is stood in for."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import wire
from harness.remote import RemoteRank
from harness.wire import Endpoint, Line

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


def test_a_word_nobody_understands_ends_the_rank_instead_of_leaving_it_waited_for(
    lines: tuple[Line, Line], tmp_path: Path
) -> None:
    here, there = lines
    (tmp_path / "log").write_text("")
    rank = RemoteRank(here, tmp_path / "log", 0, "b", lambda: None)
    rank.write({"folder": str(tmp_path / "gone")})
    there.receive()
    there.send({"file": "image-0.tif"}, b"data")  # its folder is gone, as where the disk is full
    assert rank.wait() == -signal.SIGKILL
    assert rank.lost == f"what it sends cannot be written ({tmp_path / 'gone'}: No such file or directory)"
    assert rank.read() is None
    rank.close()
