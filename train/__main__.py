"""``python -m train run`` trains and exports; ``python -m train sheet`` draws what has been learned."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from harness.types import Size


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = parser.add_subparsers(required=True)

    run = commands.add_parser("run", help="train the autoencoder, then the transformer; export; resumes by itself")
    run.add_argument("--work", type=Path, required=True, help="folder of states and logs")
    run.add_argument("--export", type=Path, required=True, help="folder of the checkpoint, written at each end")
    run.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    run.add_argument("--minutes", type=float, default=math.inf, help="stop after this long; run again to go on")
    run.add_argument("--vae-steps", type=int, default=2_000, help="0: the autoencoder of --checkpoint as it is")
    run.add_argument("--dit-steps", type=int, default=24_000)
    run.add_argument("--pixels", type=int, default=2_000_000, help="of one batch of the autoencoder")
    run.add_argument("--tokens", type=int, default=65_536, help="of one batch of the transformer")
    run.add_argument("--checkpoint", dest="start", type=Path, help="a checkpoint to go on from where no state is left")
    run.add_argument(
        "--by-clock", action="store_true", help="let sizes and rate follow --minutes instead of --dit-steps"
    )
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--workers", type=int, default=12, help="processes that write prompts")
    run.add_argument("--compile", action="store_true", help="compile the transformer's block")
    run.set_defaults(do=_run)

    sheet = commands.add_parser("sheet", help="prompts x sizes x steps on one picture, by the stock pipeline")
    sheet.add_argument("checkpoint", type=Path)
    sheet.add_argument("picture", type=Path)
    sheet.add_argument("--what", default="sheet", choices=("sheet", "swaps", "small"))
    sheet.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    sheet.add_argument("--steps", type=int, default=4)
    sheet.set_defaults(do=_sheet)

    words = commands.add_parser("words", help="does the picture follow every kind of word? counted")
    words.add_argument("checkpoint", type=Path)
    words.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    words.add_argument("--steps", type=int, default=4)
    words.add_argument("--scenes", type=int, default=10)
    words.add_argument("--size", type=Size.parse, default=Size(640, 368), help="WIDTHxHEIGHT, multiples of 16")
    words.set_defaults(do=_words)

    curves = commands.add_parser("curves", help="a picture of the losses in the logs")
    curves.add_argument("logs", type=Path, nargs="+")
    curves.add_argument("picture", type=Path)
    curves.set_defaults(do=_curves)

    options = parser.parse_args(arguments)
    if options.do is _run and not options.vae_steps and not options.start:
        run.error("--vae-steps 0 takes the autoencoder of --checkpoint as it is: name a checkpoint, or give it steps")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options.do(options)


def _run(options: argparse.Namespace) -> None:
    from train import run

    run.run(run.Plan(**{key: value for key, value in vars(options).items() if key != "do"}))


def _sheet(options: argparse.Namespace) -> None:
    from train import sheet

    sheet.write(options.checkpoint, options.picture, options.what, options.device, options.steps)


def _words(options: argparse.Namespace) -> None:
    from train import words

    found = words.count(
        options.checkpoint, options.device, options.steps, options.scenes,
        size=(options.size.width_px, options.size.height_px),
    )  # fmt: skip
    for word, share in found.items():
        print(f"{word:8} {share:4.0%}")


def _curves(options: argparse.Namespace) -> None:
    from train import curves

    curves.write(options.logs, options.picture)


if __name__ == "__main__":
    main()
