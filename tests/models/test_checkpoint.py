"""A checkpoint as files: missing parts, pickles, and the digest that stands for its weights."""

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.models import checkpoint


@pytest.fixture
def folder(nano_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(nano_folder, tmp_path / "model"))


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "transformer", "scheduler", "vae", "model_index.json"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    target = folder / part
    target.unlink() if target.is_file() else shutil.rmtree(target)
    with pytest.raises(ConfigError, match=f"lacks .*{part}"):
        checkpoint.check(folder)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_pickled_weights_are_refused(folder: Path, suffix: str) -> None:
    weights = next((folder / "vae").glob("*.safetensors"))
    weights.rename(weights.with_suffix(suffix))
    with pytest.raises(ConfigError, match="never pickle"):
        checkpoint.check(folder)


def test_missing_weights_and_shards_are_named(folder: Path) -> None:
    weights = next((folder / "transformer").glob("*.safetensors"))
    index = weights.with_name(weights.name + ".index.json")
    index.write_text(json.dumps({"weight_map": {"a": weights.name, "b": "second.safetensors"}}))
    with pytest.raises(ConfigError, match=r"transformer/second\.safetensors"):
        checkpoint.check(folder)
    index.unlink()
    weights.unlink()
    with pytest.raises(ConfigError, match="lacks the weights of transformer"):
        checkpoint.check(folder)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, "FluxPipeline"),
        ("model_index.json", {"transformer": ["my_code", "Transformer"]}, "no other code is run"),
        ("transformer/config.json", {"n_heads": None}, "n_heads"),
        ("transformer/config.json", {"axes_lens": "512"}, "axes_lens"),
        ("transformer/config.json", {"axes_lens": [512, None, 0]}, "axes_lens"),
    ],
)
def test_another_kind_of_model_is_refused(folder: Path, file: str, change: dict[str, object], words: str) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=words) as caught:
        checkpoint.inspect(folder, "x", folder / "memo.json")
    assert str(path) in str(caught.value)


def test_a_broken_config_is_no_traceback(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ConfigError, match=r"model_index\.json"):
        checkpoint.check(folder)


@pytest.mark.parametrize("file", ["vae/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"])
def test_the_digest_changes_with_any_file_that_decides_the_picture(folder: Path, tmp_path: Path, file: str) -> None:
    memo = tmp_path / "memo.json"
    before = checkpoint.digest(folder, memo)
    (folder / "README.md").write_text("another card")
    (folder / "transformer" / "notes.md").write_text("a note")
    assert checkpoint.digest(folder, memo) == before
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    assert checkpoint.digest(folder, memo) != before


def test_the_digest_does_not_depend_on_the_place(folder: Path, nano_folder: Path, tmp_path: Path) -> None:
    assert checkpoint.digest(folder, tmp_path / "a") == checkpoint.digest(nano_folder, tmp_path / "b")


def test_unchanged_files_are_not_read_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = tmp_path / "cache" / "memo.json"
    before = checkpoint.digest(folder, memo)
    read: list[str] = []
    monkeypatch.setattr(
        checkpoint.hashlib, "file_digest", lambda file, _: read.append(file.name) or pytest.fail("read again")
    )
    assert checkpoint.digest(folder, memo) == before
    monkeypatch.undo()
    memo.write_text("{ half a memo")
    assert checkpoint.digest(folder, memo) == before
    memo.write_text('{"%s": "nonsense"}' % (folder / "model_index.json"))
    assert checkpoint.digest(folder, memo) == before


def test_a_cache_that_cannot_be_written_costs_time_only(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert checkpoint.digest(folder, tmp_path / "file" / "memo.json") == checkpoint.digest(folder, tmp_path / "m")
