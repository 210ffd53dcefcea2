"""Real gloo processes that stay for the session and run programs by name."""

from __future__ import annotations

import importlib.util
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import forking

PROGRAMS = Path(__file__).with_name("programs.py")


def load_programs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("spatial_test_programs", PROGRAMS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def serve(rank: int, world_size: int, store: str, connection: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, world_size), rank=rank, world_size=world_size)
    programs = load_programs()
    while (order := connection.recv()) is not None:
        name, arguments = order
        try:
            connection.send(("ok", getattr(programs, name)(rank, *arguments)))
        except Exception:
            connection.send(("raised", traceback.format_exc()))


class Ranks:
    """World of gloo processes; calling it runs a program on every rank."""

    def __init__(self, world_size: int, store: Path) -> None:
        context = forking.context()
        pairs = [context.Pipe() for _ in range(world_size)]
        self._ends = [ours for ours, _ in pairs]
        self._processes = [
            context.Process(target=serve, args=(rank, world_size, str(store), theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self._processes:
            process.start()

    def __call__(self, program: str, *arguments: Any) -> list[Any]:
        for end in self._ends:
            end.send((program, arguments))
        results = []
        for rank, end in enumerate(self._ends):
            assert end.poll(60), f"rank {rank} does not answer"
            state, result = end.recv()
            assert state == "ok", f"rank {rank}: {result}"
            results.append(result)
        return results

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


@pytest.fixture(scope="session")
def programs() -> ModuleType:
    return load_programs()


@pytest.fixture(scope="session")
def make_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Ranks]]:
    """Worlds by size, each started once."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    worlds: dict[int, Ranks] = {}

    def make(world_size: int) -> Ranks:
        if world_size not in worlds:
            worlds[world_size] = Ranks(world_size, tmp_path_factory.mktemp("store") / "store")
        return worlds[world_size]

    yield make
    for world in worlds.values():
        world.close()


@pytest.fixture(scope="session")
def four(make_ranks: Callable[[int], Ranks]) -> Ranks:
    return make_ranks(4)


@pytest.fixture(scope="session")
def three(make_ranks: Callable[[int], Ranks]) -> Ranks:
    return make_ranks(3)
