"""Golden stores at a URL: proposed on the first night, approved by a person, held to its pin from then on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer import Exit

from harness import codec, models
from harness.cli.approve import approve as approve_command
from harness.cli.compare import compare
from harness.cli.run import resumed
from harness.errors import ConfigError, FileError, GoldenError, InfrastructureError
from harness.goldens import approve, for_run, golden
from harness.goldens.open_store import open_store, store_of
from harness.goldens.url_store import UrlStore
from harness.goldens.verify import verify
from harness.matrix.loader import current_pin, read_matrix
from harness.matrix.selection import Selection
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Outcome, Report

MATRIX = """
schema = 1
name = "bench"
model = "fake"
steps = 2
golden_store = "{url}"
{pin}
[[case]]
size = {sizes}
prompt = "a red ball"

[[variant]]
engine = "fake"
ulysses = 2
axis = "h"
"""
BOTH = '["128x128", "144x144"]'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, and no store that is still open."""
    monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "cache"))
    open_store.cache_clear()
    return tmp_path / "cache" / "goldens"


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/goldens" if request.param == "memory" else f"file://{tmp_path}/bucket/goldens"


@dataclass(frozen=True)
class Nights:
    """Nights of one matrix against one store."""

    bench: Any
    url: str

    def text(self, pin: str | None = None, sizes: str = BOTH) -> str:
        return MATRIX.format(url=self.url, pin=f'golden_digest = "{pin}"' if pin else "", sizes=sizes)

    def run(self, pin: str | None = None, sizes: str = BOTH, **kwargs: Any) -> tuple[RunFolder, Report]:
        """What a night does, in another process than the one before it."""
        folder = self.drawn(pin, sizes, **kwargs)
        report = steps.conclude(folder)
        for_run.propose(folder, report)
        return folder, report

    def drawn(self, pin: str | None = None, sizes: str = BOTH, **kwargs: Any) -> RunFolder:
        open_store.cache_clear()
        text = self.text(pin, sizes)
        for_run.fetch(read_matrix(self.bench.matrix_file(text)))
        folder: RunFolder = self.bench.drawn(text, **kwargs)
        return folder

    def approve(self, folder: RunFolder, report: Report, *names: str) -> str:
        pending = approve.changes(folder, report, names)
        approve.check_known(folder, None)
        for change in pending:
            approve.approve(folder, report, change, by="a person")
        digest = approve.pin(folder)
        assert digest is not None
        return digest

    @property
    def fs(self) -> Any:
        return fsspec.core.url_to_fs(self.url)[0]

    def files(self) -> dict[str, str]:
        """Name to path of everything in the store that ends so."""
        root = fsspec.core.url_to_fs(self.url)[1]
        return {path.rpartition(root)[2].strip("/"): path for path in self.fs.find(root)}


@pytest.fixture
def nights(bench: Any, url: str) -> Nights:
    return Nights(bench, url)


def outcomes(report: Report) -> set[Outcome]:
    return {row.verdict.outcome for row in report.rows if row.verdict}


class TestNights:
    def test_the_first_proposes_a_person_approves_the_next_is_held_to_it(self, nights: Nights, cache: Path) -> None:
        folder, first = nights.run()
        assert (outcomes(first), first.exit_code) == ({Outcome.NO_GOLDEN}, 1)
        assert len(list((folder.path / "proposals").rglob("golden.json"))) == 2
        assert nights.files() == {}

        pin = nights.approve(folder, first)
        cases = {case.key for case in folder.plan.matrix.cases}
        names = {"golden.json", "image.png", "latents.safetensors"}
        assert set(nights.files()) == {f"fake/cpu-float32/{key}/{name}" for key in cases for name in names}

        _, second = nights.run(pin)
        assert (outcomes(second), second.exit_code) == ({Outcome.PASS}, 0)
        assert set(second.golden_dirs) == cases
        assert all(Path(place).parent == cache for place in second.golden_dirs.values())

    def test_another_picture_is_drift(self, nights: Nights, repaint: Callable[..., Any]) -> None:
        pin = nights.approve(*nights.run())
        _, report = nights.run(pin, edit=repaint(by=0.1))
        assert {row.verdict.cause for row in report.rows if row.verdict} == {"golden drift"}

    def test_a_golden_is_fetched_once(self, nights: Nights, cache: Path) -> None:
        pin = nights.approve(*nights.run())
        nights.run(pin)
        copies = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
        assert len(copies) == 2
        for name, path in nights.files().items():
            if name.endswith("safetensors"):
                nights.fs.rm_file(path)  # what has been fetched is not asked for again
        _, report = nights.run(pin)
        assert outcomes(report) == {Outcome.PASS}
        assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == copies

    def test_a_damaged_copy_is_fetched_again(self, nights: Nights, cache: Path) -> None:
        pin = nights.approve(*nights.run())
        nights.run(pin)
        for picture in cache.rglob("image.png"):
            picture.write_bytes(b"painted over")
        assert outcomes(nights.run(pin)[1]) == {Outcome.PASS}

    def test_goldens_are_fetched_before_anything_is_drawn(
        self, nights: Nights, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is drawn takes hours: a network that fails meanwhile must not cost the report."""
        pin = nights.approve(*nights.run())
        folder = nights.drawn(pin)
        go_offline(nights, monkeypatch)
        assert outcomes(steps.conclude(folder)) == {Outcome.PASS}

    def test_an_altered_golden_is_found_before_anything_is_drawn_too(
        self, nights: Nights, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pin = nights.approve(*nights.run())
        for path in nights.files().values():
            if path.endswith("image.png"):
                nights.fs.pipe_file(path, b"painted over")
        folder = nights.drawn(pin)
        go_offline(nights, monkeypatch)
        report = steps.conclude(folder)
        assert (outcomes(report), report.exit_code) == ({Outcome.FAIL}, 1)
        assert "image.png: does not match" in report.rows[0].verdict.sentence  # type: ignore[union-attr]

    def test_of_runs_that_fetch_at_once_one_downloads(
        self, nights: Nights, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The others take its copy and leave it alone: someone may be reading it."""
        nights.approve(*nights.run(sizes='"128x128"'))
        matrix = read_matrix(nights.bench.matrix_file(nights.text(sizes='"128x128"')))
        stores = [UrlStore(nights.url, cache.parent) for _ in range(4)]  # as four processes would have them
        (address,) = {address for one in stores for address in one.look(matrix.golden_keys).descriptions}
        read, asked = type(nights.fs).cat_file, []

        together = threading.Barrier(2)

        def noted(fs: Any, path: str, **kwargs: Any) -> Any:
            asked.append(path.rpartition("/")[2])
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(0.5)  # a second one, if it may read at all, meets the first here
            return read(fs, path, **kwargs)

        monkeypatch.setattr(type(nights.fs), "cat_file", noted)
        start = threading.Barrier(len(stores))

        def fetch(one: UrlStore) -> Path:
            start.wait()
            return one.fetch(address)

        with ThreadPoolExecutor(len(stores)) as runs:
            (folder,) = set(runs.map(fetch, stores))
        assert sorted(asked) == ["image.png", "latents.safetensors"]
        assert golden.load(folder) is not None

    def test_planning_leaves_the_store_alone(self, nights: Nights) -> None:
        """Also where the pin is wrong: nothing is held to it."""
        matrix, _ = steps.prepare(nights.bench.matrix_file(nights.text("sha256:" + "0" * 64)))
        with pytest.raises(ConfigError):
            for_run.fetch(matrix)


def go_offline(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> Any:
        raise TimeoutError("no route to host")

    for call in ("ls", "cat_file"):
        monkeypatch.setattr(type(nights.fs), call, offline)


class TestPin:
    def test_another_content_names_both_digests(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run())
        path = next(path for name, path in nights.files().items() if name.endswith("golden.json"))
        told = json.loads(nights.fs.cat_file(path))
        nights.fs.pipe_file(path, json.dumps(told | {"weights": "others"}).encode())
        with pytest.raises(ConfigError) as error:
            nights.run(pin)
        for word in (nights.url, "golden_digest", "bench.toml"):
            assert word in str(error.value)
        found, pinned = re.findall(r"sha256:[0-9a-f]{64}", str(error.value))
        assert pinned == pin != found

    def test_a_golden_that_is_gone_is_no_first_night(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run())
        for path in nights.files().values():
            nights.fs.rm_file(path)
        with pytest.raises(ConfigError, match="holds 0 goldens"):
            nights.run(pin)

    def test_goldens_that_nothing_pins_are_refused(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run())
        with pytest.raises(ConfigError, match=f'nothing pins them.*golden_digest = "{pin}"'):
            nights.run()

    def test_a_folder_may_be_pinned_and_need_not(self, bench: Any, tmp_path: Path) -> None:
        nights = Nights(bench, str(tmp_path / "kept"))
        folder, first = nights.run()
        for change in approve.changes(folder, first):
            approve.approve(folder, first, change, by="a person")
        assert outcomes(nights.run()[1]) == {Outcome.PASS}
        look = store_of(first.matrix).look(first.matrix.golden_keys)
        assert approve.pin(folder) == look.digest
        (bench.root / "matrices" / ".git").mkdir()
        assert approve.pin(folder) == look.digest  # beside the checkout
        (bench.root / "matrices" / ".git").rename(bench.root / ".git")
        assert approve.pin(folder) is None  # version control guards it
        with pytest.raises(ConfigError, match="golden_digest says sha256:0000"):
            nights.run("sha256:" + "0" * 64)
        assert outcomes(nights.run(look.digest)[1]) == {Outcome.PASS}

    def test_another_matrix_in_the_same_store_keeps_its_pin(self, nights: Nights) -> None:
        mine = nights.approve(*nights.run(sizes='"128x128"'))
        nights.approve(*nights.run(sizes='"144x144"'))
        assert outcomes(nights.run(mine, sizes='"128x128"')[1]) == {Outcome.PASS}

    def test_covers_all_platforms_of_the_matrix(self, nights: Nights) -> None:
        """A pin can be checked before anything is drawn, when the kind of GPU is not known yet."""
        pin = nights.approve(*nights.run(sizes='"128x128"'))
        for name, path in nights.files().items():
            other = path.replace("cpu-float32", "cuda-h200-bfloat16")
            nights.fs.makedirs(other.rpartition("/")[0], exist_ok=True)
            nights.fs.pipe_file(other, nights.fs.cat_file(path))
            assert name in nights.files()
        with pytest.raises(ConfigError, match="holds 2 goldens"):
            nights.run(pin, sizes='"128x128"')

    def test_covers_the_whole_file_also_where_rows_are_selected(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run())
        matrix, graph = steps.prepare(nights.bench.matrix_file(nights.text(pin)), Selection(cases=["128x128"]))
        assert {row.case.name for row in graph.rows} == {"128x128"}
        assert len(matrix.golden_keys) == 2


class TestAltered:
    def test_a_file_that_does_not_match_fails_its_row_and_is_named(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run(sizes='"128x128"'))
        (path,) = [path for name, path in nights.files().items() if name.endswith("image.png")]
        nights.fs.pipe_file(path, b"painted over")
        _, report = nights.run(pin, sizes='"128x128"')
        (row,) = report.rows
        assert row.verdict is not None
        assert (row.verdict.outcome, report.exit_code) == (Outcome.FAIL, 1)
        assert f"{nights.url}/fake/cpu-float32/{row.case.key}/image.png: does not match" in row.verdict.sentence

    def test_a_name_that_leads_elsewhere_is_not_followed(self, nights: Nights, cache: Path) -> None:
        nights.approve(*nights.run(sizes='"128x128"'))
        (path,) = [path for name, path in nights.files().items() if name.endswith("golden.json")]
        told = json.loads(nights.fs.cat_file(path))
        told["files"] = {"../../escaped": hashlib.sha256(b"").hexdigest()}
        nights.fs.pipe_file(path, json.dumps(told).encode())
        opened = open_store(nights.url, models.cache_dir())
        matrix = read_matrix(nights.bench.matrix_file(nights.text(sizes='"128x128"')))
        (address,) = opened.look(matrix.golden_keys).descriptions
        with pytest.raises(GoldenError, match="is no plain file name"):
            opened.fetch(address)
        assert not list(cache.parent.rglob("escaped"))

    def test_a_description_that_is_none_is_said_before_anything_is_drawn(self, nights: Nights) -> None:
        nights.approve(*nights.run(sizes='"128x128"'))
        (path,) = [path for name, path in nights.files().items() if name.endswith("golden.json")]
        nights.fs.pipe_file(path, b"<<<<<<< ours")
        with pytest.raises(FileError, match=r"goldens/fake/cpu-float32/.*golden\.json: is no valid JSON"):
            nights.run(sizes='"128x128"')


class TestApprove:
    def test_case_by_case_from_one_run(self, nights: Nights) -> None:
        """The first approval changes the store; the second is on top of what the first left."""
        folder, report = nights.run()
        first = nights.approve(folder, report, "128x128")
        second = nights.approve(folder, report, "144x144")
        assert first != second
        assert outcomes(nights.run(second)[1]) == {Outcome.PASS}

    def test_not_on_top_of_what_nobody_pinned(self, nights: Nights) -> None:
        """The new digest would cover the stranger's golden too."""
        pin = nights.approve(*nights.run(sizes='"128x128"'))
        text = nights.text(pin, sizes='"128x128"')
        folder = nights.bench.drawn(text)
        report = steps.conclude(folder)
        (path,) = [path for name, path in nights.files().items() if "128x128" in name and name.endswith("golden.json")]
        told = json.loads(nights.fs.cat_file(path))
        nights.fs.pipe_file(path, json.dumps(told | {"weights": "others"}).encode())
        assert [change.what for change in approve.changes(folder, report)] == ["other weights"]
        with pytest.raises(ConfigError, match="restore the store") as error:
            approve.check_known(folder, current_pin(folder.plan.matrix))
        assert pin in str(error.value)

    def test_replacing_leaves_no_file_of_the_old_golden(self, nights: Nights, repaint: Callable[..., Any]) -> None:
        pin = nights.approve(*nights.run(sizes='"128x128"'))
        (path,) = [path for name, path in nights.files().items() if name.endswith("golden.json")]
        nights.fs.pipe_file(path.replace("golden.json", "image-1.png"), b"of a larger batch")
        after = nights.approve(*nights.run(pin, sizes='"128x128"', edit=repaint(by=0.1)))
        assert after != pin
        assert sorted(name.rpartition("/")[2] for name in nights.files()) == [
            "golden.json",
            "image.png",
            "latents.safetensors",
        ]
        _, report = nights.run(after, sizes='"128x128"', edit=repaint(by=0.1))
        assert outcomes(report) == {Outcome.PASS}

    @pytest.mark.parametrize("upload", [1, 2, 3])
    def test_an_upload_that_breaks_leaves_no_half_golden(
        self, nights: Nights, monkeypatch: pytest.MonkeyPatch, upload: int, repaint: Callable[..., Any]
    ) -> None:
        pin = nights.approve(*nights.run(sizes='"128x128"'))
        folder, report = nights.run(pin, sizes='"128x128"', edit=repaint(by=0.1))
        (change,) = approve.changes(folder, report)
        put, calls = type(nights.fs).put_file, []

        def breaks(fs: Any, source: str, target: str, **kwargs: Any) -> Any:
            calls.append(target)
            if len(calls) == upload:
                raise ConnectionResetError("the line is gone")
            return put(fs, source, target, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(type(nights.fs), "put_file", breaks)
            with pytest.raises(
                InfrastructureError, match=r"cannot be written \(ConnectionResetError: the line is gone\)"
            ):
                approve.approve(folder, report, change)
        assert not [name for name in nights.files() if name.endswith("golden.json")]
        again = nights.approve(folder, report)
        assert outcomes(nights.run(again, sizes='"128x128"', edit=repaint(by=0.1))[1]) == {Outcome.PASS}

    @pytest.mark.parametrize("upload", [1, 2, 3])
    def test_the_command_can_be_given_again_after_an_upload_that_broke(
        self, nights: Nights, monkeypatch: pytest.MonkeyPatch, upload: int, repaint: Callable[..., Any]
    ) -> None:
        """The first of two cases breaks: what is left in the store was pinned by nobody, and is our own doing."""
        pin = nights.approve(*nights.run())
        folder, report = nights.run(pin, edit=repaint(by=0.1))
        steps.write_reports(report, folder.path)
        put, calls = type(nights.fs).put_file, []

        def breaks(fs: Any, source: str, target: str, **kwargs: Any) -> Any:
            calls.append(target)
            if len(calls) < upload:
                return put(fs, source, target, **kwargs)
            if upload == 3:
                put(fs, source, target, **kwargs)  # all of it is there, and nobody was told
            raise ConnectionResetError("the line is gone")

        with monkeypatch.context() as patch:
            patch.setattr(type(nights.fs), "put_file", breaks)
            with pytest.raises(InfrastructureError, match="approve again"):
                approve_command(folder.path, [], yes=True, by="a person")
        assert len([name for name in nights.files() if name.endswith("golden.json")]) == (2 if upload == 3 else 1)
        open_store.cache_clear()
        approve_command(folder.path, [], yes=True, by="a person")
        look = store_of(report.matrix).look(report.matrix.golden_keys)
        assert outcomes(nights.run(look.digest, edit=repaint(by=0.1))[1]) == {Outcome.PASS}

    def test_a_run_that_was_approved_can_be_judged_and_finished_again(self, nights: Nights) -> None:
        """Its plan pins what the store held before."""
        folder, first = nights.run()
        pin = nights.approve(folder, first)
        open_store.cache_clear()
        assert outcomes(steps.conclude(RunFolder.open(folder.path))) == {Outcome.PASS}
        assert resumed(folder.path).missing() == []
        elsewhere = nights.bench.drawn(nights.text(pin))  # the file holds the pin by now, this run's plan does not
        codec.write_json(elsewhere.path / "plan.json", replace(elsewhere.plan, matrix=first.matrix))
        unpinned = RunFolder.open(elsewhere.path)
        assert outcomes(steps.conclude(unpinned, pin=pin)) == {Outcome.PASS}
        with pytest.raises(ConfigError, match="nothing pins them"):
            steps.conclude(unpinned)
        with pytest.raises(Exit) as end:
            compare(elsewhere.path)  # the command reads the pin
        assert end.value.exit_code == 0
        nights.bench.matrix_file(nights.text())
        with pytest.raises(ConfigError, match="nothing pins them"):
            compare(elsewhere.path)

    def test_a_file_system_that_makes_no_folders_unasked(
        self, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as sftp."""
        nights = Nights(bench, f"file://{tmp_path}/bucket/goldens")
        folder, report = nights.run(sizes='"128x128"')
        opened: Any = store_of(report.matrix)
        monkeypatch.setattr(opened._fs, "auto_mkdir", False)
        nights.approve(folder, report)
        assert len([name for name in nights.files() if name.endswith("golden.json")]) == 1

    def test_the_command_says_what_to_write(self, nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
        folder, _ = nights.run()
        approve_command(folder.path, [], yes=True, by="a person")
        *approved, last = capsys.readouterr().out.splitlines()
        assert f"approved {nights.url}/fake/cpu-float32/" in approved[-1]
        (pin,) = [word.strip('"') for word in last.split() if "sha256:" in word]
        assert last == f'write into {folder.plan.matrix.path}: golden_digest = "{pin}"'
        assert outcomes(nights.run(pin)[1]) == {Outcome.PASS}

    def test_a_report_is_enough(self, nights: Nights) -> None:
        """What a night keeps for a person holds no pictures of the rows that pass."""
        folder, report = nights.run()
        steps.write_reports(report, folder.path)
        for row in report.rows:
            for latents in (folder.path / "runs" / row.runs["candidate"]).glob("*.safetensors"):
                latents.unlink()
        approve_command(folder.path, [], yes=True, by="a person")
        assert len([name for name in nights.files() if name.endswith("golden.json")]) == 2


class TestVerify:
    def verify(self, nights: Nights, pin: str | None, sizes: str = BOTH) -> tuple[int, list[str]]:
        open_store.cache_clear()
        return verify([read_matrix(nights.bench.matrix_file(nights.text(pin, sizes)))])

    def test_all_well(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run())
        assert self.verify(nights, pin) == (2, [])

    def test_not_what_is_pinned(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run())
        count, (line,) = self.verify(nights, "sha256:" + "0" * 64)
        assert count == 2
        assert line.startswith("pin: ")
        assert pin in line

    def test_missing(self, nights: Nights) -> None:
        """A case that is new to the matrix leaves the pin of the others in force."""
        pin = nights.approve(*nights.run(sizes='"128x128"'))
        count, (missing,) = self.verify(nights, pin)
        assert count == 2
        assert missing.startswith(f"missing: {nights.url}/fake/cpu-float32/144x144-")

    def test_altered_also_where_a_good_copy_is_in_the_cache(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run())
        nights.run(pin)
        path = next(path for name, path in nights.files().items() if name.endswith("image.png"))
        nights.fs.pipe_file(path, b"painted over")
        _, (line,) = self.verify(nights, pin)
        assert line.startswith(f"altered: {nights.url}/fake/cpu-float32/")
        assert "image.png: does not match" in line

    def test_needs_no_room_beyond_the_cache(
        self, nights: Nights, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The system's folder for temporary files is often another file system, and a small one."""
        pin = nights.approve(*nights.run())
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        assert self.verify(nights, pin) == (2, [])
        assert not [path for path in cache.glob(".*") if path.is_dir()]

    def test_a_cache_that_cannot_be_written_is_one_line(
        self, nights: Nights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        pin = nights.approve(*nights.run())
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "file"))
        with pytest.raises(InfrastructureError, match=r"file/goldens: cannot be written \(Not a directory\)"):
            self.verify(nights, pin)

    def test_what_others_keep_there_is_no_problem(self, nights: Nights) -> None:
        pin = nights.approve(*nights.run(sizes='"128x128"'))
        nights.approve(*nights.run(sizes='"144x144"'))
        assert self.verify(nights, pin, '"128x128"') == (1, [])

    def test_of_a_gpu_what_is_there_is_verified_and_nothing_missed(self, nights: Nights) -> None:
        text = nights.text(sizes='"128x128"').replace("steps = 2", 'steps = 2\ndevice = "cuda"\ndtype = "bfloat16"')
        matrix = read_matrix(nights.bench.matrix_file(text))
        assert verify([matrix]) == (0, [])
        folder, _ = nights.run(sizes='"128x128"')
        proposal = next((folder.path / "proposals").rglob("golden.json")).parent
        (key,) = matrix.golden_keys
        address = f"fake/cuda-h200-bfloat16/{key.partition('/')[2]}"
        for file in proposal.iterdir():
            target = f"{fsspec.core.url_to_fs(nights.url)[1]}/{address}/{file.name}"
            nights.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            nights.fs.pipe_file(target, file.read_bytes() + (b"x" if file.name == "image.png" else b""))
        open_store.cache_clear()
        look = store_of(matrix).look(matrix.golden_keys)
        count, (line,) = verify([replace(matrix, golden_digest=look.digest)])
        assert count == 1
        assert line.startswith(f"altered: {nights.url}/{address}/image.png: does not match")


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
