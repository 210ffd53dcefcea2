"""A checkpoint as SGLang reads it: the same files by links, with the keys that its loaders look for.

SGLang takes a folder without ``_diffusers_version`` for no diffusers checkpoint and runs diffusers' own pipeline
instead, reads the transformer's heads and layers under other names, and knows a model family by the folder's name.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harness.models import cache_dir
from harness.models.checkpoint import publish

FAMILY = "Z-Image-Turbo"
"""Name of the folder. Turbo differs from the base model in defaults alone, all of which a request states."""
PARTS = ("scheduler", "text_encoder", "tokenizer", "vae")


def sglang_view(checkpoint: Path) -> Path:
    """Make the view of a checkpoint, if it is not there already.

    Parameters
    ----------
    checkpoint
        Folder in Hugging Face layout.

    Returns
    -------
    Path
        A folder of links in the harness' cache, addressed by the checkpoint's place and configuration.
    """
    files = {
        Path("model_index.json"): _with(checkpoint / "model_index.json", _diffusers_version="0.36.0"),
        Path("transformer/config.json"): _transformer_config(checkpoint / "transformer" / "config.json"),
    }
    digest = hashlib.sha256("\0".join([str(checkpoint), *files.values()]).encode()).hexdigest()[:16]
    target = cache_dir() / "views" / f"sglang-{digest}"

    def write(folder: Path) -> None:
        view = folder / FAMILY
        (view / "transformer").mkdir(parents=True)
        for name, text in files.items():
            (view / name).write_text(text, encoding="utf-8")
        for part in PARTS:
            (view / part).symlink_to(checkpoint / part)
        for weights in (checkpoint / "transformer").glob("*.safetensors*"):
            (view / "transformer" / weights.name).symlink_to(weights)

    return publish(target, write, is_current=Path.is_dir, is_ours=Path.is_dir) / FAMILY


def _transformer_config(path: Path) -> str:
    config = json.loads(path.read_text(encoding="utf-8"))
    return _with(path, num_attention_heads=config["n_heads"], num_layers=config["n_layers"])


def _with(path: Path, **defaults: object) -> str:
    """Text of a JSON file, with keys added that it lacks."""
    return json.dumps(defaults | json.loads(path.read_text(encoding="utf-8")), indent=2)
