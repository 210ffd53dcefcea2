"""One picture over two nodes by the command line, with the embedded model."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import codec, models
from harness.execution import wire
from harness.models import checkpoint
from harness.types import Relation, Report

NANO = """\
schema = 1
name = "nodes"
model = "nano"
steps = 2
golden = "off"

[[case]]
size = "128x128"
prompt = "a purple ring right and a yellow ball left on tiles at day"

[[variant]]
engine = "spatial"
ulysses = 2
axis = "h"
"""


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    monkeypatch.setenv(wire.TOKEN, "a token of many letters")
    endpoint = f"127.0.0.1:{wire.free_port('127.0.0.1')}"
    return ["--nnodes", 2, "--rdzv-endpoint", endpoint, "--nproc-per-node", 1]


def test_two_nodes_draw_what_one_device_draws(
    start: Callable, write: Callable, options: list[object], tmp_path: Path
) -> None:
    head = start("run", write(NANO), "--out", tmp_path / "runs", *options)
    member = start("join", *options)
    assert (head.wait(), member.wait()) == (0, 0), head.output + member.output
    (run,) = (tmp_path / "runs").iterdir()
    (row,) = codec.read_json(run / "report.json", Report).rows
    exchange = row.comparison(Relation.EXCHANGE)
    assert exchange is not None
    assert exchange.exact  # no surplus pads, tokens in their order: not a bit may differ
    assert {path.name for path in (run / "logs").iterdir()} >= {"0-world-1"}
    (wide,) = (run / "logs").glob("*-world-2")
    assert {path.name for path in wide.iterdir()} >= {"rank-0.log", "rank-1.log", "torchrun.log"}


def test_a_row_that_fails_over_two_nodes_is_explained_from_what_both_recorded(
    start: Callable, write: Callable, options: list[object], tmp_path: Path
) -> None:
    head = start("run", write(NANO + 'fault = "attention-local"\n'), "--out", tmp_path / "runs", *options)
    member = start("join", *options)
    assert (head.wait(), member.wait()) == (1, 0), head.output + member.output
    (run,) = (tmp_path / "runs").iterdir()
    (row,) = codec.read_json(run / "report.json", Report).rows
    assert row.explanation is not None, head.output
    assert {line.rank for line in row.explanation.ledger} == {0, 1}  # each rank meets its own half alone
    assert row.verdict is not None
    assert row.verdict.cause


def test_interrupting_the_head_ends_everything(
    start: Callable, write: Callable, options: list[object], tmp_path: Path
) -> None:
    slow = NANO.replace("nano", "fake").replace('"spatial"', '"fake"') + "options = { step_s = 30.0 }\n"
    head = start("run", write(slow), "--out", tmp_path / "runs", *options)
    member = start("join", *options)
    head.until(lambda: "joined as" in member.output)
    os.kill(head.process.pid, signal.SIGINT)
    assert head.wait() == 130
    assert member.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nnodes", 2], "--nnodes 2 needs --rdzv-endpoint HOST:PORT"),
        (["--nproc-per-node", 2], "mean several nodes; add --nnodes"),
        (["--nnodes", 2, "--rdzv-endpoint", "gpu-1"], "write HOST:PORT"),
        (["--nnodes", 2, "--rdzv-endpoint", "gpu-1:1", "--executor", "ray"], "leave one out"),
        (["--nnodes", 2, "--rdzv-endpoint", "gpu-1:1"], "SP_HARNESS_TOKEN"),
    ],
)
def test_options_that_do_not_fit_are_named(
    cli: Callable, write: Callable, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    monkeypatch.delenv(wire.TOKEN, raising=False)
    done = cli("run", write(), *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_a_node_with_another_checkpoint_is_refused_and_can_be_mended(
    start: Callable, write: Callable, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model that every machine builds for itself, each in a place of its own."""
    here, there = tmp_path / "head", tmp_path / "node"
    for cache in (here, there):
        monkeypatch.setenv("SP_HARNESS_CACHE", str(cache))
        built = models.build("nano-random")
    (weights,) = built.glob("transformer/*.safetensors")
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setenv("SP_HARNESS_CACHE", str(there))
        member = start("join", *options)
        monkeypatch.setenv("SP_HARNESS_CACHE", str(here))
        head = start("run", *arguments, *options)
        code = head.wait()
        assert member.wait() == 0, member.output
        return code, head.output + member.output

    code, said = run(write(NANO.replace('"nano"', '"nano-random"')), "--out", tmp_path / "runs")
    assert code == 3, said  # the machine's failure: no picture was drawn with it, and no split is blamed
    assert f"its weights of nano-random are others ({checkpoint.digest(built, tmp_path / 'memo')[:16]} in" in said
    assert "it is then built anew" in said
    (folder,) = (tmp_path / "runs").iterdir()
    weights.write_bytes(data)
    code, said = run("--resume", folder)
    assert code == 0, said
    (row,) = codec.read_json(folder / "report.json", Report).rows
    exchange = row.comparison(Relation.EXCHANGE)
    assert exchange is not None
    assert exchange.exact
