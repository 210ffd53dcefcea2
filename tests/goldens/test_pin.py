"""Pins: a store holds what the matrix says, or nothing is drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.goldens import approve
from harness.goldens.open_store import store_of
from harness.matrix.selection import Selection
from harness.session import steps
from harness.types import Outcome

from .remote import Remote, outcomes


class TestPin:
    def test_another_content_names_both_digests(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run())
        path = next(path for name, path in remote.files().items() if name.endswith("golden.json"))
        told = json.loads(remote.fs.cat_file(path))
        remote.fs.pipe_file(path, json.dumps(told | {"weights": "others"}).encode())
        with pytest.raises(ConfigError) as error:
            remote.run(pin)
        for word in (remote.url, "golden_digest", "bench.toml"):
            assert word in str(error.value)
        found, pinned = re.findall(r"sha256:[0-9a-f]{64}", str(error.value))
        assert pinned == pin != found

    def test_a_golden_that_is_gone_is_no_first_run(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run())
        for path in remote.files().values():
            remote.fs.rm_file(path)
        with pytest.raises(ConfigError, match="holds 0 goldens"):
            remote.run(pin)

    def test_goldens_that_nothing_pins_are_refused(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run())
        with pytest.raises(ConfigError, match=f'nothing pins them.*golden_digest = "{pin}"'):
            remote.run()

    def test_a_folder_may_be_pinned_and_need_not(self, bench: Any, tmp_path: Path) -> None:
        remote = Remote(bench, str(tmp_path / "kept"))
        folder, first = remote.run()
        for change in approve.changes(folder, first):
            approve.approve(folder, first, change, by="a person")
        assert outcomes(remote.run()[1]) == {Outcome.PASS}
        look = store_of(first.matrix).look(first.matrix.golden_keys)
        assert approve.pin(folder) == look.digest
        (bench.root / "matrices" / ".git").mkdir()
        assert approve.pin(folder) == look.digest  # beside the checkout
        (bench.root / "matrices" / ".git").rename(bench.root / ".git")
        assert approve.pin(folder) is None  # version control guards it
        with pytest.raises(ConfigError, match="golden_digest says sha256:0000"):
            remote.run("sha256:" + "0" * 64)
        assert outcomes(remote.run(look.digest)[1]) == {Outcome.PASS}

    def test_another_matrix_in_the_same_store_keeps_its_pin(self, remote: Remote) -> None:
        mine = remote.approve(*remote.run(sizes='"128x128"'))
        remote.approve(*remote.run(sizes='"144x144"'))
        assert outcomes(remote.run(mine, sizes='"128x128"')[1]) == {Outcome.PASS}

    def test_covers_all_platforms_of_the_matrix(self, remote: Remote) -> None:
        """A pin can be checked before anything is drawn, when the kind of GPU is not known yet."""
        pin = remote.approve(*remote.run(sizes='"128x128"'))
        for name, path in remote.files().items():
            other = path.replace("cpu-float32", "cuda-h200-bfloat16")
            remote.fs.makedirs(other.rpartition("/")[0], exist_ok=True)
            remote.fs.pipe_file(other, remote.fs.cat_file(path))
            assert name in remote.files()
        with pytest.raises(ConfigError, match="holds 2 goldens"):
            remote.run(pin, sizes='"128x128"')

    def test_covers_the_whole_file_also_where_rows_are_selected(self, remote: Remote) -> None:
        pin = remote.approve(*remote.run())
        matrix, graph = steps.prepare(remote.bench.matrix_file(remote.text(pin)), Selection(cases=["128x128"]))
        assert {row.case.name for row in graph.rows} == {"128x128"}
        assert len(matrix.golden_keys) == 2
