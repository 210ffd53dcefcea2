"""What it costs that recorded runs are on disk: seconds of a whole run spent in fsync, as a share of its wall time.

Runs `sp-harness run` on a matrix in this process, with every fsync timed; all of them are in this process. Ranks go on
meanwhile, so the share is an upper limit. Ends with 1 where it is above --at-most.

    python benchmarks/durability.py [--matrix FILE] [--golden off] [--at-most SHARE] [--json FILE]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from _common import add_matrix, finish, parser, start, table

from harness.cli import app


def main() -> int:
    """Run the matrix and print the table."""
    made = parser(__doc__)
    add_matrix(made)
    made.add_argument("--at-most", type=float, default=0.05, metavar="SHARE", help="default: %(default)s")
    arguments = made.parse_args()
    with tempfile.TemporaryDirectory(prefix="durability-", dir=Path.cwd()) as out, _timed() as syncs:
        command = ["run", str(arguments.matrix), "--out", out, "--golden", arguments.golden, "--no-judge"]
        command += [argument for size in arguments.size for argument in ("--size", size)]
        began = time.perf_counter()
        with mock.patch.object(sys, "argv", ["sp-harness", *command]):
            try:
                app.main()
            except SystemExit as ended:
                if ended.code not in (0, 1):
                    raise
        wall_s = time.perf_counter() - began
    share = sum(syncs) / wall_s
    figures = {
        "syncs": len(syncs),
        "sync_s": sum(syncs),
        "median_ms": 1000 * statistics.median(syncs),
        "wall_s": wall_s,
        "share": share,
    }
    shown = table(
        f"{arguments.matrix}: files and journal on disk",
        ("", "fsyncs", "median ms", "s in fsync", "s in all", "share"),
        [
            (
                "run",
                str(len(syncs)),
                f"{figures['median_ms']:.1f}",
                f"{sum(syncs):.2f}",
                f"{wall_s:.1f}",
                f"{share:.2%}",
            )
        ],
    )
    over = [f"{share:.2%} of a run is spent in fsync, at most {arguments.at_most:.2%} is allowed"]
    return finish(arguments, "cpu", [shown], figures, over if share > arguments.at_most else [])


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Collect the seconds of every fsync, of all threads."""
    seconds: list[float] = []
    lock, fsync = threading.Lock(), os.fsync

    def timed(descriptor: int) -> None:
        began = time.perf_counter()
        try:
            fsync(descriptor)
        finally:
            with lock:
                seconds.append(time.perf_counter() - began)

    with mock.patch.object(os, "fsync", timed):
        yield seconds


if __name__ == "__main__":
    start(main)
