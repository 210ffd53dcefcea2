"""Scenes to pixels: torch alone, batched, antialiased by signed distances, the same layout at every size.

Places are fractions of the picture, so that one prompt means the same at 1280x720, 720x1280 and 128x96.
Objects are painted inside windows around them, all objects of a kind at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from train import shapes
from train.grammar import COLOURS, GROUNDS, KINDS, SIDES, SIZES, TIMES, Scene

HORIZON = 0.5
JITTER = (0.010, 0.006, 0.03)
"""What one standard deviation of a scene's jitter moves: across, down (of the picture), size (relative)."""

KINDS_PER_BATCH = 4
"""Objects of one kind are painted at once: a batch of few kinds takes few and large operations."""

_DEPTH = ((0.60, 0.93, 1.1), (0.34, 0.82, 1.0), (0.70, 0.70, 0.8))
"""Place across, place down and size of things that stand one in front of the other."""


def unit_px(width: int, height: int) -> float:
    """Half the width of an object of middle size, in pixels."""
    return min(0.125 * width, 0.165 * height)


def place(scene: Scene, index: int, width: int, height: int) -> tuple[float, float, float]:
    """Where a thing stands (pixels right, pixels down) and its unit in pixels."""
    thing = scene.things[index]
    across, down, size = (SIDES[thing.side], 0.84, 1.0) if not scene.depth else _DEPTH[index]
    jitter = [value * scale for value, scale in zip(scene.jitter[index], JITTER, strict=True)]
    unit = unit_px(width, height) * size * SIZES[thing.size] * (1 + jitter[2])
    return (across + jitter[0]) * width, (down + jitter[1]) * height, unit


def render(scenes: Sequence[Scene], width: int, height: int, device: str | torch.device = "cpu") -> Tensor:
    """Paint scenes.

    Returns
    -------
    Tensor
        ``B,3,H,W`` float32 between -1 and 1.
    """
    return layers(scenes, width, height, device)[0]


def layers(
    scenes: Sequence[Scene], width: int, height: int, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """Paint scenes, and say where their things are.

    Returns
    -------
    pixels : Tensor
        ``B,3,H,W`` float32 between -1 and 1.
    things : Tensor
        ``B,1,H,W``, 1 where a thing or its shadow has been painted and 0 elsewhere.
    """
    times = torch.tensor([TIMES[scene.time] for scene in scenes], device=device)
    light = torch.tensor([1.0 if scene.light == "left" else -1.0 for scene in scenes], device=device)
    canvas = _background(scenes, times, light, width, height)
    empty = canvas.clone()
    for slot in (2, 1, 0):
        for kind in KINDS:
            rows = [i for i, s in enumerate(scenes) if len(s.things) > slot and s.things[slot].kind == kind]
            if rows:
                _paint(canvas, scenes, rows, slot, times[:, 2], light)
    things = (canvas != empty).any(dim=1, keepdim=True).float()
    return canvas.clamp_(0, 1).mul_(2).sub_(1), things


def _grid(width: int, height: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of pixels: ``W`` across and ``H,1`` down, in pixels."""
    across = torch.arange(width, device=device) + 0.5
    return across, (torch.arange(height, device=device) + 0.5)[:, None]


def _background(scenes: Sequence[Scene], times: Tensor, light: Tensor, width: int, height: int) -> Tensor:
    """Sky, sun or moon, clouds and the tiled ground: ``B,3,H,W``."""
    device = times.device
    x, y = _grid(width, height, device)
    across, down = x / width, y / height
    top, low, ambient, lamp = (colour[:, :, None, None] for colour in times.unbind(1))
    sky = top + (low - top) * (down / HORIZON).clamp(max=1) ** 1.4
    side = torch.where(light > 0, 0.14, 0.86)[:, None, None]
    disc = shapes.cover(torch.hypot(x - side * width, y - 0.13 * height) - 0.05 * min(width, height), 1.0)
    sky = sky + (lamp - sky) * disc[:, None]
    sky = _clouds(sky, scenes, across, down)
    ground = _ground([scene.ground for scene in scenes], x, y, width, height) * ambient
    below = ((y - HORIZON * height) + 0.5).clamp(0, 1)
    canvas = sky + (ground - sky) * below
    # One gradient over the whole picture: brighter towards the light.
    return canvas * (1 + 0.3 * light[:, None, None, None] * (0.5 - across))


def _clouds(sky: Tensor, scenes: Sequence[Scene], across: Tensor, down: Tensor) -> Tensor:
    places = torch.tensor([scene.cloud_places for scene in scenes], device=sky.device)
    shown = torch.tensor([0.6 * scene.clouds for scene in scenes], device=sky.device)
    for cloud in range(places.shape[1]):
        cx, cy = (0.1 + 0.8 * places[:, cloud, 0])[:, None, None], (0.12 + 0.2 * places[:, cloud, 1])[:, None, None]
        distance = ((across - cx) / 0.13) ** 2 + ((down - cy) / 0.045) ** 2
        cover = (1.3 - distance).clamp(0, 1) * shown[:, None, None]
        sky = sky + (0.35 + 0.65 * sky.amax(dim=1, keepdim=True) - sky) * cover[:, None]
    return sky


def _ground(names: Sequence[str], x: Tensor, y: Tensor, width: int, height: int) -> Tensor:
    """A checkerboard in perspective; cells too small to be drawn melt into their mean."""
    bright, dark = (
        torch.tensor([GROUNDS[name][i] for name in names], device=x.device)[:, :, None, None] for i in (0, 1)
    )
    near = ((y / height - HORIZON) / (1 - HORIZON)).clamp(min=1e-3)
    side = min(width, height)
    cells_x, step_x = 5.0 * (x - width / 2) / side / near, 5.0 / side / near
    cells_z, step_z = 1.7 / near, 1.7 / near**2 / (height * (1 - HORIZON))
    # A sine over its slope at the pixel is an edge one pixel wide.
    wave_x = (torch.sin(math.pi * cells_x) / (math.pi * step_x)).clamp(-1, 1)
    wave_z = (torch.sin(math.pi * cells_z) / (math.pi * step_z)).clamp(-1, 1)
    seen = (1.7 - 0.055 / near**2).clamp(0, 1)
    mix = 0.5 + 0.5 * wave_x * wave_z * seen
    return dark + (bright - dark) * mix


def _paint(canvas: Tensor, scenes: Sequence[Scene], rows: list[int], slot: int, ambient: Tensor, light: Tensor) -> None:
    """Paint one thing into each of some rows, all of one kind, inside windows of a common size."""
    height, width = canvas.shape[-2:]
    device = canvas.device
    things = [scenes[row].things[slot] for row in rows]
    places = [place(scenes[row], slot, width, height) for row in rows]
    largest = max(unit for _, _, unit in places)
    cx, base, unit = torch.tensor(places, device=device).T[:, :, None, None]
    left, up, right, down = shapes.REACH
    ix = (cx - left * unit).long() + torch.arange(math.ceil((left + right) * largest) + 1, device=device)
    iy = (base - up * unit).long() + torch.arange(math.ceil((up + down) * largest) + 1, device=device)[:, None]
    # Indices past the border are moved onto it: such pixels are painted several times, and alike.
    ix, iy = ix.clamp(0, width - 1), iy.clamp(0, height - 1)
    index = torch.tensor(rows, device=device)
    where = (index[:, None, None], slice(None), iy, ix)
    patch = canvas[where].permute(0, 3, 1, 2)
    u, v = (ix + 0.5 - cx) / unit, (base - iy - 0.5) / unit
    shine = light[index, None, None]
    lit = ambient[index] * 0.92
    colour, trim = (
        (torch.tensor([COLOURS[getattr(thing, part)] for thing in things], device=device) * lit)[:, :, None, None]
        for part in ("colour", "trim")
    )
    brush = shapes.Brush(patch, u, v, 1 / unit, colour, trim, lit[:, :, None, None], shine)
    shapes.shadow(brush)
    shapes.PAINT[things[0].kind](brush)
    canvas[where] = brush.patch.permute(0, 2, 3, 1)
