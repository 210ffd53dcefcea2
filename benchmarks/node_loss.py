"""A Ray cluster that loses a node in the middle of a matrix: what is computed again, and what comes out.

Starts a cluster of two nodes of two cores each on this machine, runs a matrix there, and kills one of the
nodes as soon as every case has sent back a run. Prints each event with its time, and the verdicts; what ray
itself says of the dead node is left in between.

    python benchmarks/node_loss.py [MATRIX] [--steps N]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from _common import positive, start

from harness.cli.console import name_of
from harness.execution.events import Event, Finished, Started, Waiting
from harness.execution.ray.executor import RayExecutor
from harness.runs.folder import RunFolder
from harness.session import steps

STORE_BYTES = 100 << 20
"""Object store of a node; messages are a few megabytes."""


def main() -> None:
    """Run the matrix and kill a node."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", type=Path, nargs="?", default=Path("matrices/smoke.toml"))
    parser.add_argument("--steps", type=positive, default=40, help="denoise steps, so that there is time to kill")
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    matrix, _ = steps.prepare(arguments.matrix)
    matrix = replace(matrix, cases=tuple(replace(case, steps=arguments.steps) for case in matrix.cases))
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
    try:
        nodes = [cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES) for _ in range(2)]
        with tempfile.TemporaryDirectory() as out:
            folder = RunFolder.create(Path(out), matrix, steps.plan(matrix), "off")
            began = time.monotonic()
            finished: Counter[str] = Counter()
            begun: Counter[str] = Counter()

            def tell(event: Event) -> None:
                now = f"{time.monotonic() - began:6.1f} s"
                if isinstance(event, Waiting):
                    print(f"{now}  {event.message}", flush=True)
                if isinstance(event, Started):
                    spec = event.spec
                    begun[spec.digest] += 1
                    print(f"{now}  begun     {name_of(spec)}{' (again)' if begun[spec.digest] > 1 else ''}", flush=True)
                if isinstance(event, Finished):
                    spec = event.run.spec
                    finished[spec.case.name] += 1
                    print(f"{now}  finished  {name_of(spec)}", flush=True)
                    if nodes and len(finished) == len(matrix.cases):
                        cluster.remove_node(nodes.pop(), allow_graceful=False)
                        nodes.clear()
                        print(f"{now}  one of the two nodes is killed", flush=True)

            with RayExecutor(folder.path / "logs", cluster.address) as executor:
                steps.record(folder, executor, on_event=tell)
            report = steps.conclude(folder)
    finally:
        cluster.shutdown()
    outcomes = Counter(row.verdict.outcome.value for row in report.rows if row.verdict)
    again = sum(number > 1 for number in begun.values())
    print(f"{len(report.runs)} runs, {again} of them begun twice; {dict(outcomes)}, exit code {report.exit_code}")


if __name__ == "__main__":
    start(main)
