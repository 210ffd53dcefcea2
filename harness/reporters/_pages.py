"""Contents of the report's pages, assembled before a template is rendered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from harness.diagnose.sentence import describe_image
from harness.reporters._cards import SHOWN_ROLES, Card, CardBuilder, Strip, shortened, users_text
from harness.reporters._costs import (
    cache_note,
    cache_text,
    cost_sentences,
    exchanged_bytes,
    megabytes,
    request_text,
    seconds,
    step_s,
)
from harness.reporters._evidence import EvidenceView, evidence_of
from harness.reporters._figures import FigureTable, figure_table
from harness.reporters._steps import StepView, step_view
from harness.reporters._thumbnails import thumbnail
from harness.reporters._viewer import Viewer, shown_card, viewer_of
from harness.reporters._words import (
    COLUMNS,
    IMAGE_COLUMNS,
    NOTHING,
    figure_text,
    judged,
    latents_db,
    lengths_text,
    outcome_of,
    outcome_word,
    pads_text,
    run_of,
    sentence_of,
    shards_text,
    state_of,
)
from harness.reporting.difference_index import SHOWN_IMAGES, Difference, DifferenceIndex
from harness.reporting.row_pages import names_of, page_of
from harness.types import Failure, Relation, Report, Row, Run

ROLES = ("baseline", "replay", "control", "candidate")


@dataclass(frozen=True)
class Cell:
    """One of the figures of a row: text, whether it holds, and what it was held to."""

    text: str
    state: str
    title: str
    value_db: float | None = None
    """By which rows are sorted; ``None`` where both sides are equal or nothing was measured."""


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

    @property
    def typical_step(self) -> str:
        """Median of the seconds a step took, without the first."""
        return seconds(step_s(self.run))

    @property
    def exchanged(self) -> str:
        """Megabytes that the ranks sent to one another."""
        return megabytes(exchanged_bytes(self.run))


@dataclass(frozen=True)
class RowView:
    """One row of a page with everything behind it."""

    row: Row
    anchor: str
    page: str
    outcome: str
    style: str
    sentence: str
    cause: str
    """In one word, of rows that do not pass; empty where it is not known."""
    shards: str
    lengths: str
    """Tokens of each rank in attention, pads included."""
    pads: str
    cells: tuple[Cell, ...]
    """Figures of latents, then those of pictures."""
    cache: Cell | None
    """What the cache decided; ``None`` without one."""
    request: str
    """Place in a sequence of requests."""
    steps: StepView | None
    costs: tuple[str, ...]
    strips: tuple[Strip, ...]
    strips_left_out: int
    figures: FigureTable
    roles: tuple[RoleView, ...]
    prompts: tuple[tuple[str, str], ...]
    """Shortened and full text of each prompt."""
    viewer: Viewer
    thumbnail: str | None
    """Candidate on the overview."""
    difference: str | None
    """What takes its place on hover."""
    step_s: float | None
    evidence: EvidenceView | None = None
    """What was seen inside, of rows that were explained."""

    @property
    def glance(self) -> Cell:
        """The one figure beside a verdict: exchange, or that the cache went astray before it."""
        if self.cache is not None and self.cache.state == "bad":
            return Cell(f"cache {self.cache.text}", "bad", self.cache.title)
        return self.cells[0]


@dataclass
class PageBuilder:
    """Builds the rows of one report, sharing difference pictures and golden copies between those of a case."""

    report: Report
    folder: Path
    users: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.users = Counter(digest for row in self.report.rows for digest in set(row.runs.values()))

    def rows(self, rows: Sequence[Row]) -> list[RowView]:
        """Put rows together, in their order; draws their difference pictures.

        Baselines go side by side: reading, drawing and packing pictures is nearly all there is to do, and leaves
        the interpreter free. Rows that share a baseline share pictures, and go one after the other.
        """
        anchors = dict(zip(map(id, self.report.rows), names_of(self.report.rows), strict=True))
        named = [(row, anchors[id(row)]) for row in rows]
        groups: dict[str, list[tuple[Row, str]]] = {}
        for row, anchor in named:
            groups.setdefault(row.runs.get("baseline", row.case.name), []).append((row, anchor))
        known = DifferenceIndex.read(self.folder)
        built: dict[str, RowView] = {}
        differences: dict[str, Difference] = {}
        with ThreadPoolExecutor() as threads:
            for views, found in threads.map(lambda group: self._group(group, known), groups.values()):
                built |= {view.anchor: view for view in views}
                differences |= found
        DifferenceIndex(differences).write(self.folder)
        return [built[anchor] for _, anchor in named]

    def _group(
        self, rows: Sequence[tuple[Row, str]], known: DifferenceIndex
    ) -> tuple[list[RowView], dict[str, Difference]]:
        """Put rows together that share pictures; what was found of their differences is known by name."""
        cards = CardBuilder(self.report, self.folder, self.users, known)
        return [self._row(row, anchor, cards) for row, anchor in rows], cards.differences.known

    def _row(self, row: Row, anchor: str, cards: CardBuilder) -> RowView:
        outcome = outcome_of(row)
        count = max((len(run.images) for role in SHOWN_ROLES if (run := run_of(self.report, row, role))), default=0)
        shown = min(count, SHOWN_IMAGES)
        strips = tuple(cards.strip(row, index) for index in range(shown))
        picture, difference = shown_card(strips[0]) if strips else (None, None)
        return RowView(
            row=row,
            anchor=anchor,
            page=page_of(anchor),
            outcome=outcome_word(outcome),
            style=outcome_word(outcome).replace(" ", "-"),
            sentence=sentence_of(row),
            shards=shards_text(row.plan),
            lengths=lengths_text(row.plan),
            pads=pads_text(row),
            cause=(row.verdict.cause if row.verdict else None) or "",
            cells=(
                *(_cell(row, relation) for _, relation in COLUMNS),
                *(_image_cell(row, relation) for relation in IMAGE_COLUMNS.values()),
            ),
            cache=_cache_cell(self.report, row),
            request=request_text(self.report, row),
            steps=step_view(self.report, row),
            costs=tuple(cost_sentences(self.report, row)),
            strips=strips,
            strips_left_out=count - shown,
            figures=figure_table(row),
            roles=tuple(self._role(row, role) for role in ROLES if role in row.runs),
            prompts=tuple((shortened(prompt), prompt) for prompt in row.case.prompts),
            viewer=viewer_of(row, strips),
            thumbnail=self._thumbnail(picture),
            difference=self._thumbnail(difference),
            step_s=step_s(run_of(self.report, row, "candidate")),
            evidence=evidence_of(row) if row.explanation else None,
        )

    def _thumbnail(self, card: Card | None) -> str | None:
        found = thumbnail(self.folder, unquote(card.file)) if card and card.file else None
        return quote(found) if found else None

    def _role(self, row: Row, role: str) -> RoleView:
        digest = row.runs[role]
        own, logs = self.folder / "runs" / digest, self.folder / "logs"
        links = [
            (f"{path.name}/" if path.is_dir() else path.name, quote(path.relative_to(self.folder).as_posix()))
            for path in (own, own / "run.json", logs)
            if path.exists()
        ]
        users = users_text(self.report, self.users, row, role)
        return RoleView(role, digest, run_of(self.report, row, role), users, tuple(links))


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
    return Cell(figure_text(comparison), state_of(ok), "; ".join(dict.fromkeys(said)), latents_db(comparison))


def _image_cell(row: Row, relation: Relation) -> Cell:
    comparison = row.comparison(relation)
    figure = comparison.figure("psnr", "image") if comparison else None
    title = comparison.note if comparison else "not compared"
    return Cell(describe_image(comparison), "shown", title, figure.value if figure else None)


def _cache_cell(report: Report, row: Row) -> Cell | None:
    if row.variant.cache == "none":
        return None
    text, ok = cache_text(report, row)
    comparison = row.comparison(Relation.CACHE)
    return Cell(text, state_of(ok), (comparison.problem if comparison else None) or cache_note(row) or "not compared")
