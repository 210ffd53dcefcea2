"""Prompts to caption features, exactly as the pipeline does it: chat template, then ``hidden_states[-2]``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from harness.models import nano
from train import grammar
from train.grammar import Scene

BUCKET = 32
"""Captions are padded to a multiple of this many tokens."""


@cache
def tokenizer() -> Any:
    """The embedded model's tokenizer with the grammar's words."""
    return nano.make_tokenizer(grammar.EXTRA_WORDS)


def build_encoder() -> Any:
    """The encoder as training finds it; its random weights depend on nothing but the number of words."""
    return nano.make_text_encoder(len(tokenizer()), tokenizer().pad_token_id, intermediate_size=256)


def token_ids(prompt: str) -> list[int]:
    """Tokens of a prompt inside the chat template."""
    chat = tokenizer().apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return list(tokenizer()(chat).input_ids)


def prompt_in_bucket(rng: random.Random, bucket: int, kinds: Sequence[str] = grammar.KINDS) -> tuple[Scene, list[int]]:
    """A scene and the tokens of a prompt for it that fill between ``bucket - 31`` and ``bucket`` tokens."""
    for _ in range(200):
        scene = grammar.sample(rng, kinds)
        words = 0 if bucket <= BUCKET else rng.randint(bucket - BUCKET - 8, bucket - 14)
        ids = token_ids(grammar.describe(scene, rng, words))
        if bucket - BUCKET < len(ids) <= bucket:
            return scene, ids
    raise ValueError(f"the grammar has no prompt of {bucket - BUCKET + 1} to {bucket} tokens")


def padded(all_ids: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
    """Token ids ``B,length`` and the number of real ones ``B``."""
    pad = tokenizer().pad_token_id
    rows = [[*ids, *[pad] * (length - len(ids))] for ids in all_ids]
    return torch.tensor(rows), torch.tensor([len(ids) for ids in all_ids])


def features(encoder: Any, ids: Tensor, lengths: Tensor) -> Tensor:
    """Caption features ``B,L,128``; what stands behind the real tokens is for the caller to replace."""
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    hidden: Tensor = encoder(input_ids=ids, attention_mask=real, output_hidden_states=True).hidden_states[-2]
    return hidden
