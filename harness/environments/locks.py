"""Lock files of engines' environments: ``harness/engines/environments/ENGINE-VERSION[-cpu].txt``."""

from __future__ import annotations

import re
from pathlib import Path

from harness.types import Device

FOLDER = Path(__file__).parent.parent / "engines" / "environments"


def path_of(engine: str, version: str, device: Device) -> Path:
    """Place of the lock file of an engine's release."""
    return FOLDER / f"{engine}-{version}{'-cpu' if device == 'cpu' else ''}.txt"


def versions(engine: str, device: Device) -> list[str]:
    """List the releases of an engine that there are lock files of, the oldest first."""
    found = []
    for file in FOLDER.glob(f"{engine}-*.txt"):
        name, is_cpu = file.stem.removesuffix("-cpu"), file.stem.endswith("-cpu")
        version = name.removeprefix(f"{engine}-")
        if version[:1].isdigit() and is_cpu == (device == "cpu"):
            found.append(version)
    return sorted(found, key=_order)


def pins(path: Path) -> dict[str, str]:
    """Read the version of each distribution."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _order(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
