"""Builds of distributions: version and, of an installed checkout, commit and changes that are not committed."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

_SOURCES = (".py", ".pyi", ".so", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".triton", ".json", ".toml")
"""Endings of untracked files that may decide what is computed."""
_GIT_TIMEOUT_S = 30


def version(package: str) -> str:
    """Return a distribution's version, with the commit it was installed from where that is known.

    Returns
    -------
    str
        ``1.2``; ``1.2 (commit 0123456789ab)``, followed by ``, changed 1f0c9a2b`` for a checkout with changes that
        are not committed, by a digest of these; ``1.2 (files 1f0c9a2b)`` for an installed folder without git.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If it is not installed.
    """
    return _version(package, tuple(sys.path))


@cache
def _version(package: str, path: tuple[str, ...]) -> str:
    """Read a distribution's metadata once in this process for each search path: every run of a plan asks for them."""
    found = importlib.metadata.distribution(package)
    origin: dict[str, Any] = json.loads(found.read_text("direct_url.json") or "{}")
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return f"{found.version} (commit {commit[:12]})"
    if not origin.get("dir_info", {}).get("editable"):
        return found.version
    return f"{found.version} ({_checkout(Path(unquote(urlparse(origin['url']).path)))})"


@cache
def _checkout(root: Path) -> str:
    """Describe the state of a folder once in this process: its processes have imported what was there then."""
    commit = _git(root, "rev-parse", "HEAD").decode().strip()
    if not commit:
        digests = [file_digest(path) for path in sorted(root.rglob("*.py"))]
        return f"files {sha256(' '.join(digests).encode()).hexdigest()[:8]}"
    changes = sha256(_git(root, "diff", "HEAD", "--binary", "--", "."))
    empty = changes.hexdigest() == sha256().hexdigest()
    for name in _git(root, "ls-files", "--others", "--exclude-standard", "-z").decode().split("\0"):
        if name.endswith(_SOURCES):
            changes.update(f"{name} {file_digest(root / name)}".encode())
            empty = False
    return f"commit {commit[:12]}" + ("" if empty else f", changed {changes.hexdigest()[:8]}")


def _git(root: Path, *arguments: str) -> bytes:
    """Output of a git command; empty where it fails or git is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=_GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def file_digest(path: Path) -> str:
    """Digest a file's content; read again only where size or time of change differ."""
    status = path.stat()
    return _digest(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1 << 14)
def _digest(path: Path, modified_ns: int, size_bytes: int) -> str:
    return sha256(path.read_bytes()).hexdigest()
