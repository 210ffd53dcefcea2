"""Key of a worker group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from harness import plugins
from harness.plugins import Engine
from harness.types import Device, DType, RunSpec


@dataclass(frozen=True)
class GroupKey:
    """Properties that runs must share to be served by the same processes."""

    world_size: int
    device: Device
    dtype: DType
    model_path: str
    sequence: str = ""
    process: str = ""
    """Name of the engine, or the one that engines give which may share processes."""
    configuration: tuple[tuple[str, Any], ...] = ()
    """Values that the engine needs when it loads."""
    python: str = ""
    """Interpreter of another environment; empty for this one."""

    @classmethod
    def of(cls, spec: RunSpec) -> GroupKey:
        """The group a run needs."""
        engine: type[Engine] = plugins.load("engines", spec.engine)
        case, configuration = spec.case, tuple(sorted(engine.configuration(spec).items()))
        key = cls(spec.world_size, case.device, case.dtype, spec.model_path, spec.sequence)
        return replace(key, process=engine.process_name(), configuration=configuration, python=spec.interpreter)
