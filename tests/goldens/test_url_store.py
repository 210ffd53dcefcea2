"""Golden store at a URL: proposed, approved, fetched once, checked, and what goes wrong on the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from harness import models
from harness.errors import ConfigError, GoldenError, InfrastructureError
from harness.goldens import for_run, golden
from harness.goldens.open_store import open_store
from harness.goldens.url_store import UrlStore
from harness.matrix.loader import read_matrix
from harness.session import steps
from harness.types import Outcome

from .remote import BOTH, MATRIX, Remote, outcomes


class TestRuns:
    def test_the_first_proposes_a_person_approves_the_next_is_held_to_it(self, remote: Remote, cache: Path) -> None:
        folder, first = remote.run()
        assert (outcomes(first), first.exit_code) == ({Outcome.NO_GOLDEN}, 1)
        assert len(list((folder.path / "proposals").rglob("golden.json"))) == 2
        assert remote.files() == {}

        pin = remote.approve(folder, first)
        cases = {case.key for case in folder.plan.matrix.cases}
        names = {"golden.json", "image.png", "latents.safetensors"}
        assert set(remote.files()) == {f"fake/cpu-float32/{key}/{name}" for key in cases for name in names}

        _, second = remote.run(pin)
        assert (outcomes(second), second.exit_code) == ({Outcome.PASS}, 0)
        assert set(second.golden_dirs) == cases
        assert all(Path(place).parent == cache for place in second.golden_dirs.values())

    def test_another_picture_is_drift(self, remote: Remote, repaint: Callable[..., Any]) -> None:
        pin = remote.approve(*remote.run())
        _, report = remote.run(pin, edit=repaint(by=0.1))
        assert {row.verdict.cause for row in report.rows if row.verdict} == {"golden drift"}

    def test_a_golden_is_fetched_once(self, remote: Remote, cache: Path) -> None:
        pin = remote.approve(*remote.run())
        remote.run(pin)
        copies = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
        assert len(copies) == 2
        for name, path in remote.files().items():
            if name.endswith("safetensors"):
                remote.fs.rm_file(path)  # what has been fetched is not asked for again
        _, report = remote.run(pin)
        assert outcomes(report) == {Outcome.PASS}
        assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == copies

    def test_a_damaged_copy_is_fetched_again(self, remote: Remote, cache: Path) -> None:
        pin = remote.approve(*remote.run())
        remote.run(pin)
        for picture in cache.rglob("image.png"):
            picture.write_bytes(b"painted over")
        assert outcomes(remote.run(pin)[1]) == {Outcome.PASS}

    def test_of_runs_that_fetch_at_once_one_downloads(
        self, remote: Remote, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The others take its copy and leave it alone: someone may be reading it."""
        remote.approve(*remote.run(sizes='"128x128"'))
        matrix = read_matrix(remote.bench.matrix_file(remote.text(sizes='"128x128"')))
        stores = [UrlStore(remote.url, cache.parent) for _ in range(4)]  # as four processes would have them
        (address,) = {address for one in stores for address in one.look(matrix.golden_keys).descriptions}
        read, asked = type(remote.fs).cat_file, []

        together = threading.Barrier(2)

        def noted(fs: Any, path: str, **kwargs: Any) -> Any:
            asked.append(path.rpartition("/")[2])
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(0.5)  # a second one, if it may read at all, meets the first here
            return read(fs, path, **kwargs)

        monkeypatch.setattr(type(remote.fs), "cat_file", noted)
        start = threading.Barrier(len(stores))

        def fetch(one: UrlStore) -> Path:
            start.wait()
            return one.fetch(address)

        with ThreadPoolExecutor(len(stores)) as runs:
            (folder,) = set(runs.map(fetch, stores))
        assert sorted(asked) == ["image.png", "latents.safetensors"]
        assert golden.load(folder) is not None


class TestAltered:
    def test_a_file_that_does_not_match_fails_its_row_and_is_named(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run(sizes='"128x128"'))
        (path,) = [path for name, path in remote.files().items() if name.endswith("image.png")]
        remote.fs.pipe_file(path, b"painted over")
        _, report = remote.run(pin, sizes='"128x128"')
        (row,) = report.rows
        assert row.verdict is not None
        assert (row.verdict.outcome, report.exit_code) == (Outcome.FAIL, 1)
        assert f"{remote.url}/fake/cpu-float32/{row.case.key}/image.png: does not match" in row.verdict.sentence

    def test_a_name_that_leads_elsewhere_is_not_followed(self, remote: Remote, cache: Path) -> None:
        remote.approve(*remote.run(sizes='"128x128"'))
        (path,) = [path for name, path in remote.files().items() if name.endswith("golden.json")]
        told = json.loads(remote.fs.cat_file(path))
        told["files"] = {"../../escaped": hashlib.sha256(b"").hexdigest()}
        remote.fs.pipe_file(path, json.dumps(told).encode())
        opened = open_store(remote.url, models.cache_dir())
        matrix = read_matrix(remote.bench.matrix_file(remote.text(sizes='"128x128"')))
        (address,) = opened.look(matrix.golden_keys).descriptions
        with pytest.raises(GoldenError, match="is no plain file name"):
            opened.fetch(address)
        assert not list(cache.parent.rglob("escaped"))

    def test_a_description_that_is_none_is_not_what_is_pinned(self, remote: Remote) -> None:
        remote.approve(*remote.run(sizes='"128x128"'))
        (path,) = [path for name, path in remote.files().items() if name.endswith("golden.json")]
        remote.fs.pipe_file(path, b"<<<<<<< ours")
        with pytest.raises(ConfigError, match=r"holds 1 goldens of this matrix and nothing pins them"):
            remote.run(sizes='"128x128"')


class TestCannotBeRead:
    def test_an_unknown_protocol_names_the_file_and_the_key(self, bench: Any) -> None:
        path = bench.matrix_file(MATRIX.format(url="s4://bucket/goldens", pin="", sizes=BOTH))
        with pytest.raises(ConfigError, match=r"bench\.toml: golden_store: 's4://bucket/goldens': no file .* 's4'"):
            read_matrix(path)

    def test_a_missing_package_is_named(self, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
        path = bench.matrix_file(MATRIX.format(url="s3://bucket/goldens", pin="", sizes=BOTH))
        assert read_matrix(path).golden_store == "s3://bucket/goldens"  # planning needs no package
        with pytest.raises(ConfigError, match=r"golden_store s3://bucket/goldens: .*; install it: pip install s3fs$"):
            for_run.fetch(steps.prepare(path)[0])

    def test_no_network_is_one_line(self, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*args: Any, **kwargs: Any) -> Any:
            raise TimeoutError("no route\nto host")

        monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", offline)
        path = bench.matrix_file(MATRIX.format(url="memory://x", pin="", sizes=BOTH))
        with pytest.raises(InfrastructureError) as error:
            for_run.fetch(steps.prepare(path)[0])
        assert str(error.value) == (
            "golden_store memory://x: cannot be read (TimeoutError: no route to host); "
            "check the address, the network and the credentials"
        )
        assert error.value.exit_code == 3

    @pytest.mark.parametrize("pin", ["latest", "sha256:12", "0" * 64])
    def test_a_pin_that_is_none(self, bench: Any, pin: str) -> None:
        path = bench.matrix_file(MATRIX.format(url="memory://x", pin=f'golden_digest = "{pin}"', sizes=BOTH))
        with pytest.raises(ConfigError, match="golden_digest"):
            read_matrix(path)
