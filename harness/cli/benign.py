"""``sp-harness benign``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from harness.cli._options import Json, check_known, parse_size
from harness.cli.run import created, resumed
from harness.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_VERDICT, UsageError
from harness.types import Device, DType

if TYPE_CHECKING:
    from harness.diagnose.calibration import Calibration
    from harness.runs.folder import RunFolder
    from harness.types import Report

app = typer.Typer()

PR_TOML = Path("matrices/pr.toml")


@app.command(
    epilog="Examples: `sp-harness benign --rows 200` | `sp-harness benign --rows 400 --dtype bfloat16 --calibrate` | "
    "`sp-harness benign --rows 200 --model z-image-random --device cuda --dtype bfloat16 --max-ranks 2 --calibrate` | "
    "`sp-harness benign --resume reports/benign-20260101-120000`"
)
def benign(
    rows: Annotated[int, typer.Option(min=1, help="Healthy rows to draw.")] = 200,
    model: Annotated[str, typer.Option(help="Model to draw with.")] = "nano",
    dtype: Annotated[list[str] | None, typer.Option(help="Type, in turn: float32, bfloat16, float16.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    size: Annotated[list[str] | None, typer.Option(help="Sizes to choose from, WIDTHxHEIGHT; any by default.")] = None,
    max_ranks: Annotated[int, typer.Option(min=2, help="Rows on more ranks are not drawn.")] = 3,
    seed: Annotated[int, typer.Option(help="Another one draws other rows.")] = 0,
    calibrate: Annotated[bool, typer.Option(help="Keep what the rows yield as the calibration of this platform.")] = (
        False
    ),
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where calibrations go; the cache folder by default.")
    ] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Finish this run folder.")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("reports"),
    as_json: Json = False,
) -> None:
    """Draw healthy rows at random, and count those that fail: false alarms, with a confidence interval."""
    from harness import codec
    from harness.cli.console import make_console
    from harness.kill_score import false_alarms
    from harness.kill_score.healthy import Setting
    from harness.session import steps

    for name in dtype or ():
        check_known("--dtype", name, get_args(DType))
    check_known("--device", device, get_args(Device))
    setting = Setting(
        model=model,
        dtypes=cast("tuple[DType, ...]", tuple(dtype or ("float32", "bfloat16"))),
        device=cast("Device", device),
        max_ranks=max_ranks,
        sizes=tuple(parse_size(text) for text in size or ()),
        seed=seed,
    )
    if resume and (shard or size or dtype):
        raise UsageError("--resume finishes what was planned; name nothing beside it but --calibrate, --into and --out")
    folder = resumed(resume) if resume else _planned(rows, setting, shard, out)
    if folder is None:
        raise typer.Exit(EXIT_OK)
    try:
        report = _drawn(folder)
    except KeyboardInterrupt:
        remedy = f"finish it with: sp-harness benign --resume {folder.path}"
        make_console(stderr=True).print(f"interrupted; what is drawn stays in {folder.path}; {remedy}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    steps.write_reports(report, folder.path)
    rates = false_alarms.rates(report)
    codec.write_json(folder.path / "benign.json", rates)
    if as_json:
        typer.echo(json.dumps(codec.encode(rates), indent=2))
    else:
        typer.echo("\n".join(false_alarms.lines(rates, _pr_rows())))
    for found in false_alarms.fitted(report) if calibrate else ():
        typer.echo(_kept(found, into), err=True)
    raise typer.Exit(EXIT_VERDICT if any(rate.failed for rate in rates) else EXIT_OK)


def _planned(rows: int, setting: Any, shard: str | None, out: Path) -> RunFolder | None:
    from harness.kill_score.healthy import healthy_rows
    from harness.planning.partition import Shard
    from harness.session import steps

    part = Shard.parse(shard) if shard is not None else None
    matrix = healthy_rows(rows, setting)
    return created(out, matrix, steps.plan(matrix), "off", part)


def _drawn(folder: RunFolder) -> Report:
    """Draw what is lacking, look into what is suspicious, and judge."""
    from harness.cli.console import LiveProgress, make_console
    from harness.execution.pool import Pool
    from harness.judging.comparisons import Measurer
    from harness.session import explain, steps

    console = make_console(stderr=True)
    with Pool(folder.path / "logs") as pool, LiveProgress(console, folder.plan.specs, folder.missing()) as progress:
        steps.record(folder, pool, on_event=progress)
    measurer = Measurer(folder)
    chosen = explain.select(steps.conclude(folder, measurer).rows)
    console.print(f"explaining {len(chosen)} rows")
    for problem in explain.explain(folder, chosen):
        console.print(problem)
    return steps.conclude(folder, measurer)


def _kept(found: Calibration, into: Path | None) -> str:
    """Write a calibration, and say where; one of too few comparisons is not written."""
    from harness import codec, models
    from harness.diagnose import calibration

    name = calibration.file_name(found.model, found.device, found.dtype)
    if not found.suffices:
        return f"{name}: {found.values} comparisons that differ, of {calibration.LEAST_VALUES} needed; draw more rows"
    folder = into or models.cache_dir() / "calibrations"
    folder.mkdir(parents=True, exist_ok=True)
    codec.write_json(folder / name, found)
    return (
        f"{folder / name}: bound {found.bound} standard deviations, from {found.values} comparisons "
        f"(largest {found.largest})"
    )


def _pr_rows() -> dict[str, int]:
    """Count the rows of the PR matrix by dtype; empty where it is not here."""
    from harness.matrix.loader import read_matrix

    if not PR_TOML.is_file():
        return {}
    matrix = read_matrix(PR_TOML)
    dtypes = [case.dtype for case in matrix.cases for name, _ in matrix.pairs if name == case.name]
    return {dtype: dtypes.count(dtype) for dtype in dict.fromkeys(dtypes)}
