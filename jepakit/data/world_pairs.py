"""Pairs of frames of the built-in world, and exactly how far each pixel goes from the first to the second.

A pair is drawn from (seed, split, index) alone. As the camera moves, the ground shifts, turns and grows; each thing in
front of it goes its own way, and the nearer ones cover the farther ones. All bear textures of several wave lengths that
move with them, so that the motion can be told from the pixels; light stays where it is, and the grain of each frame is
its own. What moves how is in layers.py.
"""

import cmath
import math

import numpy as np
import torch
from torch import Tensor

from jepakit.data.flow import Truth
from jepakit.data.layers import Pose, Surface, centres, paint, trace
from jepakit.data.scene import FAR, FOCUS, SHAPES, apart, bright, fade
from jepakit.data.world import COUNT, FARTHEST, GRAIN, HELD_OUT, SPLITS, generator
from jepakit.errors import ConfigError

WAVES = 16
"""Waves of a texture: their lengths are spread evenly, in octaves, over ``LENGTHS``."""
LENGTHS = (1 / 16, 1.0)
"""Wave lengths in sides of the picture; none is below ``FINEST`` pixels."""
FINEST = 4
NEAR = 1.0
"""Least distance of a thing: its radius is ``FOCUS / distance``, and ``scene.FAR`` is the greatest."""
TURN, GROWTH = 0.5, 0.15
"""Most that anything turns (radians) and grows (as a share) from frame to frame."""
LIGHT = 0.2
"""How much the light may differ between opposite edges."""


class WorldPairs:
    """The built-in source of frame pairs, uint8 ``3 2 H W``, without labels.

    Args:
        length: number of pairs.
        side: of the frames, in pixels.
        split: train, val or test; they share no pair.
        seed: of the world.
        things: most things in front of the ground; 0: the ground alone.
        speed: the farthest that a pixel goes, in sides of the picture.
        turn: the share of it that turning and growing may take; 0: everything shifts only.
        colour: 1 for all colours, 0 for greys; below 1 the two colours of a texture differ in brightness.

    Raises:
        ConfigError: an argument out of its range.
    """

    channels: int = 3
    classes: dict[str, tuple[str, ...]] = {}

    def __init__(
        self,
        length: int = 10000,
        side: int = 64,
        split: str = "train",
        seed: int = 0,
        things: int = 3,
        speed: float = 0.1,
        turn: float = 0.4,
        colour: float = 1.0,
    ):
        if split not in SPLITS:
            raise ConfigError(f"data.split={split!r} must be one of {', '.join(SPLITS)}")
        if min(length, side) < 1:
            raise ConfigError(f"data.length={length} and data.side={side} must be at least 1")
        if not 0 <= things <= COUNT:
            raise ConfigError(f"data.things={things} must be from 0 to {COUNT}")
        for name, value in (("speed", speed), ("turn", turn), ("colour", colour)):
            if not 0 <= value <= 1:
                raise ConfigError(f"data.{name}={value} must be from 0 to 1")
        self.length, self.side, self.split, self.seed = length, side, split, seed
        self.things, self.speed, self.turn, self.colour = things, speed, turn, colour

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        """The pair, uint8 ``3 2 H W``; no labels."""
        surfaces, rng = self._draw(index)
        r = LIGHT * (rng.random(3) - 0.5)
        line = centres(self.side).astype(np.float32)
        light = (1 + r[0] + r[1] * line + r[2] * line[:, None]).astype(np.float32)
        grain = GRAIN * (rng.random((2, 3, self.side, self.side), dtype=np.float32) - 0.5)
        frames = np.stack([paint(surfaces, frame, self.side) for frame in (0, 1)], 1) * light + grain.swapaxes(0, 1)
        return torch.from_numpy((frames.clip(0, 1) * 255 + 0.5).astype(np.uint8)), {}

    def truth(self, index: int) -> Truth:
        """The motion of a pair, known everywhere."""
        flow, occluded = map(torch.from_numpy, trace(self._draw(index)[0], self.side, 0, 1))
        return Truth(flow, torch.ones_like(occluded), occluded)

    def describe(self, index: int) -> str:
        """The key that the pair is drawn from."""
        return f"world_pairs seed {self.seed} {self.split} {index}"

    def describe_all(self) -> str:
        """What there is, in one line."""
        return f"{self.length:,} generated pairs of {self.side} x {self.side} pixels with known flow"

    def held_out_source(self) -> "WorldPairs":
        """Pairs of the same world that are not among these."""
        split = "val" if self.split == "train" else "test"
        same = self.side, split, self.seed, self.things, self.speed, self.turn, self.colour
        return WorldPairs(HELD_OUT, *same)

    def _draw(self, index: int) -> tuple[list[Surface], np.random.Generator]:
        """The ground, then the things, the farthest first; and the generator, for what is random besides."""
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        rng = generator(self.seed, "pairs", self.split, index)
        count = int(rng.integers(min(self.things, 1), self.things + 1))
        distances = np.sort(rng.uniform(NEAR, FAR, count))[::-1].tolist()
        ground = self._surface(rng, None, Pose(1, 0), math.sqrt(2))
        return [ground, *(self._thing(rng, FOCUS / distance) for distance in distances)], rng

    def _thing(self, rng: np.random.Generator, radius: float) -> Surface:
        """A thing that lies in the first frame for the most part."""
        shape, (x, y) = int(rng.integers(len(SHAPES))), (2 * rng.random(2) - 1) * (1 - 0.8 * radius)
        pose = Pose(cmath.rect(radius, math.tau * rng.random()), complex(x, y))
        return self._surface(rng, shape, pose, FARTHEST[shape] * radius)

    def _surface(self, rng: np.random.Generator, shape: int | None, pose: Pose, reach: float) -> Surface:
        """A surface that is seen in the first frame as ``pose`` says, no farther than ``reach`` from its centre."""
        shortest = max(LENGTHS[0], FINEST / self.side)
        octaves = (np.arange(WAVES) + rng.random(WAVES)) / WAVES * math.log2(max(LENGTHS[1] / shortest, 1))
        angles = rng.permutation(np.arange(WAVES) + rng.random(WAVES)) / WAVES  # of half a turn: the rest is the same
        waves = np.exp(1j * math.pi * angles) * math.pi / (shortest * 2**octaves)
        colour = rng.random(3)
        colours = np.stack([colour, apart(colour, rng.random(3))])
        colours = colours if self.colour == 1 else fade(bright(colours), self.colour)
        poses = pose, self._moved(rng, pose, reach)
        phases = math.tau * rng.random(WAVES)
        return Surface(shape, waves * np.conj(pose.scale), phases, colours.astype(np.float32), poses)

    def _moved(self, rng: np.random.Generator, pose: Pose, reach: float) -> Pose:
        """The pose in the second frame. No point within ``reach`` goes farther than ``speed``: by turning and growing
        at most ``turn`` of it, by shifting what is left of it."""
        most = 2 * self.speed
        turning = self.turn * most / (2 * reach)
        spin, growth = rng.uniform(-1, 1, 2) * np.minimum(turning, (TURN, GROWTH))
        shift = cmath.rect((1 - self.turn) * most * rng.random(), math.tau * rng.random())
        return Pose(pose.scale * (1 + growth) * cmath.exp(1j * spin), pose.shift + shift)
