"""Caption lengths in tokens, from the tokenizer in the model's folder alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from harness.models import full_size, nano
from harness.types import ModelSpec

MAX_TOKENS = 512
"""Where the Z-Image pipeline cuts a caption off."""

CountTokens = Callable[[str], int]


def counter(model: ModelSpec) -> CountTokens:
    """Return what counts the caption tokens of a prompt, pads left out.

    The prompt is put into the chat template as the pipeline does. The model ``fake`` has no files: its
    captions have one token a word.
    """
    return _words if not model.path else _tokenizer(model.path)


def _words(prompt: str) -> int:
    return len(prompt.split())


@cache
def _tokenizer(folder: str) -> CountTokens:
    tokenizer = _load(folder)

    @cache
    def count(prompt: str) -> int:
        chat = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=True)
        return min(len(tokenizer(text).input_ids), MAX_TOKENS)

    return count


def _load(folder: str) -> Any:
    if folder == full_size.PATH:
        return nano.make_tokenizer()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(Path(folder) / "tokenizer", local_files_only=True)
