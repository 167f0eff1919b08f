"""Pairs of the built-in world: the motion that is told is the motion that is seen."""

import cmath
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from jepakit.config import resolve
from jepakit.data import open_source
from jepakit.data.layers import centres, paint, trace
from jepakit.data.loader import Loader
from jepakit.data.scene import SHAPES
from jepakit.data.world_pairs import COUNT, FINEST, GRAIN, HELD_OUT, WorldPairs
from jepakit.errors import ConfigError
from jepakit.protocols import Source

TRIANGLE = math.sqrt(4 * math.pi / (3 * math.sqrt(3)))
"""From its centre to its corners."""


def warped(second: Tensor, flow: Tensor) -> Tensor:
    """What the first frame is, if the second is taken from where the flow goes."""
    x, y = (torch.arange(side) for side in flow.shape[:0:-1])
    places = torch.stack([x + flow[0], y[:, None] + flow[1]], -1)
    scaled = (places + 0.5) * 2 / flow.shape[-1] - 1
    return grid_sample(second[None], scaled[None], "bicubic", "border", align_corners=False)[0]


def within(shape: int | None, place: complex) -> bool:
    """Whether a point of the material is there: by geometry, apart from how the world does it."""
    if shape is None:
        return True
    if SHAPES[shape] == "disc":
        return abs(place) <= 1
    if SHAPES[shape] == "square":
        return max(abs(place.real), abs(place.imag)) <= math.sqrt(math.pi) / 2
    corners = [cmath.rect(TRIANGLE, math.tau * (1 / 4 + k / 3) + math.pi) for k in range(3)]
    sides = zip(corners, corners[1:] + corners[:1], strict=True)
    return all(((b - a).conjugate() * (place - a)).imag >= 0 for a, b in sides)


def test_a_pair_is_drawn_from_its_key_alone():
    one, other = WorldPairs(length=50), WorldPairs(length=9)
    assert isinstance(one, Source) and torch.equal(one[3][0], other[3][0])
    assert all(torch.equal(a, b) for a, b in zip(one.truth(3), other.truth(3), strict=True))
    pairs = [
        one[3][0],
        one[4][0],
        WorldPairs(split="val")[3][0],
        WorldPairs(split="test")[3][0],
        WorldPairs(seed=1)[3][0],
    ]
    for i, a in enumerate(pairs):
        assert a.dtype == torch.uint8 and a.shape == (3, 2, 64, 64) and not torch.equal(a[:, 0], a[:, 1])
        assert not any(torch.equal(a, b) for b in pairs[:i])
    assert one[3][1] == {} and one.describe(3) == "world_pairs seed 0 train 3"


def test_a_pair_is_what_it_ever_was():
    picture, truth = WorldPairs(seed=5)[17][0], WorldPairs(seed=5).truth(17)
    some = torch.tensor([[50, 129], [150, 114], [157, 222]])
    assert (picture[:, :, 20, 40] - some).abs().max() <= 1  # processors round sines in their own ways
    assert truth.flow[:, 20, 40].tolist() == pytest.approx([1.552, -2.468], abs=1e-3)
    assert truth.occluded is not None and truth.occluded.sum() == 415


def test_the_flow_brings_the_second_frame_back_to_the_first():
    world, errors, still = WorldPairs(), [], []
    for i in range(40):
        first, second = world[i][0].float().div(255).unbind(1)
        truth = world.truth(i)
        assert truth.known.all() and truth.occluded is not None
        seen = ~truth.occluded
        errors.append((warped(second, truth.flow) - first).abs().mean(0)[seen].mean())
        still.append((second - first).abs().mean(0)[seen].mean())
    # Two frames differ by a third of the grain's width, and soft edges and the finest waves lose by interpolation.
    assert np.mean(errors) < GRAIN / 2 < np.mean(still) / 2


def test_without_grain_only_interpolation_is_left():
    surfaces, _ = WorldPairs(things=0)._draw(1)
    first, second = (torch.from_numpy(paint(surfaces, frame, 256)).float() for frame in (0, 1))
    truth = trace(surfaces, 256, 0, 1)
    error = (warped(second, torch.from_numpy(truth.flow)) - first).abs().mean(0)[~torch.from_numpy(truth.occluded)]
    assert error.mean() < 2e-3 and (second - first).abs().mean() > 0.05


def test_occlusion_point_by_point():
    side, world = 24, WorldPairs(side=24, things=COUNT, speed=0.2)
    for index in range(4):
        surfaces = world._draw(index)[0]
        found, line = trace(surfaces, side, 0, 1), centres(side)
        for row, column in np.ndindex(side, side):
            here = complex(line[column], line[row])
            spots = [[(here - s.poses[0].shift) / s.poses[0].scale for s in surfaces]]
            number = max(n for n, (s, u) in enumerate(zip(surfaces, spots[0], strict=True)) if within(s.shape, u))
            scale, shift = surfaces[number].poses[1]
            there = scale * spots[0][number] + shift
            flow = (there - here) * side / 2
            assert found.flow[:, row, column] == pytest.approx([flow.real, flow.imag], abs=1e-4)
            over = (s for s in surfaces[number + 1 :] if within(s.shape, (there - s.poses[1].shift) / s.poses[1].scale))
            gone = max(abs(there.real), abs(there.imag)) > 1 or any(True for _ in over)
            assert found.occluded[row, column] == gone


def test_occlusion_in_the_pictures():
    """Surfaces of one colour each, painted large: a pixel is occluded where another colour is at its place."""
    side, finer = 32, 16
    for index in range(6):
        surfaces = WorldPairs(side=side, things=COUNT)._draw(index)[0]
        flat = [s._replace(colours=np.full((2, 3), 0.2 * n, np.float32)) for n, s in enumerate(surfaces)]
        first, second = (np.rint(paint(flat, frame, side * finer)[0] / 0.2) for frame in (0, 1))
        found = trace(surfaces, side, 0, 1)
        middle = slice(finer // 2, None, finer)
        row, column = np.indices((side, side)) + 0.5
        x, y = (np.floor((at + by) * finer).astype(int) for at, by in zip((column, row), found.flow, strict=True))
        inside = (x >= 0) & (x < side * finer) & (y >= 0) & (y < side * finer)
        last = side * finer - 1
        other = second[y.clip(0, last), x.clip(0, last)] != first[middle, middle]
        assert ((~inside | other) != found.occluded).mean() < 0.01 < found.occluded.mean()


def test_forth_and_back_is_no_motion():
    for index in range(10):
        surfaces = WorldPairs()._draw(index)[0]
        there, back = trace(surfaces, 64, 0, 1), trace(surfaces, 64, 1, 0)
        row, column = np.nonzero(~there.occluded)
        forth = there.flow[:, row, column]
        x, y = np.rint(column + forth[0]).clip(0, 63).astype(int), np.rint(row + forth[1]).clip(0, 63).astype(int)
        gap = np.hypot(*(forth + back.flow[:, y, x]))
        assert np.median(gap) < 0.1 and (gap < 0.5).mean() > 0.95


def test_speeds():
    for speed, turn in ((0.1, 0.4), (0.05, 1.0), (0.3, 0.0)):
        world = WorldPairs(side=32, speed=speed, turn=turn)
        far = torch.stack([world.truth(i).flow.norm(dim=0) for i in range(60)])
        assert 0.6 * speed * 32 < far.max() <= speed * 32 + 1e-4
    shifting = WorldPairs(things=0, turn=0.0).truth(0).flow
    assert shifting.std((1, 2)).max() < 1e-5 and shifting.abs().max() > 0.1
    turning = WorldPairs(things=0, turn=1.0).truth(0).flow
    assert turning.norm(dim=0)[31:33, 31:33].max() < 0.2 < turning.norm(dim=0).max()


def test_at_rest_only_the_grain_is_new():
    world = WorldPairs(speed=0.0)
    picture, truth = world[2][0].float() / 255, world.truth(2)
    assert truth.occluded is not None and truth.flow.abs().max() < 1e-6 and not truth.occluded.any()
    assert 0.01 < (picture[:, 0] - picture[:, 1]).abs().max() <= GRAIN + 1 / 255


def test_any_side_shows_the_same_scene():
    small, large = WorldPairs(side=64), WorldPairs(side=128)
    for index in (1, 7):
        picture = avg_pool2d(large[index][0].float().transpose(0, 1), 2).transpose(0, 1)
        assert (small[index][0] - picture).abs().mean() < 12
        flow = avg_pool2d(large.truth(index).flow, 2) / 2
        assert (small.truth(index).flow - flow).abs().mean() < 0.05


def test_textures_are_neither_flat_nor_too_fine():
    spectrum, smallest = np.zeros((64, 64)), []
    for index in range(30):
        grey = paint(WorldPairs(things=0)._draw(index)[0], 0, 64).mean(0)
        spectrum += np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(np.hanning(64), np.hanning(64)))) ** 2
        smallest.append(grey.reshape(8, 8, 8, 8).std((1, 3)).min() / grey.std())
    fine = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64))) > 1.2 / FINEST
    assert spectrum[fine].sum() < 0.001 * spectrum.sum()
    assert np.median(smallest) > 0.2


def test_things_and_colours():
    counts = [len(WorldPairs(length=40)._draw(i)[0]) - 1 for i in range(40)]
    assert set(counts) == {1, 2, 3} and len(WorldPairs(things=0)._draw(0)[0]) == 1
    grey = WorldPairs(colour=0.0)[0][0].float() / 255
    assert (grey.amax(0) - grey.amin(0)).max() <= GRAIN + 1 / 255


def test_the_variant_and_what_it_holds_out():
    data = resolve(["data=world_pairs_64"])["data"] | {"length": 4, "batch_size": 2, "workers": 0}
    source = open_source(data)
    (batch,) = Loader(source, data, seed=0).batches(0, 1)
    assert batch.views[0].shape == (2, 3, 2, 64, 64)
    held_out = WorldPairs(seed=3, speed=0.2).held_out_source()
    assert (len(held_out), held_out.split, held_out.seed, held_out.speed) == (HELD_OUT, "val", 3, 0.2)
    assert WorldPairs(length=4).describe_all() == "4 generated pairs of 64 x 64 pixels with known flow"


@pytest.mark.parametrize(
    "given",
    [
        {"split": "all"},
        {"length": 0},
        {"side": 0},
        {"things": 5},
        {"things": -1},
        {"speed": -0.1},
        {"turn": 2.0},
        {"colour": 2.0},
    ],
)
def test_wrong_settings(given):
    with pytest.raises(ConfigError, match=f"data.{next(iter(given))}="):
        WorldPairs(**given)


def test_past_the_end():
    for index in (-1, 3):
        with pytest.raises(IndexError, match="of 3"):
            WorldPairs(length=3)[index]
