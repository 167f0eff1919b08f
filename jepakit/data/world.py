"""A small world without files: textured things that lie, and move, in front of a textured ground.

A picture is drawn from (seed, split, index) alone. What is asked of it are shapes, textures, sizes and places. Colours,
places, angles, light and ground are drawn anew for each picture, and all shapes cover the same area, so that single
pixels and their mean tell next to nothing.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepakit import seeds
from jepakit.errors import ConfigError

SHAPES = ("disc", "square", "triangle")
TEXTURES = ("striped", "checked", "ringed")
CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)
MOTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
SPLITS = ("train", "val", "test")

COUNT = 4
"""Most things in a picture."""
FOCUS = 0.72
"""Radius of a thing at distance 1, where the picture reaches from -1 to 1."""
FAR, GAP = 3.0, 1.3
"""The farthest distance that there is; and how many times farther than the nearest all others are."""
SPEED = (0.06, 0.12)
"""Movement from frame to frame at distance 1."""
FARTHEST = 1.56
"""The farthest corner of any shape, in radii."""
GRAIN = 0.08
"""Width of the noise of single pixels."""
HELD_OUT = 2000
"""Samples that scores while training are computed on."""


class Thing(NamedTuple):
    """What there is to know about one thing. Lengths are in half pictures, angles in radians."""

    shape: int
    texture: int
    place: np.ndarray
    velocity: np.ndarray
    radius: float
    angle: float
    spin: float
    waves: float
    phase: np.ndarray
    colours: np.ndarray


class Ground(NamedTuple):
    """What lies behind: waves (across, down, phase, drift), two colours, and light (level, slope across, down)."""

    waves: np.ndarray
    colours: np.ndarray
    light: tuple[float, float, float]


class World:
    """The built-in data source.

    Labels: ``class``, shape and texture of the nearest thing; ``count``, how many there are; ``distance`` of the
    nearest one (its radius is ``FOCUS / distance``); for clips also ``motion``, where the nearest one goes. Classes,
    counts and motions are balanced: all their combinations occur equally often.

    Args:
        length: number of samples.
        side: of the pictures, in pixels.
        split: train, val or test; they share no picture.
        frames: 1 for pictures, more for clips.
        seed: of the world; another seed is another set of pictures of the same kind.
        things: most things in a picture.
        near: least and greatest distance of the nearest one.
        colour: 1 for all colours, 0 for greys; below 1 the two colours of a thing differ in brightness.

    Raises:
        ConfigError: an argument out of its range.
    """

    channels: int = 3

    def __init__(
        self,
        length: int = 10000,
        side: int = 32,
        split: str = "train",
        frames: int = 1,
        seed: int = 0,
        things: int = COUNT,
        near: tuple[float, float] = (1.0, 1.8),
        colour: float = 1.0,
    ):
        if split not in SPLITS:
            raise ConfigError(f"data.split={split!r} must be one of {', '.join(SPLITS)}")
        if min(length, side, frames) < 1:
            raise ConfigError(f"data.length={length}, data.side={side}, data.frames={frames} must be at least 1")
        if not 1 <= things <= COUNT:
            raise ConfigError(f"data.things={things} must be from 1 to {COUNT}")
        if not 0 < near[0] <= near[1] <= FAR / GAP:
            raise ConfigError(f"data.near={list(near)} must be two rising distances above 0, at most {FAR / GAP:.2f}")
        if not 0 <= colour <= 1:
            raise ConfigError(f"data.colour={colour} must be from 0 to 1")
        self.things, self.near, self.colour = things, near, colour
        self.length, self.side, self.split, self.frames, self.seed = length, side, split, frames, seed
        self.classes: dict[str, tuple[str, ...]] = {"class": CLASSES, "count": tuple(map(str, range(things + 1)))}
        if frames > 1:
            self.classes["motion"] = MOTIONS
        line = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
        self._x, self._y = line[None, :], line[:, None]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        """The picture, uint8 ``3 T H W``, and its labels."""
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        rng = np.random.Generator(np.random.PCG64(seeds.key(self.seed, "world", self.split, index)))
        kind, fewer, motion = spread(index, (len(CLASSES), self.things, len(MOTIONS)), self.seed, self.split)
        count = fewer + 1
        things, distance = draw_things(rng, kind, count, motion, self.near)
        if self.colour < 1:
            things = [thing._replace(colours=fade(bright(thing.colours), self.colour)) for thing in things]
        ground, grain = draw_ground(rng, self.colour), rng.random((3, self.side, self.side), dtype=np.float32)
        frames = [self._paint(things, ground, grain, time - (self.frames - 1) / 2) for time in range(self.frames)]
        labels = {"class": kind, "count": count, "distance": distance}
        picture = torch.from_numpy(np.stack(frames, 1))
        return picture, labels | {"motion": motion} if self.frames > 1 else labels

    def describe(self, index: int) -> str:
        """The key that the sample is drawn from."""
        return f"world seed {self.seed} {self.split} {index}"

    def describe_all(self) -> str:
        """What there is, in one line."""
        what = "pictures" if self.frames == 1 else f"clips of {self.frames} frames"
        return f"{self.length:,} generated {what} of {self.side} x {self.side} pixels in {len(CLASSES)} classes"

    def held_out_source(self) -> "World":
        """Labelled samples of the same world that are not among these."""
        split = "val" if self.split == "train" else "test"
        return World(HELD_OUT, self.side, split, self.frames, self.seed, self.things, self.near, self.colour)

    def _paint(self, things: list[Thing], ground: Ground, grain: np.ndarray, time: float) -> np.ndarray:
        """One frame, uint8 ``3 H W``: ground, things from far to near, light, grain."""
        canvas = self._ground(ground, time)
        for thing in things:
            self._lay(canvas, thing, time)
        level, across, down = ground.light
        canvas *= level + across * self._x + down * self._y
        canvas += GRAIN * (grain - 0.5)
        return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)

    def _ground(self, ground: Ground, time: float) -> np.ndarray:
        """Plane waves, each bent by those before it, between two colours; they drift as time goes."""
        wave = np.zeros((self.side, self.side), np.float32)
        for across, down, phase, drift in ground.waves:
            wave += np.sin(across * self._x + (down * self._y + (phase + drift * time)) + wave)
        return mix(ground.colours, 0.5 + wave / (2 * len(ground.waves)))

    def _lay(self, canvas: np.ndarray, thing: Thing, time: float) -> None:
        """Lay one thing over what is there, where it is by now."""
        x, y = (thing.place + thing.velocity * time).tolist()
        columns, rows = self._reach(x, thing.radius), self._reach(y, thing.radius)
        angle = thing.angle + thing.spin * time
        cosine, sine = math.cos(angle) / thing.radius, math.sin(angle) / thing.radius
        right, down = self._x[:, columns] - x, self._y[rows] - y
        u, v = cosine * right + sine * down, cosine * down - sine * right
        cover = (0.5 - outline(thing.shape, u, v) * (thing.radius * self.side / 2)).clip(0, 1)  # one pixel is soft
        part = canvas[:, rows, columns]
        part += cover * (mix(thing.colours, texture(thing, u, v)) - part)

    def _reach(self, centre: float, radius: float) -> slice:
        """The pixels of one axis that a thing may cover."""
        low, high = ((centre + sign * FARTHEST * radius + 1) * self.side / 2 for sign in (-1, 1))
        return slice(max(int(low) - 1, 0), max(int(high) + 2, 0))


def mix(colours: np.ndarray, share: np.ndarray) -> np.ndarray:
    """``3 H W`` between the first (share 0) and the second colour (share 1)."""
    first, second = colours[:, :, None, None]
    return first + (second - first) * share


def outline(shape: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the outline, negative within. The three shapes cover the same area: that of a unit disc."""
    if shape == 0:
        return np.sqrt(u * u + v * v) - 1
    if shape == 1:
        return np.maximum(np.abs(u), np.abs(v)) - math.sqrt(math.pi) / 2
    slope = math.sqrt(3) / 2
    return np.maximum(v, np.abs(u) * slope - v / 2) - math.sqrt(math.pi / (3 * math.sqrt(3)))


def texture(thing: Thing, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The share of the second colour, 0..1, with soft edges."""
    k, (p, q) = thing.waves, thing.phase
    if thing.texture == 0:
        wave = np.sin(k * u + p)
    elif thing.texture == 1:
        wave = 1.5 * np.sin(k * u + p) * np.sin(k * v + q)
    else:
        wave = np.sin(k * np.sqrt(u * u + v * v) + p)
    return (0.5 + 1.2 * wave).clip(0, 1)


def spread(index: int, sizes: tuple[int, ...], *key: int | str) -> list[int]:
    """A digit below each of ``sizes``: all combinations once in every run of as many indices, in no order.

    Every n-th sample is then as balanced as all of them, whatever n.
    """
    digits = []
    for size in sizes:
        index, digit = divmod(index, size)
        digits.append((digit + seeds.key(*key, size, index)) % size)
    return digits


def draw_things(
    rng: np.random.Generator, kind: int, count: int, motion: int, near: tuple[float, float]
) -> tuple[list[Thing], float]:
    """``count`` things, the farthest first, the last one of class ``kind``; and the distance of the last one."""
    r = rng.random((count, 18))
    nearest = near[0] + (near[1] - near[0]) * r[0, 0]
    beyond = np.sort(r[1:, 0])[::-1] * (FAR - GAP * nearest) + GAP * nearest
    heading = (motion + 0.6 * (r[0, 1] - 0.5)) * math.tau / len(MOTIONS)
    others = [
        draw_thing(row, int(row[2] * len(CLASSES)), distance, row[1] * math.tau)
        for row, distance in zip(r[1:], beyond.tolist(), strict=True)
    ]
    return [*others, draw_thing(r[0], kind, nearest, heading)], float(nearest)


def draw_thing(row: np.ndarray, kind: int, distance: float, heading: float) -> Thing:
    """One thing from uniform numbers. It lies in the picture for the most part; the farther, the slower it seems."""
    shape, texture = divmod(kind, len(TEXTURES))
    radius, speed = FOCUS / distance, (SPEED[0] + (SPEED[1] - SPEED[0]) * row[3]) / distance
    return Thing(
        shape=shape,
        texture=texture,
        place=(2 * row[4:6] - 1) * (1 - 0.8 * radius),
        velocity=np.array([math.cos(heading), math.sin(heading)]) * speed,
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
