"""How the built-in world moves: where each thing of a clip is, frame by frame.

What is asked of a clip is the motion, so no single frame may tell it. Places are anywhere with equal chances, in every
frame and for every motion: the world has no edge (what leaves on one side comes in on the other), and nothing changes
its way but by a collision. A clip that runs backwards is as likely as the clip itself: of a direction, frames without
their order tell no more than the line (that way or the opposite one).
"""

import math
from typing import NamedTuple

import numpy as np

MOTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
SPEEDS = ("slow", "medium", "fast")
COLLISIONS = ("no", "yes")

PACES = (0.04, 0.08, 0.16)
"""Least movement from frame to frame for each of ``SPEEDS``, in half pictures."""
FASTER = 1.25
"""How many times its least pace a thing may go."""
SECTOR = 0.6
"""The share of a direction's eighth of the circle that is used: no direction is near the next one."""
ROOM = 1.8
"""Least distance of the nearest thing at which there is room for collisions: its radius, and that of what collides
with it, are such that they do not meet across the edge as well."""
REACH = 0.7
"""The farthest that a thing which collides has to go until then, in half pictures, seen from the other one."""
MARGIN = 1.1
"""Distance of two things that meet, in sums of their radii: most shapes reach beyond a disc of the same area."""


class Motion(NamedTuple):
    """What the labels of these names say of the nearest thing: numbers into ``MOTIONS``, ``SPEEDS``, ``COLLISIONS``.

    ``collision`` is None where all things go their own ways.
    """

    motion: int
    speed: int
    collision: int | None = None


def ways(rng: np.random.Generator, radii: list[float], asked: Motion, frames: int) -> np.ndarray:
    """Places ``things frames 2`` of things with these radii, the last one being the nearest; in -1..1.

    All go straight on, the nearest as ``asked``, each other one somewhere. Where a collision is asked for, yes or no,
    the last but one moves, as seen from the nearest, as in ``encounter``.
    """
    r = rng.random((len(radii), 4))
    headings, paces = r[:, 0] * math.tau, np.array(PACES)[(r[:, 1] * len(PACES)).astype(int)]
    headings[-1] = (asked.motion + SECTOR * (rng.random() - 0.5)) * math.tau / len(MOTIONS)
    paces[-1] = PACES[asked.speed]
    velocities = heading(headings) * (paces * FASTER ** rng.random(len(radii)))[:, None]
    times = np.arange(frames) - (frames - 1) / 2
    places = (2 * r[:, None, 2:] - 1) + velocities[:, None] * times[:, None]
    if asked.collision is not None:
        closest = MARGIN * (radii[-1] + radii[-2])
        places[-2] = places[-1] + encounter(rng, closest, bool(asked.collision), frames)
    return (places + 1) % 2 - 1


def encounter(rng: np.random.Generator, closest: float, collide: bool, frames: int) -> np.ndarray:
    """Where one thing is as seen from another, ``frames 2``: it comes as near as ``closest`` and goes away again.

    Passing by it goes straight on. Colliding it comes head on, as softly as a spring, and goes back to where it came
    from. Its distance is the same function of time in both cases, and its side is any: only the way tells them apart.
    """
    moment, angle, turn = rng.random(3)
    times = np.arange(frames) / (frames - 1) - (1 + moment) / 3  # they meet in the middle third
    along = 1.5 * REACH * times
    if collide:
        return heading(np.full(frames, angle * math.tau)) * np.hypot(closest, along)[:, None]
    aside = closest if turn < 0.5 else -closest
    return along[:, None] * heading(angle * math.tau) + aside * heading((angle + 0.25) * math.tau)


def heading(angle: float | np.ndarray) -> np.ndarray:
    """Unit vectors ``... 2`` (right, down) of angles in radians, clockwise from the right."""
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def copies(place: np.ndarray, reach: float) -> list[tuple[float, float]]:
    """The places at which a thing is to be seen in -1..1, where it reaches so far from its centre: up to four."""
    x, y = ([at + shift for shift in (-2.0, 0.0, 2.0) if abs(at + shift) < 1 + reach] for at in place.tolist())
    return [(across, down) for across in x for down in y]
