"""The built-in world: the same everywhere, balanced, and no gift to raw pixels."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from jepakit.data import open_source
from jepakit.data.balance import spread, stir
from jepakit.data.motion import MOTIONS
from jepakit.data.scene import CLASSES, FOCUS, draw_things
from jepakit.data.world import COUNT, FARTHEST, World, outline
from jepakit.errors import ConfigError
from jepakit.protocols import Source


def test_a_sample_is_drawn_from_its_key_alone():
    one, other = World(length=50), World(length=9)
    assert isinstance(one, Source)
    assert torch.equal(one[3][0], other[3][0]) and one[3][1] == other[3][1]
    pictures = [one[3][0], one[4][0], World(split="val")[3][0], World(split="test")[3][0], World(seed=1)[3][0]]
    for i, a in enumerate(pictures):
        assert a.dtype == torch.uint8 and a.shape == (3, 1, 32, 32)
        assert not any(torch.equal(a, b) for b in pictures[:i])


def test_labels_are_balanced_and_independent():
    cycle = len(CLASSES) * COUNT
    world = World(length=cycle, side=4)
    labels = [world[i][1] for i in range(cycle)]
    assert set(Counter((each["class"], each["count"]) for each in labels).values()) == {1}
    assert all(world.classes["count"][label["count"]] == str(label["count"]) for label in labels)
    assert all(1.0 <= label["distance"] <= 1.8 for label in labels)
    assert set(world.classes) == {"class", "count", "distance_bin"} == set(labels[0]) - {"distance"}


def test_a_still_picture_is_what_it_ever_was():
    picture, labels = World(seed=5)[17]
    assert (labels["class"], labels["count"], round(labels["distance"], 6)) == (6, 3, 1.099302)
    some = torch.tensor([[26, 111, 23, 80], [30, 173, 45, 170], [167, 111, 153, 43]])
    assert (picture[:, 0, 4::16, 4::16].flatten(1) - some).abs().max() <= 1  # processors round sines in their own ways


@pytest.mark.parametrize("step", [4, 8, 9, 36])
def test_every_nth_sample_is_balanced_too(step):
    sizes = (len(CLASSES), COUNT, len(MOTIONS))
    rows = np.array([spread(index, sizes, 0, "train") for index in range(0, 1000 * step, step)])
    for digit, size in enumerate(sizes):
        assert np.bincount(rows[:, digit], minlength=size) / 1000 == pytest.approx([1 / size] * size, abs=0.05)


@pytest.mark.parametrize("cycle", [1, 2, 48, 432, 1728])
def test_stirring_permutes_every_run(cycle):
    assert sorted(stir(i, cycle) for i in range(cycle, 2 * cycle)) == list(range(cycle, 2 * cycle))


def test_the_named_thing_is_the_nearest_and_on_top():
    for seed in range(50):
        things, distance = draw_things(np.random.default_rng(seed), 4, COUNT, (1.0, 1.8))
        radii = [thing.radius for thing in things]
        assert radii == sorted(radii) and things[-1].radius == pytest.approx(FOCUS / distance)
        assert (things[-1].shape, things[-1].texture) == (1, 1) and radii[-1] > 1.2 * radii[-2]


def test_shapes_cover_the_same_area():
    line = (np.arange(800) + 0.5) / 200 - 2
    areas = [float((outline(shape, line[None, :], line[:, None]) < 0).mean() * 16) for shape in range(3)]
    assert areas == pytest.approx([np.pi] * 3, rel=0.01)


def test_shapes_reach_as_far_as_is_looked():
    angles = np.linspace(0, 2 * np.pi, 720)
    for shape, reach in enumerate(FARTHEST):
        around, nearer = (outline(shape, r * np.cos(angles), r * np.sin(angles)) for r in (reach, 0.95 * reach))
        assert around.min() > -1e-9 and nearer.min() < 0


def test_any_side_shows_the_same_scene():
    small, large = (World(side=side)[7][0][:, 0].float() for side in (16, 64))
    down = torch.nn.functional.avg_pool2d(large, 4)
    assert (small - down).abs().mean() < 12


def test_raw_pixels_tell_next_to_nothing():
    def load(world: World, n: int) -> tuple[np.ndarray, np.ndarray]:
        pairs = [world[i] for i in range(n)]
        return np.stack([p.flatten().numpy() for p, _ in pairs]) / 255, np.array([y["class"] for _, y in pairs])

    (x, y), (v, z) = load(World(side=16), 1800), load(World(side=16).held_out_source(), 900)
    chance = 1 / len(CLASSES)
    assert RidgeClassifier(alpha=1000.0).fit(x, y).score(v, z) < chance + 0.05
    assert KNeighborsClassifier(20).fit(x, y).score(v, z) < chance + 0.05


def test_held_out_is_another_split_of_the_same_world():
    held_out = World(side=16, seed=3).held_out_source()
    assert held_out.split == "val" and (held_out.side, held_out.seed, len(held_out)) == (16, 3, 2000)


def test_what_cannot_be():
    for arguments in ({"split": "vall"}, {"length": 0}, {"side": 0}, {"frames": 0}):
        with pytest.raises(ConfigError, match=r"^data\."):
            open_source({"name": "world", **arguments})
    with pytest.raises(IndexError):
        World(length=3)[3]
