"""What a machine can draw and what it lacks, on machines that are made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.environments.facts import Facts
from harness.execution.gpus import Gpu
from harness.session import doctor
from tests.command_line import cli

__all__ = ["cli"]
HEALTHY = Facts("3.11.9", {})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of two processors and 4 GB with every engine, no GPU, and no environments of the user's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(doctor, "memory_bytes", lambda: (4 << 30, 3 << 30))
    monkeypatch.setattr(doctor, "num_slots", lambda device: 2)
    monkeypatch.setattr(doctor.gpus, "visible", lambda device: ())
    monkeypatch.setattr(doctor, "packages_of", lambda engine, cache: ("torch",))
    monkeypatch.setattr(doctor, "facts_of", lambda engine, python="": replace(HEALTHY, versions={"torch": "2.13.0"}))


def said(folder: Path) -> dict[str, doctor.Finding]:
    return {finding.topic: finding for finding in doctor.examine(folder)}


def test_a_machine_that_can_draw(tmp_path: Path) -> None:
    found = said(tmp_path)
    assert all(finding.ok for finding in found.values())
    assert found["memory"].sentence == (
        "2 processors, 4.3 GB of memory, 3.2 GB free. On the CPU 3 ranks of the model nano fit in what is free; "
        "more than 2 at a time share processors."
    )
    assert found["gpu"].sentence.startswith("No GPU is seen")
    assert found["engine spatial"].sentence.startswith("can draw; rows with a cache need cache-dit")


def test_gpus_are_named_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.gpus, "visible", lambda device: (Gpu(0, "GPU-a"), Gpu(1, "GPU-b")))
    monkeypatch.setattr(doctor, "_gpu_names", lambda: dict.fromkeys(("GPU-a", "GPU-b"), "NVIDIA H200 (143771 MiB)"))
    assert said(tmp_path)["gpu"].sentence == (
        'GPUs: 2 x NVIDIA H200 (143771 MiB). Cases on "cuda" are drawn on up to 2 ranks, one on each.'
    )


def test_what_an_engine_lacks_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "environments.toml").write_text('[sglang."0.5.9"]\npython = "/opt/sglang/bin/python"\n')
    monkeypatch.setattr(doctor, "facts_of", lambda engine, python="": HEALTHY)
    found = said(tmp_path)
    spatial, apart = found["engine spatial"], found["engine sglang"]
    assert (spatial.ok, spatial.sentence) == (False, "lacks torch; python -m pip install torch.")
    assert apart.ok, "it is looked for in an environment of its own"
    assert "sp-harness engines setup sglang" in apart.sentence
    there = found["engine sglang@0.5.9 in /opt/sglang/bin/python"]
    assert (there.ok, there.sentence) == (False, "lacks torch; /opt/sglang/bin/python -m pip install torch.")


def test_a_mistake_in_environments_is_named(tmp_path: Path) -> None:
    (tmp_path / "environments.toml").write_text("nonsense = [")
    found = said(tmp_path)["environments"]
    assert not found.ok
    assert str(tmp_path / "environments.toml") in found.sentence


def test_the_command_marks_what_needs_attention(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("doctor")
    assert (done.code, done.out.splitlines()[-1]) == (0, "Nothing is lacking.")
    monkeypatch.setattr(doctor, "memory_bytes", lambda: (1 << 30, 1 << 30))
    done = cli("doctor")
    assert done.code == 3
    assert [line.split()[1] for line in done.out.splitlines() if line.startswith("! ")] == ["memory"]
    found = json.loads(cli("doctor", "--json").out)
    assert {entry["topic"]: entry["ok"] for entry in found}["memory"] is False


def test_memory_is_that_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    total, free = doctor.memory_bytes()
    assert total is not None
    assert free is not None
    assert 0 < free <= total
    (tmp_path / "limit").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(doctor, "MEMORY_LIMITS", (tmp_path / "none", tmp_path / "limit", tmp_path / "absent"))
    assert doctor.memory_bytes() == (1000000, 1000000)
