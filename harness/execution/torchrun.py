"""One node's agent of torchrun: started for a group, ended with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.execution import child_process
from harness.execution.wire import TOKEN, Endpoint

NODE = "SP_HARNESS_NODE"
"""Variable that tells a rank which node it is on; 0 is the head."""


@dataclass(frozen=True)
class LaunchOrder:
    """What an agent is to start: one group, over several nodes."""

    launch: str
    """Name of this start of the group: torchrun's ``--rdzv-id``."""
    head: str
    """Endpoint to which ranks report."""
    rendezvous: str
    """Endpoint of torchrun's own rendezvous, on the head."""
    node: int
    """Which node this is; 0 is the head, which holds torchrun's rendezvous."""
    num_nodes: int
    num_ranks: int
    """Ranks of this node."""
    timeout_s: float
    """How long the agents wait for one another."""


class Agent:
    """A running ``torchrun``; every rank it starts is an :mod:`harness.execution.outpost`.

    Parameters
    ----------
    order
        What to start.
    token
        Known to all nodes; ranks read it from their environment.
    address
        Of this node, for the ranks of the others; torchrun would have to guess it from the machine's name.
    log
        File that gets what torchrun prints.
    on_exit
        Called from another thread when torchrun has ended, with its exit code.
    """

    def __init__(
        self, order: LaunchOrder, token: bytes, address: str, log: Path, on_exit: Callable[[int], None]
    ) -> None:
        self.log = log
        self._scratch = tempfile.mkdtemp(prefix="sp-harness-")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                _command(order, address, self._scratch),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(order, token),
            )
        self._on_exit = on_exit
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="torchrun")
        self._watcher.start()

    def end(self) -> None:
        """End torchrun; its ranks end when the head hangs up on them."""
        if self._process.poll() is None:  # else the number may be another's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._watcher.join()

    def tail(self) -> str:
        """Last of what torchrun printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def _watch(self) -> None:
        code = self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._on_exit(code)


def _command(order: LaunchOrder, address: str, scratch: str) -> tuple[str, ...]:
    return (
        *child_process.command("torch.distributed.run"),
        *("--nnodes", str(order.num_nodes), "--nproc-per-node", str(order.num_ranks), "--max-restarts", "0"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", order.rendezvous, "--rdzv-id", order.launch),
        *("--local-addr", address, "--log-dir", scratch),
        # Who holds the rendezvous is known, too.
        *("--rdzv-conf", f"is_host={int(order.node == 0)},join_timeout={order.timeout_s:.0f}"),
        *("-m", "harness.execution.outpost", order.head, order.launch),
    )


def _environment(order: LaunchOrder, token: bytes) -> dict[str, str]:
    local = Endpoint.parse(order.head).is_loopback and sys.platform == "linux"
    chosen = {"GLOO_SOCKET_IFNAME": "lo"} if local else {}
    # torchrun starts its ranks with -m, which would look into the working directory first.
    same_code = {"PYTHONSAFEPATH": "1"} | child_process.search_path()
    known = {"OMP_NUM_THREADS": "1", NODE: str(order.node), TOKEN: token.decode()}
    return {**chosen, **os.environ, **same_code, **known}
