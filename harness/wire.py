"""Messages between the machines of one run: who may speak, and how one message is told from the next.

Each message is a JSON object, with bytes behind it where it announces them. Both ends of a connection prove
that they know the same token before anything else is read (the standard library's challenge, an HMAC). What
is said is not encrypted: torch.distributed's own traffic is not either, and both belong on a private network.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from harness.errors import InfrastructureError, UsageError

TOKEN = "SP_HARNESS_TOKEN"
"""Variable that holds the token all nodes of a run know."""
MIN_TOKEN_LENGTH = 16
MAX_MESSAGE_BYTES = 64 << 20
HANDSHAKE_S = 10.0
"""A stranger who says nothing is not listened to for longer."""
RETRY_S = 0.5
_NO_FRIEND = (AuthenticationError, AssertionError, EOFError, OSError)


@dataclass(frozen=True)
class Endpoint:
    """``HOST:PORT`` where the nodes of a run meet."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read ``--rdzv-endpoint``.

        Raises
        ------
        UsageError
            If it is not HOST:PORT.
        """
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise UsageError(f"--rdzv-endpoint {text!r}: write HOST:PORT of the node that runs the matrix")
        return cls(host.strip("[]"), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether all nodes are this machine, as in a test."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_token(file: Path | None = None) -> bytes:
    """Read the token from a file, or else from the environment.

    Raises
    ------
    UsageError
        If there is none, it is short, or others may read the file.
    """
    if file is None:
        text, source = os.environ.get(TOKEN, ""), f"the variable {TOKEN}"
    else:
        try:
            if file.stat().st_mode & 0o077:
                raise UsageError(f"{file}: other users may read this token; say: chmod 600 {file}")
            text, source = file.read_text(encoding="utf-8").strip(), str(file)
        except OSError as error:
            raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    if len(text) < MIN_TOKEN_LENGTH:
        raise UsageError(
            f"{source}: the nodes of a run share a token of at least {MIN_TOKEN_LENGTH} characters; make one with: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return text.encode()


class Line:
    """One end of a connection whose other end has proved that it knows the token; any thread may send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._ended = False

    def send(self, message: Mapping[str, Any], data: bytes = b"") -> None:
        """Send a message.

        Raises
        ------
        OSError
            If the other end is gone.
        """
        with self._sending:
            if self._ended:
                raise BrokenPipeError("the connection has been ended")
            self._connection.send_bytes(json.dumps({**message, "bytes": len(data)}).encode())
            if data:
                self._connection.send_bytes(data)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Wait for the next message; for one thread alone.

        Raises
        ------
        EOFError, OSError
            If there will be no more.
        """
        message = json.loads(self._connection.recv_bytes(MAX_MESSAGE_BYTES))
        return message, self._connection.recv_bytes(MAX_MESSAGE_BYTES) if message.pop("bytes") else b""

    def poll(self, timeout_s: float) -> bool:
        """Whether there is something to receive, an end included."""
        return self._connection.poll(timeout_s)

    def fileno(self) -> int:
        """Descriptor to wait on."""
        return self._connection.fileno()

    @property
    def local_host(self) -> str:
        """Address of this machine as the other end knows it."""
        with socket.socket(fileno=os.dup(self._connection.fileno())) as same:
            return str(same.getsockname()[0])

    def end(self) -> None:
        """End the conversation from any thread: who waits in :meth:`receive`, here or there, is told at once."""
        self._ended = True
        try:
            with socket.socket(fileno=os.dup(self._connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # ended already

    def close(self) -> None:
        """Give the connection back; no thread may be using it."""
        self._ended = True
        self._connection.close()


def listen(endpoint: Endpoint) -> socket.socket:
    """Listen where the nodes are to meet.

    Raises
    ------
    InfrastructureError
        If that is no address of this machine, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((endpoint.host, endpoint.port), family=family)
    except OSError as error:
        raise InfrastructureError(
            f"--rdzv-endpoint {endpoint}: cannot listen there ({error.strerror or error}); name an address of this "
            "machine that the other nodes reach, and a free port"
        ) from None


def admit(accepted: socket.socket, token: bytes) -> Line | None:
    """Let in who knows the token; a stranger is hung up on."""
    connection = _connection(accepted)
    try:
        with _impatient(connection):
            deliver_challenge(connection, token)
            answer_challenge(connection, token)
    except _NO_FRIEND:
        connection.close()
        return None
    return Line(connection)


def call(endpoint: Endpoint, token: bytes, timeout_s: float) -> Line:
    """Connect to the node that runs the matrix; it need not listen yet.

    Raises
    ------
    InfrastructureError
        If nobody answers in time, or the token is another.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection = _connection(socket.create_connection((endpoint.host, endpoint.port), timeout=HANDSHAKE_S))
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"--rdzv-endpoint {endpoint}: nobody answers ({error.strerror or error}); is sp-harness run there?"
                ) from None
            time.sleep(RETRY_S)
    try:
        with _impatient(connection):
            answer_challenge(connection, token)
            deliver_challenge(connection, token)
    except _NO_FRIEND:
        connection.close()
        raise InfrastructureError(
            f"--rdzv-endpoint {endpoint}: the token is not the one known there; {TOKEN} has to be the same on all nodes"
        ) from None
    return Line(connection)


def free_port(host: str) -> int:
    """Choose a port that nobody holds at the moment."""
    with socket.create_server((host, 0), family=socket.getaddrinfo(host, 0)[0][0]) as server:
        return int(server.getsockname()[1])


@contextmanager
def _impatient(connection: Connection) -> Iterator[None]:
    """Fail instead of waiting for long, since nobody knows yet who is there."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        for timeout_s in (HANDSHAKE_S, 0.0):  # no limit afterwards
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(timeout_s), 0))
            if timeout_s:
                yield


def _connection(connected: socket.socket) -> Connection:
    """Notice within seconds a machine that is gone without a word, instead of after hours."""
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 11_000)):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(connected.detach())
