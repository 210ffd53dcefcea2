"""What ``sp-harness faults`` does: list the planted bugs, plant them, and say who finds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.text import Text

from harness import codec, plugins
from harness.cli.console import LiveProgress, make_console
from harness.errors import EXIT_INTERRUPTED, UsageError
from harness.execution.pool import Pool
from harness.kill_score import score
from harness.kill_score.score import KillScore, Place
from harness.kill_score.table import markdown
from harness.planning.graph import cost_of
from harness.runs.folder import RunFolder
from harness.session import explain, steps
from harness.types import Report


def ls() -> None:
    """List every planted bug: its cause, what a row needs to show it, and its thread."""
    for fault in plugins.load_all("faults"):
        typer.echo(f"{fault.name}: {fault.cause}; needs {', '.join(fault.needs) or 'nothing'}; {fault.source}")


def run(path: Path, only: Sequence[str], out: Path, as_json: bool) -> int:
    """Plant bugs into a matrix, draw it, print the kill score, and return the exit code."""
    matrix, graph = steps.prepare(path)
    places, not_planted = score.place(graph, only)
    if not places:
        raise UsageError(f"{path}: no row can show {', '.join(not_planted)}; see sp-harness faults ls")
    faulty = score.planted(matrix, places, whole=not only)
    folder = RunFolder.create(out, faulty, steps.plan(faulty), "off")
    try:
        report = _drawn(folder)
    except KeyboardInterrupt:
        make_console(stderr=True).print(Text(f"interrupted; what is drawn stays in {folder.path}"))
        return EXIT_INTERRUPTED
    steps.write_reports(report, folder.path)
    return _tell(folder, report, places, not_planted, as_json)


def _drawn(folder: RunFolder) -> Report:
    """Draw everything, then what fails once more with a probe, so that its cause can be named."""
    console = make_console(stderr=True)
    with Pool(folder.path / "logs") as pool, LiveProgress(console, folder.plan.specs) as progress:
        progress.expect(sum(cost_of(spec) for spec in folder.plan.specs.values()))
        steps.record(folder, pool, on_event=progress)
    failing = explain.select(steps.conclude(folder).rows)
    console.print(Text(f"explaining {len(failing)} rows"))
    with Pool(folder.path / "logs" / "explained") as pool:
        for problem in explain.explain(folder, failing, pool):
            console.print(Text(problem))
    return steps.conclude(folder)


def _tell(
    folder: RunFolder, report: Report, places: Sequence[Place], not_planted: dict[str, str], as_json: bool
) -> int:
    found: KillScore = score.score(report, places, not_planted, folder.sample)
    text = markdown(found)
    codec.write_json(folder.path / "killscore.json", found)
    (folder.path / "killscore.md").write_text(text, encoding="utf-8")
    typer.echo(json.dumps(codec.encode(found), indent=2) if as_json else text, nl=as_json)
    typer.echo(f"{folder.path / 'killscore.md'}", err=True)
    return found.exit_code
