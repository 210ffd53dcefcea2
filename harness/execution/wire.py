"""Messages between the machines of one run: who may speak, and how one message is told from the next.

Each message is a JSON object, with bytes behind it where it announces them. Both ends of a connection prove
that they know the same token before anything else is read: each sends a random challenge, and answers the
other's with an HMAC-SHA256. Head and node answer with different keys, so that nobody can use the answer of
one to pass for the other. What is said afterwards is not encrypted: torch.distributed's own traffic is not
either, and both belong on a private network.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.errors import InfrastructureError, UsageError

TOKEN = "SP_HARNESS_TOKEN"
"""Variable that holds the token all nodes of a run know."""
MIN_TOKEN_LENGTH = 16
MAX_MESSAGE_BYTES = 64 << 20
HANDSHAKE_S = 10.0
"""A stranger is not listened to for longer, whatever it says and however slowly."""
RETRY_S = 0.5
CHALLENGE_BYTES = 32
PROOF_BYTES = 32


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
    deadline = time.monotonic() + HANDSHAKE_S
    ours = secrets.token_bytes(CHALLENGE_BYTES)
    try:
        accepted.settimeout(HANDSHAKE_S)
        accepted.sendall(ours)
        theirs, proof = _take(accepted, CHALLENGE_BYTES, deadline), _take(accepted, PROOF_BYTES, deadline)
        if not hmac.compare_digest(proof, _proof(b"node", token, ours + theirs)):
            raise PermissionError("another token")
        accepted.sendall(_proof(b"head", token, theirs + ours))
        return Line(_connection(accepted))
    except (EOFError, OSError):
        accepted.close()
        return None


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
            called = socket.create_connection((endpoint.host, endpoint.port), timeout=HANDSHAKE_S)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"--rdzv-endpoint {endpoint}: nobody answers ({error.strerror or error}); is sp-harness run there?"
                ) from None
            time.sleep(RETRY_S)
    deadline = time.monotonic() + HANDSHAKE_S
    ours = secrets.token_bytes(CHALLENGE_BYTES)
    try:
        theirs = _take(called, CHALLENGE_BYTES, deadline)
        called.sendall(ours + _proof(b"node", token, theirs + ours))
        if not hmac.compare_digest(_take(called, PROOF_BYTES, deadline), _proof(b"head", token, ours + theirs)):
            raise PermissionError("another token")
        return Line(_connection(called))
    except (EOFError, OSError):
        called.close()
        raise InfrastructureError(
            f"--rdzv-endpoint {endpoint}: the token is not the one known there, or that is another version of "
            f"sp-harness; {TOKEN} has to be the same on all nodes"
        ) from None


def free_port(host: str) -> int:
    """Choose a port that nobody holds at the moment."""
    with socket.create_server((host, 0), family=socket.getaddrinfo(host, 0)[0][0]) as server:
        return int(server.getsockname()[1])


def _proof(role: bytes, token: bytes, challenge: bytes) -> bytes:
    """What only one who knows the token can say to a challenge, as head or as node."""
    return hmac.digest(sha256(role + token).digest(), challenge, "sha256")


def _take(peer: socket.socket, num_bytes: int, deadline: float) -> bytes:
    """Read from somebody of whom nobody knows yet who it is."""
    data = b""
    while len(data) < num_bytes:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("too slow")
        peer.settimeout(left_s)
        part = peer.recv(num_bytes - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _connection(connected: socket.socket) -> Connection:
    """Notice within seconds a machine that is gone without a word, instead of after hours."""
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 11_000)):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(connected.detach())
