"""The objects: each unlike its mirror image and unlike itself upside down, so that a flip shows.

Coordinates are the object's own: ``u`` to the right from its middle, ``v`` up from the ground, one unit is
half the width of an ordinary object. A distance is negative inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

REACH = (1.8, 3.5, 1.8, 0.4)
"""How far an object and its shadow reach to the left, up, right and down, in units."""

Point = tuple[float, float]


def cover(distance: Tensor, pixel: Tensor | float) -> Tensor:
    """Share of each pixel that lies inside: an edge one pixel wide."""
    return (0.5 - distance / pixel).clamp(0, 1)


class Brush:
    """Paints parts of objects over a patch of the picture.

    Parameters
    ----------
    patch : Tensor
        ``B,3,H,W``, what is there already.
    u, v : Tensor
        ``B,H,W`` places of pixels in units of the object.
    pixel : Tensor
        ``B,1,1`` size of a pixel in units.
    colour, trim, lit : Tensor
        ``B,3,1,1`` the two colours under the scene's light, and that light.
    shine : Tensor
        ``B,1,1``, 1 if the light comes from the left and -1 if from the right.
    """

    def __init__(
        self,
        patch: Tensor,
        u: Tensor,
        v: Tensor,
        pixel: Tensor,
        colour: Tensor,
        trim: Tensor,
        lit: Tensor,
        shine: Tensor,
    ) -> None:
        self.patch, self.u, self.v, self.pixel = patch, u, v, pixel
        self.colour, self.trim, self.lit, self.shine = colour, trim, lit, shine

    def fill(self, distance: Tensor, colour: Tensor, share: Tensor | float = 1.0) -> None:
        """Paint what lies inside, a little brighter on the side of the light."""
        shaded = colour * (1 - 0.16 * self.shine * self.u)[:, None]
        self.patch = self.patch + (shaded - self.patch) * (cover(distance, self.pixel) * share)[:, None]

    def circle(self, u: float, v: float, radius: float) -> Tensor:
        """Distance to a circle."""
        return torch.hypot(self.u - u, self.v - v) - radius

    def box(self, u: float, v: float, half_width: float, half_height: float) -> Tensor:
        """Distance to an upright rectangle."""
        return torch.maximum((self.u - u).abs() - half_width, (self.v - v).abs() - half_height)

    def polygon(self, points: Sequence[Point]) -> Tensor:
        """Distance to a convex polygon whose corners run counter-clockwise."""
        distance: Tensor | None = None
        for (u0, v0), (u1, v1) in zip(points, [*points[1:], points[0]], strict=True):
            length = ((u1 - u0) ** 2 + (v1 - v0) ** 2) ** 0.5
            side: Tensor = ((self.u - u0) * (v1 - v0) - (self.v - v0) * (u1 - u0)) / length
            distance = side if distance is None else torch.maximum(distance, side)
        assert distance is not None
        return distance

    def grey(self, level: float) -> Tensor:
        """A grey under the scene's light."""
        return self.lit * level


def shadow(b: Brush) -> None:
    """On the ground, away from the light."""
    distance = ((b.u - 0.45 * b.shine) / 1.25) ** 2 + ((b.v - 0.02) / 0.2) ** 2
    b.patch = b.patch * (1 - 0.5 * (1.3 - distance).clamp(0, 1))[:, None]


def ball(b: Brush) -> None:
    """Shaded, with a slanting stripe and a highlight towards the light."""
    body = b.circle(0, 1, 1)
    dark = torch.hypot(b.u + 0.4 * b.shine, b.v - 1.4).clamp(max=2)
    b.fill(body, b.colour * (1.08 - 0.3 * dark)[:, None])
    b.fill(torch.maximum(body, (b.v - 1 - 0.45 * b.u).abs() - 0.16), b.trim * (1.05 - 0.25 * dark)[:, None])
    b.fill(torch.hypot(b.u + 0.4 * b.shine, b.v - 1.45) - 0.17, b.grey(1.05), 0.8)


def ring(b: Brush) -> None:
    """Upright, with a stone at its upper right."""
    b.fill((torch.hypot(b.u, b.v - 1) - 0.74).abs() - 0.24, b.colour)
    b.fill(b.circle(0.53, 1.53, 0.33), b.trim)


def cone(b: Brush) -> None:
    """Darker to the right, with a stripe low down."""
    body = b.polygon([(-0.95, 0), (0.95, 0), (0, 2.4)])
    b.fill(body, b.colour)
    b.fill(torch.maximum(body, (b.v - 0.65).abs() - 0.18), b.trim)
    b.fill(b.polygon([(0.35, 0), (0.95, 0), (0, 2.4)]), b.colour * 0.0, 0.3)


def cube(b: Brush) -> None:
    """Seen from the upper right, with a spot at the upper left of its front."""
    b.fill(b.box(-0.2, 0.75, 0.75, 0.75), b.colour)
    b.fill(b.polygon([(-0.95, 1.5), (0.55, 1.5), (1.0, 1.95), (-0.5, 1.95)]), b.colour * 0.7 + b.grey(0.3))
    b.fill(b.polygon([(0.55, 0), (1.0, 0.45), (1.0, 1.95), (0.55, 1.5)]), b.colour * 0.6)
    b.fill(b.circle(-0.5, 1.05, 0.25), b.trim)


def house(b: Brush) -> None:
    """Chimney right, door left."""
    b.fill(b.box(0.58, 1.9, 0.15, 0.5), b.grey(0.35))
    b.fill(b.box(0, 0.65, 0.9, 0.65), b.colour)
    b.fill(b.polygon([(-1.15, 1.28), (1.15, 1.28), (0, 2.25)]), b.colour * 0.5 + b.grey(0.06))
    b.fill(b.box(-0.42, 0.42, 0.24, 0.42), b.trim)
    b.fill(b.box(0.42, 0.72, 0.2, 0.2), b.grey(0.2))


def tower(b: Brush) -> None:
    """Tall, darker to the right, a flag that flies to the right."""
    b.fill(b.box(0, 1.25, 0.5, 1.25), b.colour)
    for u in (-0.37, 0.0, 0.37):
        b.fill(b.box(u, 2.55, 0.13, 0.2), b.colour)
    b.fill(b.box(0.34, 1.35, 0.16, 1.35), b.colour * 0.55)
    b.fill(b.box(-0.18, 0.3, 0.16, 0.3), b.grey(0.15))
    b.fill(b.box(-0.05, 2.95, 0.05, 0.45), b.grey(0.3))
    b.fill(b.polygon([(0, 2.85), (0.8, 3.1), (0, 3.38)]), b.trim)


def boat(b: Brush) -> None:
    """Bow right, the sail behind the mast, a flag at the mast's top."""
    b.fill(b.polygon([(-0.75, 0), (0.7, 0), (1.25, 0.62), (-1.05, 0.62)]), b.colour)
    b.fill(b.box(-0.1, 1.5, 0.06, 0.95), b.grey(0.3))
    b.fill(b.polygon([(0.02, 0.82), (1.0, 0.82), (0.02, 2.3)]), b.trim)
    b.fill(b.polygon([(-0.12, 2.05), (-0.12, 2.48), (-0.7, 2.27)]), b.colour)


def arrow(b: Brush) -> None:
    """On a post, pointing right."""
    b.fill(b.box(-0.2, 0.5, 0.07, 0.5), b.grey(0.3))
    b.fill(b.box(-0.3, 1.35, 0.75, 0.26), b.colour)
    b.fill(b.polygon([(0.3, 0.65), (1.2, 1.35), (0.3, 2.05)]), b.colour)
    b.fill(b.box(-0.92, 1.35, 0.16, 0.42), b.trim)


def tree(b: Brush) -> None:
    """A crown heavier to the right, with one fruit."""
    b.fill(b.box(-0.05, 0.45, 0.15, 0.5), b.lit * torch.tensor([0.42, 0.26, 0.14], device=b.u.device)[:, None, None])
    for u, v, radius in ((-0.3, 1.3, 0.55), (0.35, 1.25, 0.7), (-0.05, 1.95, 0.55)):
        b.fill(b.circle(u, v, radius), b.colour)
    b.fill(b.circle(0.5, 1.15, 0.24), b.trim)


def bridge(b: Brush) -> None:
    """An arch, a rail on top, a post at its left end."""
    body = torch.maximum(b.box(0, 0.55, 1.25, 0.55), -b.circle(0.1, 0.0, 0.78))
    b.fill(b.box(-1.08, 1.3, 0.17, 0.5), b.colour * 0.6)
    b.fill(body, b.colour)
    b.fill(b.box(0, 1.16, 1.25, 0.1), b.trim)


PAINT: dict[str, Callable[[Brush], None]] = {
    painter.__name__: painter for painter in (ball, ring, cone, cube, house, tower, boat, arrow, tree, bridge)
}
