"""``environments.toml`` and ``--python``: what is known to a matrix, mistakes, entries added."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.environments import table
from harness.errors import UsageError

TEXT = """\
# ours
[sglang]
python = "../bin/python"  # the checkout

[sglang."0.5.9"]
python = "/old/bin/python"
"""


def test_the_command_line_goes_before_the_matrix_and_that_before_the_user(tmp_path: Path) -> None:
    own = table.user_file()
    own.parent.mkdir(parents=True)
    own.write_text('[sglang."0.5.9"]\npython = "/user/python"\n[fake.a]\npython = "/user/fake"\n')
    (tmp_path / table.FILE).write_text(TEXT)
    assert table.known(tmp_path, ["sglang=/mine/python"]) == {
        "sglang": "/mine/python",
        "sglang@0.5.9": "/old/bin/python",
        "fake@a": "/user/fake",
    }
    assert table.known(tmp_path)["sglang"] == str(tmp_path.parent / "bin" / "python")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[sgalng]\npython = '/x'", "there is no engine 'sgalng'; did you mean 'sglang'?"),
        ("sglang = 3", 'sglang: is no table; write [sglang."NAME"]'),
        ("[sglang.new]\npyhton = '/x'", 'sglang."new".python: write the path of an interpreter'),
        ("[sglang]\npython = 3", "sglang.python: write the path of an interpreter"),
        ("[sglang", "is no valid TOML"),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / table.FILE
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        table.known(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("sglang", "write ENGINE=PYTHON or ENGINE@NAME=PYTHON"),
        ("sglang@0.5.9=", "write ENGINE=PYTHON or ENGINE@NAME=PYTHON"),
        ("sglan=/x", "there is no engine 'sglan'; did you mean 'sglang'?"),
    ],
)
def test_a_word_of_another_form_is_answered_with_the_form(word: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        table.named([word])
    assert says in str(caught.value)


def test_an_entry_is_added_once_and_what_was_written_stays(tmp_path: Path) -> None:
    file = tmp_path / "new" / table.FILE
    table.enter(file, "sglang", "0.5.9", "/old/bin/python")
    assert table.read(file) == {"sglang@0.5.9": "/old/bin/python"}
    file.write_text(TEXT)
    table.enter(file, "sglang", "0.5.9", "/old/bin/python")
    assert file.read_text() == TEXT
    table.enter(file, "sglang", "0.5.23", "/new/bin/python")
    assert file.read_text().startswith(TEXT)
    assert table.read(file)["sglang@0.5.23"] == "/new/bin/python"
    with pytest.raises(UsageError, match=r"names /old/bin/python for sglang@0.5.9; remove that entry"):
        table.enter(file, "sglang", "0.5.9", "/other/bin/python")
    file.write_text("sglang = {}\n")
    with pytest.raises(UsageError, match=r"cannot be added to; write into it yourself"):
        table.enter(file, "sglang", "0.5.23", "/new/bin/python")
