"""Base classes of metrics and report formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.types import Domain, Figure, Report, ShardPlan


@dataclass(frozen=True)
class Context:
    """Circumstances of a measurement, beside the two arrays."""

    plan: ShardPlan | None = None
    """The candidate's cut; ``None`` where the picture is not cut."""


class Metric(ABC):
    """A figure over two arrays of equal shape, instantiated once without arguments."""

    name: ClassVar[str]
    variant: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    domains: ClassVar[tuple[Domain, ...]] = ("image", "latents")

    @abstractmethod
    def measure(self, reference: Any, candidate: Any, domain: Domain, context: Context) -> Figure | None:
        """Compare two arrays that differ somewhere, and that must not be written to.

        ``image``: uint8 ``H,W,3``, data range 255. ``latents``: float32 ``C,H,W``, data range the span of
        the reference. ``None`` leaves the metric out, as one about shard borders does where nothing is cut.
        """


class Reporter(ABC):
    """A report format."""

    name: ClassVar[str]

    @abstractmethod
    def write(self, report: Report, folder: Path) -> Path:
        """Write the report into the run's folder and return the file to open."""
