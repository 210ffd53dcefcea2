"""The kill score as Markdown: what the command prints, and ``killscore.md``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import codec
from harness.files import write_text
from harness.kill_score.other_gates import Word
from harness.kill_score.score import FaultScore, HealthyScore, KillScore

ALARM = "fails anyway"
"""A gate fails the faulty picture, and the healthy one of the same row too: it does not see the bug."""


def markdown(score: KillScore) -> str:
    """Summary, planted bugs, and healthy rows, a table each."""
    return "\n".join(_lines(score)) + "\n"


def write(score: KillScore, folder: Path) -> Path:
    """Write ``killscore.json`` and ``killscore.md`` into a run folder; returns the latter."""
    codec.write_json(folder / "killscore.json", score)
    return write_text(folder / "killscore.md", markdown(score))


def _lines(score: KillScore) -> Iterator[str]:
    found, right = sum(_own(f) == "found" for f in score.faults), sum(f.cause_right for f in score.faults)
    alarms = sum(not row.passed for row in score.healthy)
    yield f"# Kill score: {score.name}"
    yield ""
    yield f"{found} of {len(score.faults)} planted bugs found, {right} with the right cause;"
    yield f"{alarms} of {len(score.healthy)} healthy rows failed; {score.wall_s:.0f} s of drawing."
    if score.setting:
        yield f"Drawn with {score.setting}" + (f", at commit {score.commit}." if score.commit else ".")
    yield ""
    yield from _summary(score)
    yield ""
    yield f'"{ALARM}": the same row fails without the bug too, so that the gate does not see it.'
    for gate, reason in score.left_out.items():
        yield f"Left out: {gate}; {reason}."
    for fault, needs in score.not_planted.items():
        yield f"Not planted: {fault}; no row of the matrix has {needs}."
    yield ""
    yield "## Planted bugs"
    yield ""
    yield from _table(("bug", "row", "found by", "cause", *score.rules), [_fault(f, score) for f in score.faults])
    yield ""
    yield "## Healthy rows"
    yield ""
    failing = [row for row in score.healthy if not row.passed or "fails" in row.gates.values()]
    if failing:
        yield from _table(
            ("row", "surplus pads", "sp-harness", *score.rules), [_healthy(row, score) for row in failing]
        )
        yield ""
    yield f"{len(score.healthy) - len(failing)} others pass every gate that can judge them."


def _summary(score: KillScore) -> Iterator[str]:
    own = [_own(fault) for fault in score.faults]
    alarms = [("passes" if row.passed else "fails", row.surplus_pads) for row in score.healthy]
    rows = [["sp-harness", "exchange at the noise floor", *_counts(own), *_alarms(alarms)]]
    for gate, rule in score.rules.items():
        alarms = [(row.gates.get(gate, "n/a"), row.surplus_pads) for row in score.healthy]
        rows.append([gate, rule, *_counts([_word(fault, gate) for fault in score.faults]), *_alarms(alarms)])
    alarm_columns = ("false alarms without surplus pads", "and with")
    yield from _table(("gate", "limits", "found", ALARM, "missed", "n/a", *alarm_columns), rows)


def _counts(words: Sequence[str]) -> list[str]:
    return [str(words.count(word)) for word in ("found", ALARM, "missed", "n/a")]


def _alarms(rows: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Healthy rows that fail, of those that can be judged: without surplus pads, and with."""
    for padded in (False, True):
        words = [word for word, surplus in rows if word != "n/a" and (surplus > 0) == padded]
        yield f"{words.count('fails')} of {len(words)}"


def _own(fault: FaultScore) -> str:
    """Say whether the harness found a bug, or fails the row anyway."""
    if not fault.detected:
        return "missed"
    return "found" if fault.healthy_passed or not _is_picture(fault) else ALARM


def _word(fault: FaultScore, gate: str) -> str:
    """Format a gate's answer to one bug."""
    faulty: Word = fault.gates.get(gate, "n/a")
    if faulty == "n/a":
        return "n/a"
    if faulty == "passes":
        return "missed"
    return ALARM if _is_picture(fault) and fault.healthy_gates.get(gate) == "fails" else "found"


def _is_picture(fault: FaultScore) -> bool:
    """Whether there is a picture to look at; without one every gate has found the bug."""
    return fault.by != "no picture"


def _fault(fault: FaultScore, score: KillScore) -> list[str]:
    cause = fault.cause if fault.cause_right else f"{fault.found_cause or '-'} (is {fault.cause})"
    name = f"[{fault.fault}]({fault.source})"
    by = {"found": fault.by, ALARM: f"**{ALARM}**", "missed": "**missed**"}[_own(fault)]
    return [name, fault.row, by, cause, *(_word(fault, gate) for gate in score.rules)]


def _healthy(row: HealthyScore, score: KillScore) -> list[str]:
    own = "passes" if row.passed else "**fails**"
    return [row.row, str(row.surplus_pads), own, *(row.gates.get(gate, "n/a") for gate in score.rules)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"
