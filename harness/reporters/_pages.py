"""What the pages show of each row, put together before any template is filled in."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from harness.reporters._figures import FigureTable, figure_table
from harness.reporters._pictures import Difference, Differences, size_of
from harness.reporters._words import (
    COLUMNS,
    NOTHING,
    figure_text,
    judged,
    outcome_of,
    outcome_word,
    pads_text,
    plural,
    run_of,
    sentence_of,
    shards_text,
    state_of,
)
from harness.types import Failure, Relation, Report, Row, Run, ShardPlan

ROLES = ("baseline", "replay", "control", "candidate")
SHOWN_ROLES = ("baseline", "replay", "candidate")
MAX_STRIPS = 8
SHORT_PROMPT = 160
GOLDEN_FILES = ("image{}.png", "image-reduced{}.png", "image-reduced{}.jpg")
"""Whole or reduced picture; the braces stand for ``-1``, ``-2``, ... from the second of a batch on."""


@dataclass(frozen=True)
class Cell:
    """One of the five figures of a row: text, whether it holds, and what it was held to."""

    text: str
    state: str
    title: str


@dataclass(frozen=True)
class Card:
    """One picture with its caption, or words where there is no picture."""

    title: str
    caption: str
    file: str | None = None
    size_px: tuple[int, int] | None = None
    words: str = ""


@dataclass(frozen=True)
class Strip:
    """Pictures of one image of the batch, side by side, and their differences."""

    pictures: tuple[Card, ...]
    differences: tuple[Card, ...]


@dataclass(frozen=True)
class RoleView:
    """One run of a row: its times, memory, files, and why it failed."""

    role: str
    digest: str
    run: Run | None
    users: str
    files: tuple[tuple[str, str], ...]

    @property
    def failure(self) -> Failure | None:
        """Why the run has no picture."""
        return self.run.failure if self.run else None

    @property
    def peak_memory(self) -> str:
        """Largest peak over the ranks."""
        peaks = self.run.peak_memory_bytes if self.run else ()
        return f"{max(peaks) / 2**20:,.0f} MiB" if peaks else NOTHING


@dataclass(frozen=True)
class RowView:
    """One row of a page with everything behind it."""

    row: Row
    anchor: str
    page: str
    outcome: str
    style: str
    sentence: str
    shards: str
    pads: str
    cells: tuple[Cell, ...]
    strips: tuple[Strip, ...]
    strips_left_out: int
    figures: FigureTable
    roles: tuple[RoleView, ...]
    prompts: tuple[tuple[str, str], ...]
    """Shortened and full text of each prompt."""


@dataclass
class PageBuilder:
    """Builds the rows of one report, sharing difference pictures and golden copies between them."""

    report: Report
    folder: Path
    differences: Differences = field(init=False)
    users: Counter[str] = field(init=False)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.differences = Differences(self.folder)
        self.users = Counter(digest for row in self.report.rows for digest in set(row.runs.values()))

    def row(self, row: Row) -> RowView:
        """Put one row together; draws its difference pictures."""
        outcome = outcome_of(row)
        count = max((len(run.images) for role in SHOWN_ROLES if (run := run_of(self.report, row, role))), default=0)
        shown = min(count, MAX_STRIPS)
        return RowView(
            row=row,
            anchor=self._anchor(row),
            page=f"{row.variant.axis}.html",
            outcome=outcome_word(outcome),
            style=outcome_word(outcome).replace(" ", "-"),
            sentence=sentence_of(row),
            shards=shards_text(row.plan),
            pads=pads_text(row),
            cells=tuple(_cell(row, relation) for _, relation in COLUMNS),
            strips=tuple(self._strip(row, index) for index in range(shown)),
            strips_left_out=count - shown,
            figures=figure_table(row),
            roles=tuple(self._role(row, role) for role in ROLES if role in row.runs),
            prompts=tuple((_shortened(prompt), prompt) for prompt in row.case.prompts),
        )

    def _anchor(self, row: Row) -> str:
        """Make an address inside the page from the row's name, unique over all rows."""
        slug = _slug(row.name)
        anchor, number = slug, 1
        while anchor in self.anchors:
            number += 1
            anchor = f"{slug}_{number}"
        self.anchors.add(anchor)
        return anchor

    def _strip(self, row: Row, index: int) -> Strip:
        pictures = [self._run_card(row, role, index) for role in SHOWN_ROLES]
        split_reference = "replay" if "replay" in row.runs else "control"
        differences = (
            self._difference_card(row, "exchange", split_reference, "candidate", index),
            self._difference_card(row, "layout", "baseline", "replay", index),
            self._difference_card(row, "pair", "baseline", "candidate", index),
        )
        return Strip((self._golden_card(row, index), *pictures), differences)

    def _picture(self, row: Row, role: str, index: int) -> Path | None:
        run, digest = run_of(self.report, row, role), row.runs.get(role)
        if run is None or digest is None or index >= len(run.images):
            return None
        return self.folder / "runs" / digest / run.images[index]

    def _run_card(self, row: Row, role: str, index: int) -> Card:
        digest = row.runs.get(role)
        path = self._picture(row, role, index)
        size = size_of(path) if path else None
        words = "" if size else _why_no_picture(digest, run_of(self.report, row, role))
        file = quote(path.relative_to(self.folder).as_posix()) if path and size else None
        return Card(role, self._users(row, role), file, size, words)

    def _users(self, row: Row, role: str) -> str:
        """Say which run plays a role and who else uses it."""
        digest = row.runs.get(role)
        if digest is None:
            return ""
        if role == "replay" and digest == row.runs.get("baseline"):
            return f"run {digest[:8]}, the baseline itself: no surplus pads"
        if role == "candidate" and row.shares_with:
            return f"run {digest[:8]}, shared with {row.shares_with}"
        others = self.users[digest] - 1
        return f"run {digest[:8]}" + (f", shared with {plural(others, 'other row')}" if others else "")

    def _golden_card(self, row: Row, index: int) -> Card:
        place, number = self.report.golden_dirs.get(row.case.key), f"-{index}" if index else ""
        names = [name.format(number) for name in GOLDEN_FILES]
        source = next((p for name in names if place and (p := Path(place) / name).is_file()), None)
        size = size_of(source) if source else None
        if source is None or size is None:
            off = "off" in (self.report.golden, row.case.golden)
            return Card("golden", "", words="not held to a golden" if off else "no approved picture")
        # Copied, so that the folder can be sent to somebody without the repository.
        copy = self.folder / "golden" / f"{_slug(row.case.key)}{number}{source.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        reduced = ", reduced" if "reduced" in source.name else ""
        return Card("golden", f"approved{reduced}", quote(copy.relative_to(self.folder).as_posix()), size)

    def _difference_card(self, row: Row, relation: str, reference: str, candidate: str, index: int) -> Card:
        title = f"{relation}: {candidate} \N{MINUS SIGN} {reference}"
        first, second = row.runs.get(reference), row.runs.get(candidate)
        if first is not None and first == second:
            return Card(title, "", words="one and the same run: nothing can differ")
        found = self._difference(row, reference, candidate, index, row.plan)
        if found.file is None:
            return Card(title, "", words=found.words)
        return Card(title, found.words, quote(found.file), found.size_px)

    def _difference(self, row: Row, reference: str, candidate: str, index: int, plan: ShardPlan | None) -> Difference:
        first, second = (self._picture(row, role, index) for role in (reference, candidate))
        if first is None or second is None:
            return Difference("no picture to compare")
        name = f"{row.runs[reference]}-{row.runs[candidate]}-{index}"
        return self.differences.draw(name, first, second, plan)

    def _role(self, row: Row, role: str) -> RoleView:
        digest = row.runs[role]
        own, logs = self.folder / "runs" / digest, self.folder / "logs"
        links = [
            (f"{path.name}/" if path.is_dir() else path.name, quote(path.relative_to(self.folder).as_posix()))
            for path in (own, own / "run.json", logs)
            if path.exists()
        ]
        return RoleView(role, digest, run_of(self.report, row, role), self._users(row, role), tuple(links))


def _cell(row: Row, relation: Relation) -> Cell:
    ok, judgements = judged(row, relation)
    said = [judgement.sentence for judgement in judgements]
    if relation is Relation.GOLDEN_CANDIDATE:
        baseline_ok, _ = judged(row, Relation.GOLDEN_BASELINE)
        if baseline_ok is False:
            ok, said = False, ["the baseline itself no longer draws the approved picture", *said]
    comparison = row.comparison(relation)
    if comparison is None:
        said = ["not compared"]
    return Cell(figure_text(comparison), state_of(ok), "; ".join(dict.fromkeys(said)))


def _why_no_picture(digest: str | None, run: Run | None) -> str:
    if digest is None:
        return "no such run in this row"
    if run is None:
        return "not run"
    if run.failure is not None:
        return f"no picture: {run.failure.kind.value}"
    return "the picture is not in this folder"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)


def _shortened(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= SHORT_PROMPT else one_line[:SHORT_PROMPT] + " …"
