"""What there is in one sample of the built-in world, as drawn from random numbers: things, ground and light."""

import math
from typing import NamedTuple

import numpy as np

SHAPES = ("disc", "square", "triangle")
TEXTURES = ("striped", "checked", "ringed")
CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)

FOCUS = 0.72
"""Radius of a thing at distance 1, where the picture reaches from -1 to 1."""
FAR, GAP = 3.0, 1.3
"""The farthest distance of a thing; and how many times farther than the nearest all others are."""
GROUND = FAR * GAP
"""Distance of the ground."""


class Thing(NamedTuple):
    """What there is to know about one thing. Lengths are in half pictures, angles in radians."""

    shape: int
    texture: int
    place: np.ndarray
    radius: float
    angle: float
    spin: float
    waves: float
    phase: np.ndarray
    colours: np.ndarray

    @property
    def kind(self) -> int:
        """The number of its class."""
        return self.shape * len(TEXTURES) + self.texture

    @property
    def distance(self) -> float:
        """How far away it is, in units of which ``FOCUS`` says how large they look."""
        return FOCUS / self.radius


class Ground(NamedTuple):
    """What lies behind: waves (across, down, phase, drift), two colours, and light (level, slope across, down)."""

    waves: np.ndarray
    colours: np.ndarray
    light: tuple[float, float, float]


def draw_things(
    rng: np.random.Generator, kind: int, count: int, near: tuple[float, float]
) -> tuple[list[Thing], float]:
    """``count`` things, the farthest first, the last one of class ``kind``; and the distance of the last one."""
    r = rng.random((count, 18))  # columns 1, 3 and 11 are spare
    nearest = near[0] + (near[1] - near[0]) * r[0, 0]
    beyond = np.sort(r[1:, 0])[::-1] * (FAR - GAP * nearest) + GAP * nearest
    others = [
        draw_thing(row, int(row[2] * len(CLASSES)), distance)
        for row, distance in zip(r[1:], beyond.tolist(), strict=True)
    ]
    return [*others, draw_thing(r[0], kind, nearest)], float(nearest)


def draw_thing(row: np.ndarray, kind: int, distance: float) -> Thing:
    """One thing from uniform numbers. It lies in the picture for the most part."""
    shape, texture = divmod(kind, len(TEXTURES))
    radius = FOCUS / distance
    return Thing(
        shape=shape,
        texture=texture,
        place=(2 * row[4:6] - 1) * (1 - 0.8 * radius),
        radius=radius,
        angle=row[6] * math.tau,
        spin=(row[7] - 0.5) * 0.2,
        waves=6.0 + 3.0 * row[8],
        phase=row[9:11] * math.tau,
        colours=np.stack([row[12:15], apart(row[12:15], row[15:18])]).astype(np.float32),
    )


def apart(colour: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Another colour that can be told from the first: each channel goes towards its farther end."""
    return colour + (0.35 + 0.6 * row) * np.where(colour < 0.5, 1 - colour, -colour)


def bright(colours: np.ndarray) -> np.ndarray:
    """The first colour, and one that differs from it by as much in all channels."""
    away = np.abs(colours[1] - colours[0]).mean() * (1 if colours[0].mean() < 0.5 else -1)
    return np.stack([colours[0], colours[0] + away])


def fade(colours: np.ndarray, share: float) -> np.ndarray:
    """Each colour, ``2 3``, moved towards the grey of its mean until ``share`` of the way is left."""
    grey = colours.mean(1, keepdims=True)
    return (grey + (colours - grey) * share).astype(np.float32)


def draw_ground(rng: np.random.Generator, colour: float) -> Ground:
    """Three waves, two colours and a light from one side."""
    r = rng.random((3, 8))
    angle, pace = r[:, 0] * math.tau, 2 + 8 * r[:, 1]
    waves = np.stack([np.cos(angle) * pace, np.sin(angle) * pace, r[:, 2] * math.tau, (r[:, 3] - 0.5) * 0.6], 1)
    light = 0.65 + 0.5 * r[0, 6], 0.6 * (r[0, 7] - 0.5), 0.6 * (r[1, 7] - 0.5)
    colours = r[:, 4:6].T.astype(np.float32)
    return Ground(waves.astype(np.float32), colours if colour == 1 else fade(colours, colour), light)
