"""Connection to a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from importlib.util import find_spec
from pathlib import Path

from harness.errors import InfrastructureError, UsageError

LATEST = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
"""File in which ray keeps the address of the cluster it has started last, also when that is gone."""
ANSWER_S = 10.0
"""Time limit of a connection to the cluster."""


def check_installed() -> None:
    """See that ray can be imported.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    if find_spec("ray") is None:
        raise UsageError("--executor ray: ray is not installed; pip install 'sp-harness[ray]'")


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
    """Address to give to ray, which would wait for minutes for a cluster that is gone; ``local`` starts one.

    Raises
    ------
    InfrastructureError
        If a cluster is named, here or in the environment, and nobody answers there.
    """
    named = address or os.environ.get("RAY_ADDRESS", "")
    found = named or (LATEST.read_text(encoding="utf-8").strip() if LATEST.is_file() else "")
    host, _, port = found.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return address  # other addresses are left to ray
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        if not named:
            return "local"
        reason = getattr(error, "strerror", None) or error
        raise InfrastructureError(f"the Ray cluster {named} cannot be reached: {reason}") from None
    return address
