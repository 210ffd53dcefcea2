"""Engines, releases and features: a table of verified pairs, and a page for an engine's maintainers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness import plugins
from harness.planning.cut import PAD_MULTIPLE
from harness.reporting.cost_table import NOTHING, figure_text
from harness.reporting.escape import escape
from harness.types import Outcome, Relation, Report, Row

VERIFIED_HEADS = ("engine", "release", "feature", "ranks", "verified at", "fails at")
ROW_HEADS = ("size", "feature", "ranks", "verdict", "cause", "exchange", "control", "layout", "pair")
FAILING = (Outcome.FAIL, Outcome.ERROR, Outcome.TIMEOUT)


@dataclass(frozen=True)
class Line:
    """Row of a report by engine, release and feature."""

    engine: str
    release: str
    """Distribution that the engine is, and its version; the environment's name where it was not drawn."""
    feature: str
    ranks: int
    row: Row

    @property
    def group(self) -> tuple[str, str, str, int]:
        """Properties that verified sizes are collected by."""
        return self.engine, self.release, self.feature, self.ranks


def lines(report: Report) -> list[Line]:
    """List the rows that split something, by engine and release; those of one release keep their order."""
    split = [row for row in report.rows if row.variant.degree > 1]
    versions = {_environment(row): version for row in split if (version := _version(report, row))}
    found = [
        Line(
            row.variant.engine,
            versions.get(_environment(row), row.variant.environment or NOTHING),
            _feature(report, row),
            row.variant.degree,
            row,
        )
        for row in split
    ]
    engines = list(dict.fromkeys(line.engine for line in found))
    releases = list(dict.fromkeys(line.release for line in found))
    return sorted(found, key=lambda line: (engines.index(line.engine), releases.index(line.release)))


def verified(report: Report) -> str:
    """Format a Markdown table: where each feature of each release passes, and where it fails and why."""
    groups: dict[tuple[str, str, str, int], list[Row]] = {}
    for line in lines(report):
        if line.row.skip is None:
            groups.setdefault(line.group, []).append(line.row)
    cells = []
    for (engine, release, feature, ranks), rows in groups.items():
        passing = [str(row.case.size) for row in rows if row.verdict and row.verdict.outcome == Outcome.PASS]
        failing = [f"{row.case.size} ({_why(row)})" for row in rows if row.verdict and row.verdict.outcome in FAILING]
        if passing or failing:
            cells.append((engine, release, feature, str(ranks), _listed(passing), _listed(failing)))
    return _table(VERIFIED_HEADS, cells)


def page(report: Report, engine: str = "") -> str:
    """Format a Markdown page of all rows of an engine, release by release; of all engines without a name."""
    shown = [line for line in lines(report) if engine in ("", line.engine)]
    releases = dict.fromkeys((line.engine, line.release) for line in shown)
    text = [
        f"# {engine or 'Engines'} under sp-harness",
        "",
        f"Matrix {escape(report.matrix.name)}, {escape(report.platform)}, {report.started_at}. Baseline and replays: "
        f"{_versions(report, 'baseline')}. {KEY}",
    ]
    for name, release in releases:
        of_release = [line for line in shown if (line.engine, line.release) == (name, release)]
        text += ["", f"## {escape(f'{name}: {release}' if not engine else release)}", ""]
        text += [_versions(report, "candidate", of_release), ""] if any(line.row.runs for line in of_release) else []
        text += [_table(ROW_HEADS, map(_cells, of_release)), *filter(None, map(_detail, of_release))]
    return "\n".join(text).rstrip() + "\n"


KEY = (
    "Figures are PSNR of the final latents in dB. *Exchange*: the split engine against a replay, diffusers on one "
    "device told to add as many pads, nothing else; *control*: the engine on one device against diffusers; *layout*: "
    "the replay against diffusers, what surplus pads cost a correct engine; *pair*: the split engine against "
    "diffusers, what a user sees."
)


def _environment(row: Row) -> tuple[str, str]:
    return row.variant.engine, row.variant.environment


def _version(report: Report, row: Row) -> str | None:
    """Return name and version of the distribution that a row's engine is, where a run of it was drawn."""
    package = plugins.load("engines", row.variant.engine).packages[:1]
    for role in ("candidate", "control"):
        run = report.runs.get(row.runs.get(role, ""))
        if run and package and package[0] in run.versions:
            return f"{package[0]} {run.versions[package[0]]}"
    return None


def _feature(report: Report, row: Row) -> str:
    case, variant = row.case, row.variant
    parts = [
        "guidance" if case.guidance_scale else "",
        _batch(report, row),
        variant.cache if variant.cache != "none" else "",
        f"ring {variant.ring}" if variant.ring > 1 else "",
        variant.layout if variant.layout != "aligned" else "",
        *(f"{key} {value}" for key, value in variant.options.items() if not key.startswith("cache_")),
        f"with the bug {variant.fault}" if variant.fault else "",
        "" if case.dtype == "float32" else case.dtype,
    ]
    return ", ".join(filter(None, parts)) or "one picture"


def _batch(report: Report, row: Row) -> str:
    if row.case.num_images == 1:
        return ""
    run = report.runs.get(row.runs.get("baseline", ""))
    buckets = {-(-tokens // PAD_MULTIPLE) for tokens in run.caption_tokens} if run else set()
    unlike = ", captions of different length" if len(buckets) > 1 else ""
    return f"batch of {row.case.num_images}{unlike}"


def _why(row: Row) -> str:
    assert row.verdict is not None
    return row.verdict.cause or row.verdict.outcome.value


def _listed(sizes: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(sizes)) or NOTHING


def _versions(report: Report, role: str, of: Iterable[Line] | None = None) -> str:
    rows = report.rows if of is None else [line.row for line in of]
    found: Mapping[str, str] = {}
    for row in rows:
        run = report.runs.get(row.runs.get(role, ""))
        found = run.versions if run and run.versions else found
    return escape(", ".join(f"{name} {version}" for name, version in found.items()) or "not drawn")


def _cells(line: Line) -> tuple[str, ...]:
    row, verdict = line.row, line.row.verdict
    relations = (Relation.EXCHANGE, Relation.CONTROL, Relation.LAYOUT, Relation.PAIR)
    outcome = verdict.outcome.value if verdict else "not judged"
    size = str(row.case.size)
    return (
        size,
        line.feature,
        str(line.ranks),
        outcome,
        (verdict and verdict.cause) or NOTHING,
        *(figure_text(row.comparison(relation), "latents") for relation in relations),
    )


def _detail(line: Line) -> str:
    """Sentence, evidence and command of a row that does not pass."""
    row, verdict = line.row, line.row.verdict
    if verdict is None or verdict.outcome == Outcome.PASS:
        return ""
    evidence = "".join(f"\n  - {escape(part)}" for part in verdict.evidence if not part.startswith(("  ", "Traceback")))
    return f"- `{row.name}`: {escape(verdict.sentence)}{evidence if verdict.outcome == Outcome.FAIL else ''}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(escape, row))} |" for row in rows)]) + "\n"
