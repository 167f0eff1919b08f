"""A small world without files: textured things that lie, or move (motion.py), in front of a textured ground.

A picture is drawn from (seed, split, index) alone. What is asked of it are shapes, textures, sizes and places. Colours,
places, angles, light and ground are drawn anew for each picture, and all shapes cover the same area, so that single
pixels and their mean tell next to nothing.
"""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from jepakit import seeds
from jepakit.data.balance import spread, stir
from jepakit.data.motion import COLLISIONS, MOTIONS, ROOM, SPEEDS, Motion, copies, ways
from jepakit.data.scene import CLASSES, FAR, GAP, GROUND, Ground, Thing, bright, draw_ground, draw_things, fade
from jepakit.errors import ConfigError

SPLITS = ("train", "val", "test")

COUNT = 4
"""Most things in a picture."""
FARTHEST = (1.0, 1.3, 1.56)
"""How far a disc, a square and a triangle reach from the centre, in radii, rounded up where there are corners."""
GRAIN = 0.08
"""Width of the noise of single pixels."""
HELD_OUT = 2000
"""Samples that scores while training are computed on."""
BINS = 6
"""Classes of ``distance_bin``, as many as Clevr/Dist has; each is as wide as the others, and as likely."""

Spots = list[tuple[float, float]]
"""Places where one thing is to be seen: several where it reaches across the edge."""


class World:
    """The built-in data source.

    Labels: ``class``, shape and texture of the nearest thing; ``count``, how many there are; ``distance`` of the
    nearest one (its radius is ``FOCUS / distance``) and the ``distance_bin`` that it lies in; for clips also
    ``motion``, where the nearest one goes, and ``speed``. Clips of several things that leave room for it (``near`` from
    ``ROOM`` on) have at least two things and the label ``collision``: does the second nearest bounce off the nearest,
    or pass by? All labels but the distance are balanced: all their combinations occur equally often.

    Maps: ``segment``, what each pixel shows, and ``depth``, how far that is.

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
        if near[0] < near[1]:
            edges = [f"{near[0] + (near[1] - near[0]) * number / BINS:.2f}" for number in range(BINS + 1)]
            self.classes["distance_bin"] = tuple(f"{low} to {high}" for low, high in pairwise(edges))
        self.maps: dict[str, tuple[str, ...] | None] = {"segment": ("ground", *CLASSES), "depth": None}
        if frames > 1:
            self.classes |= {"motion": MOTIONS, "speed": SPEEDS}
        if frames > 1 and things > 1 and near[0] >= ROOM:
            self.classes["collision"] = COLLISIONS
        line = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
        self._x, self._y = line[None, :], line[:, None]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        """The picture, uint8 ``3 T H W``, and its labels."""
        rng, labels, things, distance = self._draw(index)
        if self.colour < 1:
            things = [thing._replace(colours=fade(bright(thing.colours), self.colour)) for thing in things]
        ground, grain = draw_ground(rng, self.colour), rng.random((3, self.side, self.side), dtype=np.float32)
        spots = self._spots(index, things, labels)
        frames = [self._paint(things, at, ground, grain, self._time(i)) for i, at in enumerate(spots)]
        return torch.from_numpy(np.stack(frames, 1)), labels | self._far(distance)

    def map(self, index: int, name: str, frame: int = 0) -> Tensor:
        """What each pixel of a frame shows, int64 ``H W`` (``segment``), or how far that is, float32 (``depth``).

        It is what lies at the pixel's centre: of things that are blended at an edge the nearer one where it covers more
        than half.
        """
        _, labels, things, _ = self._draw(index)
        value = {"segment": lambda thing: thing.kind + 1, "depth": lambda thing: thing.distance}[name]
        found = np.full((self.side, self.side), *((0, np.int64) if name == "segment" else (GROUND, np.float32)))
        for thing, places in zip(things, self._spots(index, things, labels)[frame], strict=True):
            for x, y in places:
                rows, columns, u, v = self._about(thing, x, y, self._time(frame))
                found[rows, columns][outline(thing.shape, u, v) < 0] = value(thing)
        return torch.from_numpy(found)

    def _draw(self, index: int) -> tuple[np.random.Generator, dict[str, int], list[Thing], float]:
        """What a sample shows: the generator for all else, its labels, its things, and how far the nearest is."""
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        rng, labels = generator(self.seed, "world", self.split, index), self._ask(index)
        return rng, labels, *draw_things(rng, labels["class"], labels["count"], self.near)

    def _far(self, distance: float) -> dict[str, int | float]:
        """The labels that say how far the nearest thing is."""
        if "distance_bin" not in self.classes:
            return {"distance": distance}
        share = (distance - self.near[0]) / (self.near[1] - self.near[0])
        return {"distance": distance, "distance_bin": min(int(share * BINS), BINS - 1)}

    def _time(self, frame: int) -> float:
        """When a frame is, 0 in the middle of its clip."""
        return frame - (self.frames - 1) / 2

    def _ask(self, index: int) -> dict[str, int]:
        """The balanced labels of a sample."""
        if self.frames == 1:
            kind, fewer, _ = spread(index, (len(CLASSES), self.things, len(MOTIONS)), self.seed, self.split)
            return {"class": kind, "count": fewer + 1}
        moving = {name: len(values) for name, values in self.classes.items() if name in Motion._fields}
        fewest = 2 if "collision" in moving else 1
        sizes = (len(CLASSES), self.things + 1 - fewest, *moving.values())
        kind, more, *digits = spread(stir(index, math.prod(sizes)), sizes, self.seed, self.split)
        return {"class": kind, "count": fewest + more} | dict(zip(moving, digits, strict=True))

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

    def _spots(self, index: int, things: list[Thing], labels: dict[str, int]) -> list[list[Spots]]:
        """For each frame and each thing, the places where it is to be seen."""
        if self.frames == 1:
            return [[[(float(thing.place[0]), float(thing.place[1]))] for thing in things]]
        motion = Motion(**{name: labels[name] for name in Motion._fields if name in labels})
        rng = generator(self.seed, "motion", self.split, index)
        places = ways(rng, [thing.radius for thing in things], motion, self.frames)
        reach = [FARTHEST[thing.shape] * thing.radius for thing in things]
        return [[copies(*each) for each in zip(at, reach, strict=True)] for at in places.swapaxes(0, 1)]

    def _paint(
        self, things: list[Thing], spots: list[Spots], ground: Ground, grain: np.ndarray, time: float
    ) -> np.ndarray:
        """One frame, uint8 ``3 H W``: ground, things from far to near, light, grain."""
        canvas = self._ground(ground, time)
        for thing, places in zip(things, spots, strict=True):
            for x, y in places:
                self._lay(canvas, thing, x, y, time)
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

    def _lay(self, canvas: np.ndarray, thing: Thing, x: float, y: float, time: float) -> None:
        """Lay one thing over what is there, turned as it is by now."""
        rows, columns, u, v = self._about(thing, x, y, time)
        cover = (0.5 - outline(thing.shape, u, v) * (thing.radius * self.side / 2)).clip(0, 1)  # one pixel is soft
        if not cover.any():
            return
        part = canvas[:, rows, columns]
        part += cover * (mix(thing.colours, texture(thing, u, v)) - part)

    def _about(self, thing: Thing, x: float, y: float, time: float) -> tuple[slice, slice, np.ndarray, np.ndarray]:
        """Rows and columns that a thing may cover, and where their pixels lie from its centre, in radii along it."""
        reach = FARTHEST[thing.shape] * thing.radius
        columns, rows = within(x, reach, self.side), within(y, reach, self.side)
        angle = thing.angle + thing.spin * time
        cosine, sine = math.cos(angle) / thing.radius, math.sin(angle) / thing.radius
        right, down = self._x[:, columns] - x, self._y[rows] - y
        return rows, columns, cosine * right + sine * down, cosine * down - sine * right


def within(centre: float, reach: float, side: int) -> slice:
    """The pixels of one axis, ``side`` of them, that are so near to a place that a thing may cover them."""
    low, high = ((centre + sign * reach + 1) * side / 2 for sign in (-1, 1))
    return slice(max(int(low) - 1, 0), max(int(high) + 2, 0))


def generator(*key: int | str) -> np.random.Generator:
    """Random numbers for one key."""
    return np.random.Generator(np.random.PCG64(seeds.key(*key)))


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
