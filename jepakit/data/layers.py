"""Textured surfaces that move in front of one another: how two frames of them look, and exactly how they move.

A surface is rigid up to its size: it shifts, turns and grows. So its place in a frame is a map of complex numbers, from
what it is made of to where that is seen (x right, y down, the picture reaching from -1 to 1):

    seen = scale * material + shift

Its texture is a sum of plane waves. They stay plane waves in every frame, and the sine of a sum is a sum of products of
functions of x alone and of y alone: one small matrix product paints all waves of a surface.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jepakit.data.world import FARTHEST, mix, outline, within

CONTRAST = 0.3
"""Standard deviation of a texture, where its two colours are 1 apart."""


class Pose(NamedTuple):
    """Where a surface is in one frame: ``seen = scale * material + shift``."""

    scale: complex
    shift: complex

    def material(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is seen at (x, y)."""
        inverse = 1 / self.scale
        right, down = x - self.shift.real, y - self.shift.imag
        return inverse.real * right - inverse.imag * down, inverse.real * down + inverse.imag * right

    def seen(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where (u, v) of the material is seen."""
        scale, shift = self.scale, self.shift
        return scale.real * u - scale.imag * v + shift.real, scale.real * v + scale.imag * u + shift.imag


class Surface(NamedTuple):
    """What there is to know about one.

    ``shape`` is a number into scene.SHAPES, None for the ground, which is everywhere. ``waves`` of the texture are
    vectors (complex, radians a unit of material) with their ``phases``; ``colours`` are two, ``2 3``; and ``poses`` one
    for each frame.
    """

    shape: int | None
    waves: np.ndarray
    phases: np.ndarray
    colours: np.ndarray
    poses: tuple[Pose, ...]

    def covers(self, frame: int, x: np.ndarray, y: np.ndarray) -> Bool[np.ndarray, "..."]:
        """Whether it is at each of the points of a frame."""
        if self.shape is None:
            return np.ones(np.broadcast_shapes(x.shape, y.shape), bool)
        return outline(self.shape, *self.poses[frame].material(x, y)) <= 0

    def motion(self, x: np.ndarray, y: np.ndarray, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Where what it shows at each point of frame ``start`` is in frame ``end``."""
        return self.poses[end].seen(*self.poses[start].material(x, y))


class Motion(NamedTuple):
    """How far each pixel's surface goes from one frame to another, in pixels right and down, and what gets lost."""

    flow: Float[np.ndarray, "2 H W"]
    occluded: Bool[np.ndarray, "H W"]


def paint(surfaces: Sequence[Surface], frame: int, side: int) -> Float[np.ndarray, "3 H W"]:
    """One frame, from the farthest surface to the nearest; edges are one pixel soft."""
    line = centres(side)
    ground, *things = surfaces
    canvas = _colour(ground, frame, line, line)
    for thing in things:
        pose, radius = thing.poses[frame], abs(thing.poses[frame].scale)
        assert thing.shape is not None
        reach = FARTHEST[thing.shape] * radius
        columns, rows = within(pose.shift.real, reach, side), within(pose.shift.imag, reach, side)
        x, y = line[columns], line[rows]
        distance = outline(thing.shape, *pose.material(x[None], y[:, None]))
        cover = (0.5 - distance * (radius * side / 2)).clip(0, 1)
        part = canvas[:, rows, columns]
        part += cover * (_colour(thing, frame, x, y) - part)
    return canvas


def trace(surfaces: Sequence[Surface], side: int, start: int, end: int) -> Motion:
    """The motion of what each pixel of frame ``start`` shows, that is the nearest surface which covers half of it.

    It is occluded where its point is outside of the picture in frame ``end``, or where a nearer surface is there.
    """
    x, y = np.broadcast_arrays(centres(side)[None], centres(side)[:, None])
    flow, occluded = np.zeros((2, side, side), np.float32), np.zeros((side, side), bool)
    for number, surface in enumerate(surfaces):
        here = surface.covers(start, x, y)
        right, down = surface.motion(x[here], y[here], start, end)
        flow[:, here] = np.stack([right - x[here], down - y[here]]) * (side / 2)
        lost = (np.abs(right) > 1) | (np.abs(down) > 1)
        for nearer in surfaces[number + 1 :]:
            lost |= nearer.covers(end, right, down)
        occluded[here] = lost
    return Motion(flow, occluded)


def centres(side: int) -> Float[np.ndarray, "N"]:
    """Where the pixels of a line are, in -1..1."""
    return (np.arange(side) + 0.5) * (2 / side) - 1


def _colour(surface: Surface, frame: int, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "3 H W"]:
    """What it looks like in a frame, as if it were everywhere, at columns x and rows y."""
    scale, shift = surface.poses[frame]
    waves = surface.waves / np.conj(scale)  # of the material (Re(conj(wave) * material)), as they are seen
    phases = surface.phases - (np.conj(waves) * shift).real
    across, down = waves.real[:, None] * x + phases[:, None], waves.imag[:, None] * y
    columns = np.concatenate([np.sin(across), np.cos(across)]).astype(np.float32)
    rows = np.concatenate([np.cos(down), np.sin(down)]).astype(np.float32)
    share = rows.T @ columns  # sin(a + b) = sin a cos b + cos a sin b
    return mix(surface.colours, 0.5 + CONTRAST * np.sqrt(np.float32(2 / len(waves))) * share)
