"""From training states to the folder that is shipped: Hugging Face layout, float16."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from harness.models import nano
from train import text
from train.dit import Painter


def write(painter: Painter, autoencoder: Any, folder: Path) -> None:
    """Write a checkpoint that plain ``ZImagePipeline.from_pretrained`` loads.

    Parameters
    ----------
    painter, autoencoder : torch.nn.Module
        The averaged weights; they are copied, not changed.
    folder : Path
        Receives ``model_index.json`` and the five parts.
    """
    from diffusers import ZImagePipeline

    networks = (painter.text_encoder, painter.transformer, autoencoder)
    parts = [copy.deepcopy(network).cpu().half().eval() for network in networks]
    pipeline = ZImagePipeline(
        scheduler=nano.make_scheduler(),
        vae=parts[2],
        text_encoder=parts[0],
        tokenizer=text.tokenizer(),
        transformer=parts[1],
    )
    nano.save(pipeline, folder)
