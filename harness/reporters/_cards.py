"""Pictures of a row as cards: goldens, runs, and the differences between them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from harness.reporters._pictures import copy_golden, size_of
from harness.reporters._words import plural, run_of
from harness.reporting.difference_images import Differences
from harness.reporting.difference_index import (
    NOTHING_TO_COMPARE,
    REDUCED,
    Difference,
    DifferenceIndex,
    name_of,
    shown_pairs,
)
from harness.reporting.golden_copies import FOLDER, stem_of
from harness.types import Report, Row, Run, ShardPlan

SHOWN_ROLES = ("baseline", "replay", "candidate")
SHORT_PROMPT = 160
GOLDEN_FILES = ("image{}.png", "image-reduced{}.png", "image-reduced{}.jpg")
"""Whole or reduced picture; the braces stand for ``-1``, ``-2``, ... from the second of a batch on."""

CACHED_GOLDEN = "not held to a golden: a cache changes the picture by itself, and goldens are drawn without one"


@dataclass(frozen=True)
class Card:
    """One picture with its caption, or words where there is no picture."""

    title: str
    caption: str
    file: str | None = None
    size_px: tuple[int, int] | None = None
    words: str = ""
    reduced: bool = False
    """For the eye alone: fewer pixels than were drawn."""
    name: str = ""
    """``golden``, a role, or the relation of a difference."""
    heat: bool = False
    """An amplified difference."""


@dataclass(frozen=True)
class Strip:
    """Pictures of one image of the batch, side by side, and their differences."""

    prompt: str
    pictures: tuple[Card, ...]
    differences: tuple[Card, ...]

    @property
    def cards(self) -> tuple[Card, ...]:
        """Pictures, then differences."""
        return (*self.pictures, *self.differences)


@dataclass
class CardBuilder:
    """Builds the cards of rows that share pictures; difference pictures are drawn once."""

    report: Report
    folder: Path
    users: Counter[str]
    """In how many rows each run plays a role."""
    known: DifferenceIndex
    """Difference pictures that were drawn earlier."""
    differences: Differences = field(init=False)

    def __post_init__(self) -> None:
        self.differences = Differences(self.folder, self.known)

    def strip(self, row: Row, index: int) -> Strip:
        """Put the pictures of one image of a batch together; draws its differences."""
        pictures = [replace(self._run_card(row, role, index), name=role) for role in SHOWN_ROLES]
        golden = replace(self._golden_card(row, index), name="golden")
        differences = tuple(
            replace(self._difference_card(row, *pair, index), name=pair[0], heat=True) for pair in shown_pairs(row)
        )
        prompt = row.case.prompts[min(index // row.case.num_images_per_prompt, len(row.case.prompts) - 1)]
        return Strip(shortened(prompt), (golden, *pictures), differences)

    def _picture(self, row: Row, role: str, index: int) -> Path | None:
        run, digest = run_of(self.report, row, role), row.runs.get(role)
        if run is None or digest is None or index >= len(run.images):
            return None
        return self.folder / "runs" / digest / run.images[index]

    def _run_card(self, row: Row, role: str, index: int) -> Card:
        digest = row.runs.get(role)
        caption, path = users_text(self.report, self.users, row, role), self._picture(row, role, index)
        for shown in (path, path.with_name(path.stem + REDUCED)) if path else ():
            if size := size_of(shown):
                reduced = shown != path
                file = quote(shown.relative_to(self.folder).as_posix())
                return Card(role, caption + ", reduced" * reduced, file, size, reduced=reduced)
        return Card(role, caption, words=_why_no_picture(digest, run_of(self.report, row, role)))

    def _golden_card(self, row: Row, index: int) -> Card:
        if row.variant.cache != "none":
            return Card("golden", "", words=CACHED_GOLDEN)
        for copy in self._golden_copies(row, index):
            if size := size_of(copy):
                reduced = copy.name.endswith(REDUCED)
                file = quote(copy.relative_to(self.folder).as_posix())
                return Card("golden", "approved" + ", reduced" * reduced, file, size, reduced=reduced)
        off = "off" in (self.report.golden, row.case.golden)
        return Card("golden", "", words="not held to a golden" if off else "no approved picture")

    def _golden_copies(self, row: Row, index: int) -> list[Path]:
        """Copy an approved picture, so that the folder can be sent to somebody without the goldens.

        Returns the copy or, where the goldens are not at hand or the row was packed, what an earlier copy may be.
        """
        place = self.report.golden_dirs.get(row.case.key)
        if place is None:
            return []
        stem = stem_of(row.case, index)
        whole, reduced = (self.folder / FOLDER / f"{stem}{ending}" for ending in (".png", REDUCED))
        drawn = self._picture(row, "baseline", index)
        if reduced.is_file() and drawn is not None and not drawn.is_file():
            return [reduced]
        for name in GOLDEN_FILES:
            if (source := Path(place) / name.format(f"-{index}" if index else "")).is_file():
                copy = reduced if "reduced" in name else whole
                copy_golden(source, copy)
                return [copy]
        return [whole, reduced]

    def _difference_card(self, row: Row, relation: str, reference: str, candidate: str, index: int) -> Card:
        title = f"{relation}: {candidate} \N{MINUS SIGN} {reference}"
        first, second = row.runs.get(reference), row.runs.get(candidate)
        if first is not None and first == second:
            return Card(title, "", words="one and the same run: nothing can differ")
        found = self._difference(row, reference, candidate, index, row.plan)
        if found.file is None:
            return Card(title, "", words=found.words)
        reduced = found.file.endswith(REDUCED)
        return Card(title, "reduced; " * reduced + found.words, quote(found.file), found.size_px, reduced=reduced)

    def _difference(self, row: Row, reference: str, candidate: str, index: int, plan: ShardPlan | None) -> Difference:
        first, second = (self._picture(row, role, index) for role in (reference, candidate))
        if first is None or second is None:
            return NOTHING_TO_COMPARE
        return self.differences.draw(name_of(row, reference, candidate, index), first, second, plan)


def users_text(report: Report, users: Counter[str], row: Row, role: str) -> str:
    """Say which run plays a role and who else uses it."""
    digest = row.runs.get(role)
    if digest is None:
        return ""
    if role == "replay" and digest == row.runs.get("baseline"):
        return f"run {digest[:8]}, the baseline itself: no surplus pads"
    if role == "candidate" and row.shares_with:
        return f"run {digest[:8]}, shared with {row.shares_with}"
    others = users[digest] - 1
    return f"run {digest[:8]}" + (f", shared with {plural(others, 'other row')}" if others else "")


def _why_no_picture(digest: str | None, run: Run | None) -> str:
    if digest is None:
        return "no such run in this row"
    if run is None:
        return "not run"
    if run.failure is not None:
        return f"no picture: {run.failure.kind.value}"
    return "the picture is not in this folder"


def shortened(text: str) -> str:
    """Bring a text on one line that is not too long."""
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= SHORT_PROMPT else one_line[:SHORT_PROMPT] + " …"
