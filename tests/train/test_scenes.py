"""Scenes: the same from the same seed, and the picture shows what the prompt says."""

import random

import pytest

from train import grammar, render, text
from train.grammar import COLOURS, KINDS, SIDES, Scene, Thing

SIZES = ((320, 176), (176, 320), (208, 208))


def middle(scene: Scene, width: int, height: int, up: float = 0.9) -> list[float]:
    """Colour of the picture inside its first thing, ``up`` units above the ground."""
    picture = render.render([scene], width, height)[0]
    x, y, unit = render.place(scene, 0, width, height)
    return ((picture[:, round(y - up * unit), round(x)] + 1) / 2).tolist()


def test_the_same_seed_draws_the_same_picture() -> None:
    scenes = [[grammar.sample(random.Random(3)) for _ in range(2)] for _ in range(2)]
    assert scenes[0] == scenes[1]
    assert render.render(scenes[0], 96, 64).equal(render.render(scenes[1], 96, 64))


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_a_thing_stands_on_its_side_in_its_colour(width: int, height: int, side: str, colour: str) -> None:
    seen = middle(Scene((Thing("cube", colour, side),)), width, height, up=0.4)
    said = COLOURS[colour]
    assert seen.index(max(seen)) == said.index(max(said))
    assert max(abs(a - b) for a, b in zip(seen, said, strict=True)) < 0.25


def test_night_is_darker_and_light_comes_from_its_side() -> None:
    day, night = (render.render([Scene((), time=time)], 96, 64) for time in ("day", "night"))
    assert float(night.mean()) < float(day.mean()) - 0.4
    left, right = (render.render([Scene((), light=light)], 96, 64) for light in ("left", "right"))
    assert float(left[..., :20].mean()) > float(right[..., :20].mean()) + 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_differs_from_its_mirror_images(kind: str) -> None:
    picture = render.render([Scene((Thing(kind, "red", "middle"),))], 160, 160)
    nothing = render.render([Scene(())], 160, 160)
    thing = (picture - nothing).abs().sum(dim=1)[0]
    assert float((thing - thing.flip(1)).abs().max()) > 0.5
    assert float((thing - thing.flip(0)).abs().max()) > 0.5


@pytest.mark.parametrize("bucket", [32, 64, 96, 128])
def test_prompts_fill_every_bucket(bucket: int) -> None:
    rng = random.Random(bucket)
    for _ in range(5):
        scene, ids = text.prompt_in_bucket(rng, bucket)
        assert bucket - 32 < len(ids) <= bucket
        assert scene.things


def test_a_prompt_says_what_differs_from_the_usual() -> None:
    scene = Scene((Thing("house", "red", "right", "blue", "small"),), ground="snow", time="night", light="right")
    said = grammar.describe(scene, random.Random(0))
    for word in ("house", "red", "right", "blue trim", "small", "snow", "night", "moon"):
        assert word in said
