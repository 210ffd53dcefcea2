"""Scenes and the sentences that describe them: a written grammar and a seed, nothing else.

Whatever a picture shows is said in its prompt, or is the default of a word that is missing: what the
prompt leaves open is only a small jitter of place and size, and where clouds stand. That is what lets a
small model draw sharp pictures in few steps, and makes each word of the prompt count.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.13),
    "green": (0.12, 0.62, 0.22),
    "blue": (0.13, 0.28, 0.88),
    "yellow": (0.97, 0.84, 0.10),
    "purple": (0.55, 0.16, 0.72),
    "orange": (0.98, 0.50, 0.07),
    "white": (0.96, 0.96, 0.96),
    "black": (0.08, 0.08, 0.09),
    "pink": (0.98, 0.55, 0.72),
    "grey": (0.55, 0.56, 0.58),
}
"""Of objects and trims; ``grey`` is what an object is whose colour the prompt does not say."""

KINDS = ("ball", "ring", "cone", "cube", "house", "tower", "boat", "arrow", "tree", "bridge")
SIDES = {"left": 0.20, "middle": 0.50, "right": 0.80}
SIZES = {"small": 0.72, "": 1.0, "large": 1.28}
GROUNDS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "tiles": ((0.90, 0.88, 0.84), (0.34, 0.33, 0.36)),
    "grass": ((0.45, 0.72, 0.25), (0.20, 0.47, 0.14)),
    "water": ((0.35, 0.66, 0.86), (0.12, 0.38, 0.66)),
    "wood": ((0.80, 0.58, 0.34), (0.52, 0.33, 0.17)),
    "snow": ((0.97, 0.98, 1.00), (0.72, 0.79, 0.90)),
    "stone": ((0.66, 0.62, 0.56), (0.44, 0.42, 0.40)),
}
TIMES: dict[str, tuple[tuple[float, float, float], ...]] = {
    # top of the sky, sky at the horizon, light on everything below, sun or moon
    "day": ((0.16, 0.42, 0.90), (0.78, 0.90, 1.00), (1.00, 1.00, 1.00), (1.00, 0.98, 0.80)),
    "night": ((0.02, 0.03, 0.12), (0.13, 0.17, 0.40), (0.58, 0.62, 0.76), (0.93, 0.94, 0.88)),
    "morning": ((0.42, 0.62, 0.90), (1.00, 0.80, 0.78), (0.98, 0.92, 0.88), (1.00, 0.92, 0.72)),
    "evening": ((0.28, 0.15, 0.42), (1.00, 0.52, 0.20), (0.90, 0.68, 0.54), (1.00, 0.76, 0.36)),
}
EXTRA_WORDS = "trim grass middle sides falls stands clear scene shown"
"""Words of the grammar that the tokenizer of the random model does not hold as one token."""


@dataclass(frozen=True)
class Thing:
    """An object: what it is and where it stands."""

    kind: str
    colour: str
    side: str
    trim: str = "white"
    size: str = ""


@dataclass(frozen=True)
class Scene:
    """A picture in words. ``depth``: the things stand one behind the other, the first in front."""

    things: tuple[Thing, ...]
    ground: str = "tiles"
    time: str = "day"
    light: str = "left"
    clouds: bool = False
    depth: bool = False
    jitter: tuple[tuple[float, float, float], ...] = field(default=((0.0, 0.0, 0.0),) * 3)
    """For each thing: place across, place down, size; normal numbers."""
    cloud_places: tuple[tuple[float, float], ...] = ((0.2, 0.2), (0.5, 0.3), (0.8, 0.15))


def default_trim(colour: str) -> str:
    """Trim of an object whose prompt names none."""
    return "black" if colour == "white" else "white"


def sample(rng: random.Random, kinds: Sequence[str] = KINDS) -> Scene:
    """Draw a scene: one to three things of some kinds on different sides, everything else by chance."""
    count = rng.choices((1, 2, 3), (2, 5, 4))[0]
    depth = count > 1 and rng.random() < 0.08
    sides = rng.sample(list(SIDES), count)
    things = []
    for side in sides:
        colour = "grey" if rng.random() < 0.08 else rng.choice([name for name in COLOURS if name != "grey"])
        trim = default_trim(colour)
        if rng.random() < 0.4:
            trim = rng.choice([name for name in COLOURS if name not in ("grey", colour)])
        size = rng.choices(list(SIZES), (1, 3, 1))[0]
        things.append(Thing(rng.choice(kinds), colour, side, trim, size))
    return Scene(
        tuple(things),
        rng.choice(list(GROUNDS)) if rng.random() < 0.8 else "tiles",
        rng.choice(list(TIMES)),
        rng.choice(("left", "right")) if rng.random() < 0.6 else "left",
        rng.random() < 0.3,
        depth,
        tuple((rng.gauss(0, 1), rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(3)),
        tuple((rng.random(), rng.random()) for _ in range(3)),
    )


# ---------------------------------------------------------------- sentences


def name(thing: Thing) -> str:
    """``a small red house with blue trim``."""
    words = ["a", thing.size, "" if thing.colour == "grey" else thing.colour, thing.kind]
    if thing.trim != default_trim(thing.colour):
        words.append(f"with {thing.trim} trim")
    return " ".join(word for word in words if word)


def _placed(thing: Thing, rng: random.Random, terse: bool) -> str:
    forms = [f"{name(thing)} {thing.side}"] if thing.side != "middle" else [f"{name(thing)} in the middle"]
    if not terse:
        at = "in" if thing.side == "middle" else rng.choice(("on", "at"))
        forms = [f"{name(thing)} {at} the {thing.side}", f"{name(thing)} {at} the {thing.side}", forms[0]]
    return rng.choice(forms)


def _things(scene: Scene, rng: random.Random, terse: bool) -> str:
    things = scene.things
    if scene.depth:
        text = f"{name(things[0])} in front of {name(things[1])}"
        return text if len(things) == 2 else f"{text}, {name(things[2])} behind it"
    sides = [thing.side for thing in things]
    if sides == ["left", "right"] and rng.random() < 0.3:
        return f"{name(things[0])} left of {name(things[1])}"
    if sides == ["right", "left"] and rng.random() < 0.3:
        return f"{name(things[0])} right of {name(things[1])}"
    parts = [_placed(thing, rng, terse) for thing in things]
    if len(parts) == 3 and sides[2] == "middle" and rng.random() < 0.5:
        parts[2] = f"{name(things[2])} between the two"
    if rng.random() < 0.35:
        return ", ".join(parts)
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else parts[0]


def _where_and_when(scene: Scene, rng: random.Random) -> str:
    ground, time = scene.ground, scene.time
    text = rng.choice(
        (f" on {ground} at {time}", f" on {ground} at {time}", f", {ground}, {time}", f", {ground}, {time} light")
    )
    if ground == "tiles" and rng.random() < 0.3:
        text = rng.choice((f" at {time}", f", {time}"))
    elif time == "day" and rng.random() < 0.3:
        text = rng.choice((f" on {ground}", f", {ground}"))
    if scene.light == "right" or rng.random() < 0.2:
        lamp = "moon" if time == "night" else "sun"
        text += rng.choice((f", {lamp} {scene.light}", f", the {lamp} on the {scene.light}"))
    if scene.clouds:
        text += rng.choice((", clouds", ", clouds in the sky"))
    return text


def _facts(scene: Scene, rng: random.Random) -> list[str]:
    """What may be said again, in full sentences and any order: this is how captions grow long."""
    lamp = "moon" if scene.time == "night" else "sun"
    facts = [
        f"the ground is {scene.ground}",
        f"it is {scene.time}",
        f"the light falls from the {scene.light}",
        f"the {lamp} stands on the {scene.light} of the sky",
        "there are clouds in the sky" if scene.clouds else "the sky is clear",
    ]
    for thing in scene.things:
        facts.append(f"the {thing.kind} has {thing.trim} trim")
        if thing.colour != "grey":
            facts.append(f"the {thing.kind} is {thing.colour}")
        if thing.size:
            facts.append(f"the {thing.colour} {thing.kind} is {thing.size}")
        if not scene.depth:
            at = "in" if thing.side == "middle" else "on"
            facts.append(f"the {thing.colour} {thing.kind} is {at} the {thing.side}")
            facts.append(f"{at} the {thing.side} stands {name(thing)}")
    rng.shuffle(facts)
    return facts


def describe(scene: Scene, rng: random.Random, words: int = 0) -> str:
    """Say a scene in at least ``words`` words, where there is so much to say.

    Parameters
    ----------
    scene : Scene
        What to say.
    rng : random.Random
        Chooses among equal ways to say it.
    words : int
        Facts are said again in further sentences until the prompt is as long as this.
    """
    text = _things(scene, rng, terse=words == 0) + _where_and_when(scene, rng)
    if words and rng.random() < 0.3:
        text = rng.choice(("a painting of ", "a picture of ", "a photograph with ")) + text
    facts = _facts(scene, rng) if words else []
    while facts and len(text.replace(",", " ,").split()) < words:
        text += rng.choice((", ", ", ", ". ")) + facts.pop()
    return text
