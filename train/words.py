"""Does the picture follow the prompt's every word? Words are exchanged one at a time, and the answer is counted.

For a scene and the same scene with one word changed, both prompts are drawn, and each picture is compared with
both scenes as the renderer paints them, where the two differ: it should be nearer to its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.models.z_image import load_pipeline
from harness.types import Device
from train import grammar, render
from train.grammar import Scene, Thing

SIZE_PX = (640, 368)
"""Width and height, unless another size is asked for."""
SKY_AND_GROUND = ("time", "ground", "light", "clouds")


def _other(rng: random.Random, known: Any, choices: Any) -> Any:
    return rng.choice([choice for choice in choices if choice != known])


def _changed(word: str) -> Callable[[random.Random, Scene], Scene]:
    """How one kind of word is exchanged in the first thing of a scene, or in what stands around it."""

    def of_thing(rng: random.Random, scene: Scene) -> Scene:
        first = scene.things[0]
        used = {thing.side for thing in scene.things}
        choices: dict[str, Any] = {
            "colour": [name for name in grammar.COLOURS if name not in ("grey", first.trim)],
            "kind": grammar.KINDS,
            "side": [side for side in grammar.SIDES if side not in used],
            "size": ("small", "large"),
            "trim": [name for name in grammar.COLOURS if name not in ("grey", first.colour)],
        }
        changed = replace(first, **{word: _other(rng, getattr(first, word), choices[word])})
        return replace(scene, things=(changed, *scene.things[1:]))

    def of_scene(rng: random.Random, scene: Scene) -> Scene:
        choices: dict[str, Any] = {
            "time": grammar.TIMES, "ground": grammar.GROUNDS, "light": ("left", "right"), "clouds": (True, False),
        }  # fmt: skip
        return replace(scene, **{word: _other(rng, getattr(scene, word), choices[word])})

    return of_scene if word in SKY_AND_GROUND else of_thing


WORDS = {word: _changed(word) for word in ("colour", "kind", "side", "size", "trim", *SKY_AND_GROUND)}


def scene(rng: random.Random) -> Scene:
    """Two things on two of three sides, all words said, no jitter."""
    sides = rng.sample(list(grammar.SIDES), 2)
    colours = rng.sample([name for name in grammar.COLOURS if name != "grey"], 2)
    kinds = rng.sample(grammar.KINDS, 2)
    things = tuple(
        Thing(kind, colour, side, _other(rng, colour, [name for name in grammar.COLOURS if name != "grey"]), "large")
        for kind, colour, side in zip(kinds, colours, sides, strict=True)
    )
    return Scene(things, rng.choice(list(grammar.GROUNDS)), rng.choice(list(grammar.TIMES)))


def count(
    checkpoint: Path, device: Device, steps: int, scenes: int, seed: int = 0, size: tuple[int, int] = SIZE_PX
) -> dict[str, float]:
    """Share of pictures that are nearer to their own scene than to the one with another word, by kind of word.

    Parameters
    ----------
    checkpoint : Path
        Folder in Hugging Face layout.
    device : {"cpu", "cuda"}
        Where to draw.
    steps : int
        Denoise steps.
    scenes : int
        Scenes of which each word is exchanged.
    seed : int
        Of the scenes.
    size : tuple of int
        Width and height in pixels.
    """
    pipeline = load_pipeline(str(checkpoint), "float32", device)
    right = dict.fromkeys(WORDS, 0)
    for number in range(scenes):
        rng = random.Random(f"{seed}/words/{number}")
        one = scene(rng)
        drawn = _drawn(pipeline, one, rng, steps, size)
        for word, change in WORDS.items():
            other = change(rng, one)
            pictures = (drawn, _drawn(pipeline, other, rng, steps, size))
            painted = [render.render([each], *size)[0] for each in (one, other)]
            where = (painted[0] - painted[1]).abs().amax(dim=0) > 0.1
            for index, picture in enumerate(pictures):
                far = [float((picture - each)[:, where].pow(2).mean()) for each in painted]
                right[word] += far[index] < far[1 - index]
    return {word: found / (2 * scenes) for word, found in right.items()}


def _drawn(pipeline: Any, scene: Scene, rng: random.Random, steps: int, size: tuple[int, int]) -> Tensor:
    import numpy as np

    picture = pipeline(
        prompt=grammar.describe(scene, rng), width=size[0], height=size[1], num_inference_steps=steps,
        guidance_scale=0.0, generator=torch.Generator("cpu").manual_seed(0),
    ).images[0]  # fmt: skip
    return torch.from_numpy(np.asarray(picture).astype("float32")).permute(2, 0, 1) / 127.5 - 1
