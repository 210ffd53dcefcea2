"""The model ``nano-random``: Z-Image's architecture at a size a processor draws in seconds, random weights.

A folder in Hugging Face layout with all five parts, written without network from this file and
:mod:`harness.models.nano_weights` alone, byte for byte the same on every machine. It draws no
objects; it reacts to prompt, order and position as the released model does. The trained ``nano`` has
the same shapes, tokenizer and text encoder (``train/``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.models import checkpoint

NUM_HEADS = 6

_TITLE = "# nano-random, an untrained model of sp-harness"

_WORDS = """
    a an the and or of on in at by to with from over under between behind before near left right up down is are as
    red green blue yellow purple orange white black grey brown pink dark bright pale small large round tall old new
    ball box ring cone tower house bridge boat tree river mountain lake sea sky sun moon star cloud rain snow wind
    street city field forest garden window door wall floor tiles road light shadow water fire stone wood glass
    paper gold silver cat dog bird fish horse fox owl whale person face hand book lamp table chair cup clock
    day night morning evening spring summer autumn winter photograph painting drawing poster sign text word
"""
_BARE_WORDS = "user assistant system think"

_CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""


def recipe() -> str:
    """Version of the recipe: eight digits over the two files that are the recipe."""
    here = Path(__file__)
    sources = (here, here.with_name("nano_weights.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:8]


def is_ours(folder: Path) -> bool:
    """Whether a folder holds this model, of whatever recipe."""
    return _first_lines(folder).startswith(_TITLE)


def is_current(folder: Path) -> bool:
    """Whether a folder holds this model as this recipe builds it, with every part."""
    if f"(recipe {recipe()})" not in _first_lines(folder):
        return False
    try:
        checkpoint.check(folder)
    except ConfigError:
        return False
    return True


def _first_lines(folder: Path) -> str:
    try:
        return (folder / "README.md").read_text(encoding="utf-8")[:200]
    except OSError:
        return ""


def write(folder: Path) -> None:
    """Build the model and write it to an existing empty folder.

    Parameters
    ----------
    folder : Path
        Receives ``model_index.json``, the five parts and a model card; about 22 MB.
    """
    from diffusers import ZImagePipeline

    tokenizer = make_tokenizer()
    pipeline = ZImagePipeline(
        scheduler=make_scheduler(),
        vae=_vae(),
        text_encoder=make_text_encoder(len(tokenizer), tokenizer.pad_token_id),
        tokenizer=tokenizer,
        transformer=_transformer(),
    )
    save(pipeline, folder)
    card = folder / "README.md"
    card.write_text(_card(), encoding="utf-8")
    for path in folder.rglob("*.safetensors"):
        # Written for the owner alone, where the rest follows the umask: a shared cache needs both.
        path.chmod(card.stat().st_mode)


def save(pipeline: Any, folder: Path) -> None:
    """Write a pipeline in Hugging Face layout, without what depends on library versions."""
    with _no_progress_bar():
        pipeline.save_pretrained(folder, safe_serialization=True)
    for path in sorted(folder.rglob("*.json")):
        _forget_versions(path)


def make_scheduler() -> Any:
    """The released Turbo model's schedule: a fixed shift.

    The pipeline passes ``mu`` all the same; without dynamic shifting the scheduler ignores it.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=False)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar over a file of a few megabytes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _forget_versions(path: Path) -> None:
    """Drop library versions from a saved config: they decide nothing and would change the model's digest."""
    data = json.loads(path.read_text(encoding="utf-8"))
    known = [key for key in ("_diffusers_version", "transformers_version") if data.pop(key, None)]
    if known:
        path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def make_tokenizer(extra_words: str = "") -> Any:
    """Byte-level BPE in Qwen's form: any text works, common words are one token each.

    Parameters
    ----------
    extra_words : str
        Further words that become one token, behind the model's own.
    """
    from transformers import AddedToken, Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    space = bytes_to_unicode()[ord(" ")]
    merges: dict[tuple[str, str], None] = {}
    # A word grows letter by letter from its leading space, so no count over a corpus is needed. Words
    # without a space come last: earlier, their pairs would break up the words that contain them.
    for word in [space + word for word in f"{_WORDS} {extra_words}".split()] + _BARE_WORDS.split():
        for end in range(1, len(word)):
            merges[word[:end], word[end]] = None
    pieces = [*bytes_to_unicode().values(), *("".join(pair) for pair in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=512,
    )
    # Added here rather than by name: releases of transformers do not agree on the key that holds such a list.
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True, normalized=False)])
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def make_text_encoder(num_tokens: int, pad_token_id: int, intermediate_size: int = 384) -> Any:
    """Qwen3 with random weights: features that depend on each word and on all before it."""
    from transformers import Qwen3Config, Qwen3Model

    from harness.models import nano_weights

    config = Qwen3Config(
        vocab_size=-(-num_tokens // 64) * 64,
        hidden_size=128,
        intermediate_size=intermediate_size,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        pad_token_id=pad_token_id,
        use_cache=False,
    )
    model = Qwen3Model(config)
    nano_weights.fill(model, "text_encoder", nano_weights.text_encoder)
    return model.eval()


def _transformer() -> Any:
    from diffusers import ZImageTransformer2DModel

    from harness.models import nano_weights

    model = ZImageTransformer2DModel(
        in_channels=16,
        dim=192,
        n_layers=4,
        n_refiner_layers=2,
        n_heads=NUM_HEADS,
        n_kv_heads=NUM_HEADS,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=128,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 12, 12],
        axes_lens=[1024, 512, 512],
    )
    nano_weights.fill(model, "transformer", nano_weights.transformer)
    return model.eval()


def _vae() -> Any:
    from diffusers import AutoencoderKL

    from harness.models import nano_weights

    channels = (8, 8, 16, 16)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=1024,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        force_upcast=True,
        use_quant_conv=False,
        use_post_quant_conv=False,
        # Attention over all latent pixels would cost more than the rest of the decoder.
        mid_block_add_attention=False,
    )
    nano_weights.fill(model, "vae", nano_weights.vae)
    return model.eval()


def _card() -> str:
    return f"""\
{_TITLE} (recipe {recipe()})

The architecture of Z-Image at dim 192 with
{NUM_HEADS} heads, 4 main layers and 2 + 2 refiner layers, a 3-layer Qwen3 text encoder and an
autoencoder with 16 latent channels and 8x compression. The weights are random numbers, laid out so that
attention is not flat and the picture depends on prompt, order and position; it was trained on nothing
and draws no objects. Built by `sp-harness models build nano-random`, the same bytes everywhere.

Licence: Apache-2.0, as sp-harness.
"""
