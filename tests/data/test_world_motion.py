"""Clips of the built-in world: the labels are in the motion, and in no single frame."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from jepakit.data import open_source
from jepakit.data.motion import (
    COLLISIONS,
    FASTER,
    MARGIN,
    MOTIONS,
    PACES,
    ROOM,
    SPEEDS,
    Motion,
    copies,
    encounter,
    ways,
)
from jepakit.data.scene import CLASSES, FOCUS, GAP
from jepakit.data.world import World

MOVING: dict[str, Any] = {"frames": 8, "side": 16, "things": 2, "near": (1.8, 2.2)}
RADII = [FOCUS / (GAP * ROOM), FOCUS / ROOM]
"""The greatest that collide."""


def moves(places: np.ndarray) -> np.ndarray:
    """Movement from frame to frame in a world without edge."""
    return (np.diff(places, axis=-2) + 1) % 2 - 1


def apart(places: np.ndarray) -> np.ndarray:
    """Distance of the last two things in each frame, ``T``: the least there is, across the edge or not."""
    return np.linalg.norm((places[-1] - places[-2] + 1) % 2 - 1, axis=-1)


def test_clips_of_any_length_and_their_labels():
    clip, labels = World(**MOVING)[5]
    assert clip.dtype == torch.uint8 and clip.shape == (3, 8, 16, 16)
    assert all(not torch.equal(a, b) for a, b in zip(clip.unbind(1), clip.unbind(1)[1:], strict=False))
    assert torch.equal(World(**MOVING, length=6)[5][0], clip)
    all_but_collision = {"class", "count", "distance_bin", "motion", "speed"}
    assert set(World(**MOVING).classes) == all_but_collision | {"collision"} == set(labels) - {"distance"}
    for alone in ({"things": 1}, {"near": (1.0, 1.8)}, {"near": (ROOM - 0.01, 2.2)}):
        assert set(World(**(MOVING | alone)).classes) == all_but_collision


def test_the_variant_is_this_world():
    from jepakit.config import resolve

    source = open_source(resolve(["data=world_moving"])["data"] | {"length": 3, "side": 8})
    assert len(source[0][0][0]) == 16 and {"motion", "speed", "collision"} < set(source.classes)


def test_labels_are_balanced_and_independent():
    names = ("class", "count", "motion", "speed", "collision")
    world = World(**(MOVING | {"frames": 2, "side": 2, "things": 3}))
    cycle = len(CLASSES) * 2 * len(MOTIONS) * len(SPEEDS) * len(COLLISIONS)
    labels = [world._ask(i) for i in range(cycle)]
    assert set(Counter(tuple(each[name] for name in names) for each in labels).values()) == {1}
    assert {each["count"] for each in labels} == {2, 3}
    for name in names:
        few = np.bincount([each[name] for each in labels[:144]])
        assert few[few > 0] == pytest.approx(144 / (few > 0).sum(), rel=0.5), name


def test_any_side_and_length_show_the_same_scene():
    small, large = (World(**(MOVING | {"side": side}))[7][0].float() for side in (16, 64))
    assert (small - torch.nn.functional.avg_pool2d(large.transpose(0, 1), 4).transpose(0, 1)).abs().mean() < 12
    middle = [World(**(MOVING | {"frames": frames, "things": 1}))[7][0][:, frames // 2] for frames in (3, 9)]
    assert torch.equal(*middle)


@pytest.mark.parametrize("speed", range(len(SPEEDS)))
def test_the_nearest_goes_as_asked(speed):
    for motion, name in enumerate(MOTIONS):
        step = moves(ways(np.random.default_rng(motion), RADII, Motion(motion, speed), 5)[-1])
        assert step == pytest.approx(step[:1].repeat(4, 0))
        x, y = np.round(step[0] / np.abs(step[0]).max()).astype(int)
        assert name == " ".join(filter(None, (("up", "", "down")[y + 1], ("left", "", "right")[x + 1])))
        assert PACES[speed] <= np.linalg.norm(step[0]) <= PACES[speed] * FASTER


def test_speeds_do_not_overlap():
    assert all(slow * FASTER < fast for slow, fast in zip(PACES, PACES[1:], strict=False))


@pytest.mark.parametrize("frames", [2, 16])
def test_collisions_turn_back_and_others_pass_at_the_same_distances(frames):
    for seed in range(50):
        passing, bouncing = (encounter(np.random.default_rng(seed), 0.5, yes, frames) for yes in (False, True))
        far = np.linalg.norm(bouncing, axis=1)
        assert np.linalg.norm(passing, axis=1) == pytest.approx(far) and far.min() >= 0.5
        cosine = [(way[0] @ way[-1]) / np.linalg.norm(way[0]) / np.linalg.norm(way[-1]) for way in (passing, bouncing)]
        assert cosine[0] < 0.99 and cosine[1] == pytest.approx(1)
        assert np.diff(passing, n=2, axis=0) == pytest.approx(0)


@pytest.mark.parametrize("collision", range(len(COLLISIONS)))
def test_what_meets_meets_once(collision):
    closest = MARGIN * sum(RADII)
    for seed in range(100):
        far = apart(ways(np.random.default_rng(seed), RADII, Motion(0, 1, collision), 31))
        assert closest - 1e-9 <= far.min() < closest + 0.01
        assert 10 <= far.argmin() <= 20 and min(far[0], far[-1]) > 1.05 * closest


def test_places_are_anywhere_in_every_frame():
    for motion in (0, 3):
        for frame in (0, -1):
            rngs = map(np.random.default_rng, range(600))
            places = np.array([ways(rng, RADII, Motion(motion, 2, 1), 16)[:, frame] for rng in rngs])
            assert np.abs(np.histogram(places[:, -1, 0], 4, (-1, 1))[0] / 600 - 0.25).max() < 0.06
            assert np.abs(places.mean(0)).max() < 0.08


def test_what_leaves_comes_in_on_the_other_side():
    assert copies(np.array([0.2, -0.3]), 0.5) == [(0.2, -0.3)]
    assert sorted(copies(np.array([0.75, -0.75]), 0.5)) == [(-1.25, -0.75), (-1.25, 1.25), (0.75, -0.75), (0.75, 1.25)]


@pytest.fixture(scope="module")
def clips() -> tuple[tuple[np.ndarray, dict[str, np.ndarray]], tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Clips to fit on and clips to test on, ``B C T H W``, with their labels."""

    def load(world: World, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        pairs = [world[i] for i in range(n)]
        clips = np.stack([clip.numpy() for clip, _ in pairs]).astype(np.float32) / 255
        return clips, {name: np.array([labels[name] for _, labels in pairs]) for name in world.classes}

    return load(World(**MOVING), 576), load(World(**MOVING).held_out_source(), 432)


def probe(look: Any, clips: Any, label: str) -> float:
    """Held-out accuracy of a ridge regression from standardised ``look(clips)``."""
    (x, y), (v, z) = clips
    a, b = look(x).reshape(len(x), -1), look(v).reshape(len(v), -1)
    mean, std = a.mean(0), a.std(0) + 1e-6
    return RidgeClassifier(alpha=100.0).fit((a - mean) / std, y[label]).score((b - mean) / std, z[label])


def flow(x: np.ndarray) -> np.ndarray:
    """The movement of a whole clip that its differences in time and space speak of, its size, and the change at all."""
    change, between = np.diff(x, axis=2), (x[:, :, 1:] + x[:, :, :-1]) / 2
    slopes = [np.roll(between, -1, axis) - np.roll(between, 1, axis) for axis in (4, 3)]
    axes = (1, 2, 3, 4)
    moved = np.stack([(change * slope).sum(axes) / (slope**2).sum(axes) for slope in slopes], 1)
    size = np.log(np.linalg.norm(moved, axis=1) + 1e-6), np.log((change**2).mean(axes))
    return np.concatenate([moved, np.stack(size, 1)], 1)


@pytest.mark.parametrize("label", ["motion", "speed", "collision"])
@pytest.mark.parametrize("look", [lambda x: x[:, :, 0], lambda x: x.mean(2)], ids=["first frame", "mean frame"])
def test_pictures_do_not_tell_the_motion(clips, look, label):
    chance = 1 / len(World(**MOVING).classes[label])
    wide = 2.6 * np.sqrt(chance * (1 - chance) / len(clips[1][0]))  # 99 of 100 draws of pure chance
    assert probe(look, clips, label) == pytest.approx(chance, abs=wide)


@pytest.mark.parametrize(("label", "least"), [("motion", 0.3), ("speed", 0.5)])
def test_differences_tell_the_motion(clips, label, least):
    assert probe(flow, clips, label) > least
