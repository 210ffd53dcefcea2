"""Finding a model by name, folder or hub id: what is found, and what is said when it is not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import models
from harness.errors import ConfigError, InfrastructureError, UsageError


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SP_HARNESS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert models.cache_dir() == Path.home() / ".cache" / "sp-harness"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert models.cache_dir() == tmp_path / "xdg" / "sp-harness"
    monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "own"))
    assert models.cache_dir() == tmp_path / "own"


def test_fake_has_no_files(cache: Path) -> None:
    spec = models.resolve("fake")
    assert (spec.name, spec.path, spec.num_heads) == ("fake", "", 6)
    assert not cache.exists()


def test_a_folder_is_described(nano_folder: Path, cache: Path) -> None:
    spec = models.resolve(str(nano_folder))
    assert (spec.name, Path(spec.path), spec.num_heads) == ("nano-random", nano_folder, 6)
    assert spec.most_tokens == (512, 512)
    assert len(spec.weights) == 64


def test_what_another_machine_has_planned_with_is_found_here(nano_folder: Path, cache: Path) -> None:
    planned = models.resolve(str(nano_folder))
    assert models.resolve_planned("models/of/that/machine", None, planned.path, planned.weights) == planned
    own = models.resolve("nano-random")  # built in: each machine keeps its own
    assert own.path != planned.path
    assert models.resolve_planned("nano-random", None, planned.path, planned.weights) == own


def test_other_weights_than_those_planned_are_refused_with_the_cure(nano_folder: Path, cache: Path) -> None:
    digest = models.resolve(str(nano_folder)).weights[:16]
    with pytest.raises(InfrastructureError) as caught:
        models.resolve_planned("mine", None, str(nano_folder), "another digest")
    assert str(caught.value) == (
        f"its weights of mine are others ({digest} in {nano_folder}, planned another digest in {nano_folder}); "
        "put the same checkpoint on every node"
    )
    with pytest.raises(InfrastructureError, match=rf"remove {cache}/models/nano-random-\w+, it is then built anew$"):
        models.resolve_planned("nano-random", None, "/there", "another digest")
    with pytest.raises(
        InfrastructureError, match=r"\(z-image-random-0 in builtin:z-image-random, planned z-image-random-1 in"
    ):
        models.resolve_planned("z-image-random", None, "builtin:z-image-random", "z-image-random-1")


def test_a_folder_that_exists_wins_over_a_hub_id(
    nano_folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name").symlink_to(nano_folder)
    (tmp_path / "bare").symlink_to(nano_folder)
    monkeypatch.chdir(tmp_path)
    assert models.resolve("org/name").weights == models.resolve("bare").weights == models.resolve("./bare").weights


def test_nano_random_is_built_once_and_rebuilt_when_incomplete(
    nano_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = models.resolve("nano-random")
    assert Path(first.path).is_relative_to(cache)
    assert first.weights == models.resolve(str(nano_folder)).weights
    stamp = (Path(first.path) / "README.md").stat().st_mtime_ns
    assert models.resolve("nano-random") == first
    assert (Path(first.path) / "README.md").stat().st_mtime_ns == stamp
    shutil.rmtree(Path(first.path) / "vae")
    assert models.resolve("nano-random") == first
    assert (Path(first.path) / "README.md").stat().st_mtime_ns != stamp


def test_another_recipe_builds_its_own_copy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models import nano

    old = models.build("nano-random")
    monkeypatch.setattr(nano, "recipe", lambda: "12345678")
    new = models.build("nano-random")
    assert new != old
    assert old.is_dir()
    assert "12345678" in (new / "README.md").read_text()


def test_build_replaces_an_older_nano_but_nothing_else(tmp_path: Path, nano_folder: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(nano_folder, older)
    card = older / "README.md"
    card.write_text(card.read_text().replace("(recipe ", "(recipe 0"))
    (older / "left_over.txt").touch()
    assert models.build("nano-random", older) == older
    assert not (older / "left_over.txt").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").touch()
    with pytest.raises(UsageError, match="holds something else"):
        models.build("nano-random", foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "older"]


def test_only_nano_random_can_be_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'nano-random'"):
        models.build("nano-randm", tmp_path / "x")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nan", "did you mean 'nano'"),
        ("nano-rand", "did you mean 'nano-random'"),
        ("", "neither built in"),
        ("./nowhere", "no such folder"),
        ("a/b/c", "no such folder"),
    ],
)
def test_an_unknown_model_is_named_with_the_cure(cache: Path, model: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        models.resolve(model)
    assert repr(model) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_revision_belongs_to_a_hub_id(nano_folder: Path, cache: Path) -> None:
    for model in ("fake", "nano", "nano-random", "z-image-random", str(nano_folder)):
        with pytest.raises(ConfigError, match="revision"):
            models.resolve(model, "main")


@pytest.mark.parametrize("how", [{"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_hub_out_of_reach_says_what_to_download(tmp_path: Path, how: dict[str, str]) -> None:
    # The hub's library reads these variables once, at import.
    code = "from harness import models; models.resolve('some-org/some-model', 'abc123')"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SP_HARNESS_CACHE": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), **how},
        capture_output=True,
        text=True,
        timeout=30,
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{InfrastructureError.__module__}.InfrastructureError: model 'some-org/some-model'")
    assert "hf download some-org/some-model --revision abc123 --local-dir DIR" in last
    assert 'model = "DIR"' in last


def test_resolving_what_is_there_does_not_import_torch(nano_folder: Path, cache: Path) -> None:
    code = (
        "import sys; from harness import models\n"
        f"models.resolve('fake'); models.resolve({str(nano_folder)!r})\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_nano_is_shipped_whole_and_small(cache: Path) -> None:
    spec = models.resolve("nano")
    assert (spec.path, spec.num_heads) == (str(models.SHIPPED), 6)
    assert not (cache / "models").exists()
    files = [path for path in models.SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    assert "Apache-2.0" in (models.SHIPPED / "README.md").read_text()


@pytest.mark.parametrize("name", ["nano", "z-image-random", "fake"])
def test_what_is_there_already_is_not_built(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="nothing to build"):
        models.build(name, tmp_path / "x")


def test_the_full_size_model_has_the_released_shape(cache: Path) -> None:
    spec = models.resolve("z-image-random")
    assert (spec.name, spec.num_heads) == ("z-image-random", 30)
    assert not cache.exists()
