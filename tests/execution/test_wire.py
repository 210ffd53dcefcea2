"""Connections between nodes: friends are told from strangers before anything is said."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import InfrastructureError, UsageError
from harness.execution import wire
from harness.execution.wire import Endpoint, Line

TOKEN = b"a token of many letters"


@pytest.fixture
def server() -> Iterator[tuple[socket.socket, Endpoint]]:
    endpoint = Endpoint("127.0.0.1", wire.free_port("127.0.0.1"))
    with wire.listen(endpoint) as listening:
        yield listening, endpoint


def admitted(listening: socket.socket, found: list[Line | None]) -> threading.Thread:
    """Let one in, in a thread of its own."""
    thread = threading.Thread(target=lambda: found.append(wire.admit(listening.accept()[0], TOKEN)))
    thread.start()
    return thread


@pytest.fixture
def lines(server: tuple[socket.socket, Endpoint]) -> Iterator[tuple[Line, Line]]:
    listening, endpoint = server
    found: list[Line | None] = []
    thread = admitted(listening, found)
    here = wire.call(endpoint, TOKEN, 10)
    thread.join()
    there = found[0]
    assert there is not None
    yield here, there
    here.close()
    there.close()


def test_messages_arrive_whole_with_their_bytes_and_in_order(lines: tuple[Line, Line]) -> None:
    here, there = lines
    data = os.urandom(3 << 20)
    threading.Thread(target=lambda: [here.send({"file": "a"}, data), here.send({"word": "ä"})]).start()
    assert there.receive() == ({"file": "a"}, data)
    assert there.receive() == ({"word": "ä"}, b"")


def test_ending_wakes_who_waits_on_either_side(lines: tuple[Line, Line]) -> None:
    here, there = lines
    ended: list[str] = []

    def wait(line: Line, name: str) -> None:
        with pytest.raises((EOFError, OSError)):
            line.receive()
        ended.append(name)

    threads = [threading.Thread(target=wait, args=(line, name)) for line, name in ((here, "here"), (there, "there"))]
    for thread in threads:
        thread.start()
    here.end()
    for thread in threads:
        thread.join(10)
    assert sorted(ended) == ["here", "there"]
    with pytest.raises(OSError, match="ended"):
        here.send({"word": "late"})


def test_another_token_opens_nothing(server: tuple[socket.socket, Endpoint]) -> None:
    listening, endpoint = server
    found: list[Line | None] = []
    thread = admitted(listening, found)
    with pytest.raises(InfrastructureError, match="token is not the one known there"):
        wire.call(endpoint, b"another token of letters", 10)
    thread.join()
    assert found == [None]


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n"], ids=["nothing", "http"])
def test_a_stranger_is_hung_up_on(
    server: tuple[socket.socket, Endpoint], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(wire, "HANDSHAKE_S", 1.0)
    listening, endpoint = server
    found: list[Line | None] = []
    thread = admitted(listening, found)
    with socket.create_connection((endpoint.host, endpoint.port)) as stranger:
        stranger.sendall(said)
        thread.join(30)
    assert found == [None]


def test_a_stranger_is_not_listened_to_for_longer_by_saying_little(
    server: tuple[socket.socket, Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is one for all that is said, not for each byte of it."""
    monkeypatch.setattr(wire, "HANDSHAKE_S", 0.5)
    listening, endpoint = server
    found: list[Line | None] = []
    thread = admitted(listening, found)
    with socket.create_connection((endpoint.host, endpoint.port)) as stranger:
        for _ in range(wire.CHALLENGE_BYTES + wire.PROOF_BYTES - 1):  # never all of it
            if found:
                break
            stranger.sendall(b"x")
            thread.join(0.1)  # each within the limit, all of them together far beyond
        assert found == [None]


def test_an_answer_cannot_be_turned_against_who_gave_it() -> None:
    """A false head that does not know the token sends back what it is told."""
    endpoint = Endpoint("127.0.0.1", wire.free_port("127.0.0.1"))

    def reflect(listening: socket.socket) -> None:
        with listening.accept()[0] as accepted:
            accepted.sendall(bytes(wire.CHALLENGE_BYTES))
            told = accepted.recv(wire.CHALLENGE_BYTES + wire.PROOF_BYTES, socket.MSG_WAITALL)
            accepted.sendall(told[wire.CHALLENGE_BYTES :])

    with wire.listen(endpoint) as listening:
        thread = threading.Thread(target=reflect, args=(listening,))
        thread.start()
        with pytest.raises(InfrastructureError, match="token is not the one known there"):
            wire.call(endpoint, TOKEN, 10)
        thread.join()
    same = bytes(2 * wire.CHALLENGE_BYTES)  # also where it got both ends to choose the same challenge
    assert wire._proof(b"head", TOKEN, same) != wire._proof(b"node", TOKEN, same)


@pytest.mark.skipif(sys.platform != "linux", reason="the options have other names elsewhere")
def test_a_machine_that_is_gone_without_a_word_is_noticed(lines: tuple[Line, Line]) -> None:
    """Nobody can pull a plug here: the kernel is asked what it was told to do."""
    for line in lines:
        with socket.socket(fileno=os.dup(line.fileno())) as same:
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            told = [same.getsockopt(socket.IPPROTO_TCP, option) for option in options]
            assert told == [5, 2, 3, 11_000]
            assert 1000 * (told[0] + told[1] * told[2]) == told[3]  # at rest as soon as while something is sent


def test_who_calls_first_waits_for_the_head(server: tuple[socket.socket, Endpoint]) -> None:
    endpoint = Endpoint("127.0.0.1", wire.free_port("127.0.0.1"))
    found: list[Line] = []
    thread = threading.Thread(target=lambda: found.append(wire.call(endpoint, TOKEN, 30)))
    thread.start()
    time.sleep(0.1)  # it finds nobody at first, or it does not: both must end well
    with wire.listen(endpoint) as listening:
        there = wire.admit(listening.accept()[0], TOKEN)
        thread.join(30)
    assert there is not None
    found[0].close()
    there.close()


def test_a_head_that_never_comes_is_named() -> None:
    with pytest.raises(InfrastructureError, match=r"nobody answers \(Connection refused\)"):
        wire.call(Endpoint("127.0.0.1", wire.free_port("127.0.0.1")), TOKEN, 0)


@pytest.mark.parametrize("text", ["", "host", "host:", ":29400", "host:port", "host:0", "host:70000"])
def test_an_endpoint_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="write HOST:PORT"):
        Endpoint.parse(text)


def test_an_endpoint() -> None:
    assert Endpoint.parse("10.0.0.1:29400") == Endpoint("10.0.0.1", 29400)
    assert Endpoint.parse("[::1]:29400") == Endpoint("::1", 29400)
    assert [str(Endpoint.parse(text)) for text in ("gpu-1:1", "[::1]:2")] == ["gpu-1:1", "[::1]:2"]


def test_nobody_listens_on_another_machines_address() -> None:
    with pytest.raises(InfrastructureError, match="cannot listen there"):
        wire.listen(Endpoint("192.0.2.1", 29400))  # an address kept for documentation


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("from the file, long enough\n")
    file.chmod(0o600)
    assert wire.read_token(file) == b"from the file, long enough"
    monkeypatch.setenv(wire.TOKEN, "from the environment")
    assert wire.read_token() == b"from the environment"


def test_a_token_that_is_missing_short_or_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(wire.TOKEN, raising=False)
    with pytest.raises(UsageError, match=r"SP_HARNESS_TOKEN: .* make one with"):
        wire.read_token()
    monkeypatch.setenv(wire.TOKEN, "short")
    with pytest.raises(UsageError, match="at least 16 characters"):
        wire.read_token()
    file = tmp_path / "token"
    with pytest.raises(UsageError, match="cannot be read"):
        wire.read_token(file)
    file.write_text("long enough to be a token")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        wire.read_token(file)
