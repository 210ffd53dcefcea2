"""What a planted bug costs on trained weights and on random ones: PSNR of candidate against replay, 4 steps.

The lower, the better a bug is seen. Every bug goes the harness' own way: a fault of ``harness/faults`` in a
variant of a matrix, on two ranks along axis h.

    python benchmarks/sensitivity.py [--size WIDTHxHEIGHT] [--model NAME_OR_FOLDER ...] [--pictures FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from _common import start
from PIL import Image, ImageDraw
from rich.table import Table

from harness.cli.console import make_console
from harness.execution.pool import Pool
from harness.matrix.selection import Selection
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Domain, Relation, Row

FAULTS = (
    "token-row-shifted",
    "gather-swapped",
    "rope-origin-dropped",
    "caption-truncated",
    "pads-doubled",
    "attention-local",
)
PROMPT = (
    "a picture of a white boat with red trim on the left and a large orange ball on the right on water at morning, "
    "clouds in the sky, the boat is white, the light falls from the left"
)
"""Longer than 32 tokens: a caption that loses a bucket keeps another."""

HEAD = """\
schema = 1
name = "sensitivity"
model = "{model}"
steps = 4
golden = "off"
[[case]]
size = "{size}"
prompt = "{prompt}"
"""
VARIANT = """\
[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
"""


def main() -> None:
    """Run one matrix for each model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="240x176", help="its pads must be those of one device")
    parser.add_argument("--model", action="append", default=[], help="default: nano and nano-random")
    parser.add_argument("--pictures", type=Path, help="also save what the last model drew, a bug a cell")
    arguments = parser.parse_args()
    models = arguments.model or ["nano", "nano-random"]
    tables = {model: measure(model, arguments.size, arguments.pictures) for model in models}
    table = Table(box=None, header_style="bold", pad_edge=False, title=f"{arguments.size}, 4 steps, PSNR in dB")
    table.add_column("planted bug")
    for model in models:
        for domain in ("latents", "image"):
            table.add_column(f"{Path(model).name} {domain}", justify="right")
    for fault in ("none", *FAULTS):
        table.add_row(fault, *(cell for model in models for cell in tables[model][fault]))
    make_console().print(table)


def measure(model: str, size: str, pictures: Path | None) -> dict[str, tuple[str, str]]:
    """PSNR of latents and picture for every fault, and for none; and the pictures, where they are wanted."""
    text = HEAD.format(model=model, size=size, prompt=PROMPT) + VARIANT
    text += "".join(f'{VARIANT}fault = "{fault}"\n' for fault in FAULTS)
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "sensitivity.toml"
        path.write_text(text, encoding="utf-8")
        matrix, graph = steps.prepare(path, Selection())
        folder = RunFolder.create(Path(out), matrix, graph, "off")
        with Pool(folder.path / "logs") as pool:
            steps.record(folder, pool)
        report = steps.conclude(folder)
        if pictures:
            _sheet([(row, folder.path / "runs" / row.runs["candidate"]) for row in report.rows], pictures)
        return {row.variant.fault or "none": (_psnr(row, "latents"), _psnr(row, "image")) for row in report.rows}


def _sheet(drawn: list[tuple[Row, Path]], file: Path) -> None:
    """Two columns of pictures, each under the name of its bug."""
    shown = [(row.variant.fault or "none", Image.open(run / "image-0.png")) for row, run in drawn]
    width, height = (max(side) for side in zip(*(picture.size for _, picture in shown), strict=True))
    sheet = Image.new("RGB", (2 * width, -(-len(shown) // 2) * (height + 16)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (name, picture) in enumerate(shown):
        x, y = index % 2 * width, index // 2 * (height + 16)
        pen.text((x + 2, y + 2), name, fill="black")
        sheet.paste(picture, (x, y + 16))
    sheet.reduce(2).save(file, quality=88)


def _psnr(row: Row, domain: Domain) -> str:
    comparison = row.comparison(Relation.EXCHANGE)
    if comparison is None or comparison.problem:
        return "no picture" if comparison is None else "not alike"
    figure = comparison.figure("psnr", domain)
    return "equal" if figure is None or figure.value is None else f"{figure.value:.1f}"


if __name__ == "__main__":
    start(main)
