"""Approving into a store at a URL: whole goldens, the pin that covers them, uploads that break."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer import Exit

from harness import codec
from harness.cli.approve import approve as approve_command
from harness.cli.compare import compare
from harness.cli.run import resumed
from harness.errors import ConfigError, InfrastructureError
from harness.goldens import approve
from harness.goldens.open_store import open_store, store_of
from harness.matrix.loader import current_pin
from harness.runs.folder import RunFolder
from harness.session import steps
from harness.types import Outcome

from .remote import Remote, outcomes


class TestApprove:
    def test_case_by_case_from_one_run(self, remote: Remote) -> None:
        """The first approval changes the store; the second is on top of what the first left."""
        folder, report = remote.run()
        first = remote.approve(folder, report, "128x128")
        second = remote.approve(folder, report, "144x144")
        assert first != second
        assert outcomes(remote.run(second)[1]) == {Outcome.PASS}

    def test_not_on_top_of_what_nobody_pinned(self, remote: Remote) -> None:
        """The new digest would cover the stranger's golden too."""
        pin = remote.approve(*remote.run(sizes='"128x128"'))
        text = remote.text(pin, sizes='"128x128"')
        folder = remote.bench.drawn(text)
        report = steps.conclude(folder)
        (path,) = [path for name, path in remote.files().items() if "128x128" in name and name.endswith("golden.json")]
        told = json.loads(remote.fs.cat_file(path))
        remote.fs.pipe_file(path, json.dumps(told | {"weights": "others"}).encode())
        assert [change.what for change in approve.changes(folder, report)] == ["other weights"]
        with pytest.raises(ConfigError, match="restore the store") as error:
            approve.check_known(folder, current_pin(folder.plan.matrix))
        assert pin in str(error.value)

    def test_replacing_leaves_no_file_of_the_old_golden(self, remote: Remote, repaint: Callable[..., Any]) -> None:
        pin = remote.approve(*remote.run(sizes='"128x128"'))
        (path,) = [path for name, path in remote.files().items() if name.endswith("golden.json")]
        remote.fs.pipe_file(path.replace("golden.json", "image-1.png"), b"of a larger batch")
        after = remote.approve(*remote.run(pin, sizes='"128x128"', edit=repaint(by=0.1)))
        assert after != pin
        assert sorted(name.rpartition("/")[2] for name in remote.files()) == [
            "golden.json",
            "image.png",
            "latents.safetensors",
        ]
        _, report = remote.run(after, sizes='"128x128"', edit=repaint(by=0.1))
        assert outcomes(report) == {Outcome.PASS}

    @pytest.mark.parametrize("upload", [1, 2, 3])
    def test_an_upload_that_breaks_leaves_no_half_golden(
        self, remote: Remote, monkeypatch: pytest.MonkeyPatch, upload: int, repaint: Callable[..., Any]
    ) -> None:
        pin = remote.approve(*remote.run(sizes='"128x128"'))
        folder, report = remote.run(pin, sizes='"128x128"', edit=repaint(by=0.1))
        (change,) = approve.changes(folder, report)
        put, calls = type(remote.fs).put_file, []

        def breaks(fs: Any, source: str, target: str, **kwargs: Any) -> Any:
            calls.append(target)
            if len(calls) == upload:
                raise ConnectionResetError("the line is gone")
            return put(fs, source, target, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(type(remote.fs), "put_file", breaks)
            with pytest.raises(
                InfrastructureError, match=r"cannot be written \(ConnectionResetError: the line is gone\)"
            ):
                approve.approve(folder, report, change)
        assert not [name for name in remote.files() if name.endswith("golden.json")]
        again = remote.approve(folder, report)
        assert outcomes(remote.run(again, sizes='"128x128"', edit=repaint(by=0.1))[1]) == {Outcome.PASS}

    @pytest.mark.parametrize("upload", [1, 2, 3])
    def test_the_command_can_be_given_again_after_an_upload_that_broke(
        self, remote: Remote, monkeypatch: pytest.MonkeyPatch, upload: int, repaint: Callable[..., Any]
    ) -> None:
        """The first of two cases breaks: what is left in the store was pinned by nobody, and is our own doing."""
        pin = remote.approve(*remote.run())
        folder, report = remote.run(pin, edit=repaint(by=0.1))
        steps.write_reports(report, folder.path)
        put, calls = type(remote.fs).put_file, []

        def breaks(fs: Any, source: str, target: str, **kwargs: Any) -> Any:
            calls.append(target)
            if len(calls) < upload:
                return put(fs, source, target, **kwargs)
            if upload == 3:
                put(fs, source, target, **kwargs)  # all of it is there, and nobody was told
            raise ConnectionResetError("the line is gone")

        with monkeypatch.context() as patch:
            patch.setattr(type(remote.fs), "put_file", breaks)
            with pytest.raises(InfrastructureError, match="approve again"):
                approve_command(folder.path, [], yes=True, by="a person")
        assert len([name for name in remote.files() if name.endswith("golden.json")]) == (2 if upload == 3 else 1)
        open_store.cache_clear()
        approve_command(folder.path, [], yes=True, by="a person")
        look = store_of(report.matrix).look(report.matrix.golden_keys)
        assert outcomes(remote.run(look.digest, edit=repaint(by=0.1))[1]) == {Outcome.PASS}

    def test_a_run_that_was_approved_can_be_judged_and_finished_again(self, remote: Remote) -> None:
        """Its plan pins what the store held before."""
        folder, first = remote.run()
        pin = remote.approve(folder, first)
        open_store.cache_clear()
        assert outcomes(steps.conclude(RunFolder.open(folder.path))) == {Outcome.PASS}
        assert resumed(folder.path).missing() == []
        elsewhere = remote.bench.drawn(remote.text(pin))  # the file holds the pin by now, this run's plan does not
        codec.write_json(elsewhere.path / "plan.json", replace(elsewhere.plan, matrix=first.matrix))
        unpinned = RunFolder.open(elsewhere.path)
        assert outcomes(steps.conclude(unpinned, pin=pin)) == {Outcome.PASS}
        with pytest.raises(ConfigError, match="nothing pins them"):
            steps.conclude(unpinned)
        with pytest.raises(Exit) as end:
            compare(elsewhere.path)  # the command reads the pin
        assert end.value.exit_code == 0
        remote.bench.matrix_file(remote.text())
        with pytest.raises(ConfigError, match="nothing pins them"):
            compare(elsewhere.path)

    def test_a_file_system_that_makes_no_folders_unasked(
        self, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as sftp."""
        remote = Remote(bench, f"file://{tmp_path}/bucket/goldens")
        folder, report = remote.run(sizes='"128x128"')
        opened: Any = store_of(report.matrix)
        monkeypatch.setattr(opened._fs, "auto_mkdir", False)
        remote.approve(folder, report)
        assert len([name for name in remote.files() if name.endswith("golden.json")]) == 1

    def test_the_command_says_what_to_write(self, remote: Remote, capsys: pytest.CaptureFixture[str]) -> None:
        folder, _ = remote.run()
        approve_command(folder.path, [], yes=True, by="a person")
        *approved, last = capsys.readouterr().out.splitlines()
        assert f"approved {remote.url}/fake/cpu-float32/" in approved[-1]
        (pin,) = [word.strip('"') for word in last.split() if "sha256:" in word]
        assert last == f'write into {folder.plan.matrix.path}: golden_digest = "{pin}"'
        assert outcomes(remote.run(pin)[1]) == {Outcome.PASS}

    def test_a_report_is_enough(self, remote: Remote) -> None:
        """A packed run holds no pictures of the rows that pass."""
        folder, report = remote.run()
        steps.write_reports(report, folder.path)
        for row in report.rows:
            for latents in (folder.path / "runs" / row.runs["candidate"]).glob("*.safetensors"):
                latents.unlink()
        approve_command(folder.path, [], yes=True, by="a person")
        assert len([name for name in remote.files() if name.endswith("golden.json")]) == 2
