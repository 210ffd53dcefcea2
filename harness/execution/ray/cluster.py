"""What there is to know of a Ray cluster: how to get there, what a group of cases needs, and what nodes have."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from harness.errors import InfrastructureError, UsageError
from harness.types import RunSpec

A_LITTLE = 0.001
"""Of a node's one ``accelerator_type``: as ray itself asks for it, so that every task of the node gets some."""

LATEST = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
"""Where ray keeps the address of the cluster it has started last, also when that is gone."""
ANSWER_S = 10.0
"""What a machine of the cluster has to answer."""


def check_installed() -> None:
    """See that ray can be imported.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    if find_spec("ray") is None:
        raise UsageError("--executor ray: ray is not installed; pip install 'sp-harness[ray]'")


@dataclass
class Group:
    """Runs that stay together, and how far they are."""

    number: int
    specs: list[RunSpec]
    done: set[str] = field(default_factory=set)
    times_placed: int = 0
    kind: str = ""
    """What ray calls the GPUs of the node that drew the first of its runs, ``accelerator_type:H200``."""

    @property
    def lacking(self) -> list[RunSpec]:
        """Runs that have not come back."""
        return [spec for spec in self.specs if spec.digest not in self.done]

    @property
    def to_compute(self) -> list[RunSpec]:
        """What it lacks, with all requests of the sequences concerned: the earlier ones come again, unseen."""
        sequences = {spec.sequence for spec in self.lacking if spec.sequence}
        return [spec for spec in self.specs if spec.digest not in self.done or spec.sequence in sequences]

    @property
    def needs(self) -> dict[str, float]:
        """What one node must have: GPUs for runs on GPUs, cores for runs on a CPU.

        Runs that are compared come from one kind of machine: once a run is there, so is the kind.
        """
        found: dict[str, float] = {self.kind: A_LITTLE} if self.kind and self.done else {}
        for spec in self.specs:
            kind = "GPU" if spec.case.device == "cuda" else "CPU"
            found[kind] = max(found.get(kind, 0), spec.world_size)
        return found


def connect(address: str | None) -> bool:
    """Connect to a cluster, or start one; whether there was no connection before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what ray itself is about to make the default
    import ray

    if ray.is_initialized():
        return False
    address = _answering(address)
    in_main_thread = threading.current_thread() is threading.main_thread()
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InfrastructureError(f"the Ray cluster {address or ''} cannot be reached: {reason}") from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, terminated)  # ray takes it for itself
    return True


def _answering(address: str | None) -> str | None:
    """What to tell ray, which would wait for minutes for a cluster that is gone; a new one where it was not asked for.

    Raises
    ------
    InfrastructureError
        If a cluster is named, here or in the environment, and nobody answers there.
    """
    named = address or os.environ.get("RAY_ADDRESS", "")
    found = named or (LATEST.read_text(encoding="utf-8").strip() if LATEST.is_file() else "")
    host, _, port = found.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return address  # ray knows what else there is, and what is no address
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        if not named:
            return "local"
        reason = getattr(error, "strerror", None) or error
        raise InfrastructureError(f"the Ray cluster {named} cannot be reached: {reason}") from None
    return address


def kind_of(node_id: str) -> str:
    """What ray calls the GPUs of a node; empty where it has none."""
    import ray

    nodes = [node for node in ray.nodes() if node["NodeID"] == node_id]  # type: ignore[no-untyped-call]
    return next((name for node in nodes for name in node["Resources"] if name.startswith("accelerator_type:")), "")


def fits_nowhere(needs: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> str:
    """Say what no node has."""
    counted = [name for name in needs if name in ("CPU", "GPU")]
    wanted = " and ".join(f"{needs[name]:g} {name}s" for name in counted)
    most = " and ".join(f"{max((node.get(name, 0) for node in nodes), default=0):g}" for name in counted)
    kind = next((f" with {name}, where its other runs were drawn," for name in needs if name not in counted), "")
    return f"no node of the Ray cluster{kind} has the {wanted} it needs (the most is {most})"
