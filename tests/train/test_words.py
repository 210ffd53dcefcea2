"""Exchanging one word changes one thing, and the shipped model follows it."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from harness import models
from harness.models.z_image import load_pipeline
from train import grammar, render, words
from train.grammar import COLOURS, Scene, Thing

WIDTH, HEIGHT = 480, 272


@pytest.mark.parametrize("word", words.WORDS)
def test_one_word_is_exchanged_and_it_shows(word: str) -> None:
    rng = random.Random(word)
    one = words.scene(rng)
    other = words.WORDS[word](rng, one)
    said, changed = (
        [(t.kind, t.colour, t.side, t.size, t.trim) for t in each.things] + [each.time, each.ground, each.light]
        for each in (one, other)
    )
    assert said != changed or one.clouds != other.clouds
    assert said[1] == changed[1], "the second thing stays as it is"
    pictures = [render.render([each], 160, 96) for each in (one, other)]
    assert float((pictures[0] - pictures[1]).abs().max()) > 0.1


def test_the_shipped_model_follows_every_kind_of_word() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = words.count(models.SHIPPED, "cpu", steps=4, scenes=1)
    finally:
        torch.set_num_threads(threads)
    # Counted over 12 scenes all are at 96 % and above but clouds, whose places no word says (docs/model/README.md).
    wrong = [word for word, share in found.items() if share < 1 and word != "clouds"]
    assert not wrong


@pytest.fixture(scope="module")
def painted() -> dict[str, Any]:
    """What a cube of each colour looks like to the renderer, where it has no trim."""
    return {name: _middle(_rendered(name)) for name in COLOURS}


@pytest.mark.parametrize("colour", [name for name in COLOURS if name != "grey"])
def test_the_shipped_model_knows_its_colours(painted: dict[str, Any], colour: str) -> None:
    pipeline = load_pipeline(str(models.SHIPPED), "float32", "cpu")
    drawn = pipeline(
        prompt=f"a {colour} cube left on tiles at day", width=WIDTH, height=HEIGHT, num_inference_steps=4,
        guidance_scale=0.0, generator=torch.Generator().manual_seed(0),
    ).images[0]  # fmt: skip
    seen = _middle(np.asarray(drawn) / 255)
    assert min(painted, key=lambda name: np.abs(painted[name] - seen).sum()) == colour


def _rendered(colour: str) -> Any:
    scene = Scene((Thing("cube", colour, "left", grammar.default_trim(colour)),))
    return (render.render([scene], WIDTH, HEIGHT)[0].permute(1, 2, 0).numpy() + 1) / 2


def _middle(picture: Any) -> Any:
    """Mean colour of the lower front of a thing on the left."""
    x, y, unit = render.place(Scene((Thing("cube", "red", "left"),)), 0, WIDTH, HEIGHT)
    rows = slice(round(y - 0.45 * unit), round(y - 0.15 * unit))
    return picture[rows, round(x - 0.5 * unit) : round(x + 0.5 * unit)].mean((0, 1))
