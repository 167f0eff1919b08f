"""Dense probes: the arithmetic against scikit-learn and plain formulas, the extremes, and reading tokens with maps."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.data import BadSample
from jepakit.data.views import side_views
from jepakit.data.world import World
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate import bootstrap, cache, dense, depth, segment
from jepakit.evaluate.data import Part
from jepakit.evaluate.dense import Dense
from jepakit.evaluate.dense_read import read
from jepakit.evaluate.depth import Depth
from jepakit.evaluate.features import Reading
from jepakit.evaluate.segment import Segment
from jepakit.types import Grid

SEGMENT = Segment("all", 60, 0.1, 8, (0.1, 0.01), (0.0,), 0.25, 0)
DEPTH = Depth("all", (1.0, 1e-2, 1e-4), 0.25)
DATA = {"name": "world", "size": 16, "mean": [0.5] * 3, "std": [0.25] * 3, "batch_size": 4, "workers": 0}
READING = Reading(DATA)


def drawn(count: int = 24, grid: tuple[int, int] = (3, 4), side: int = 8, seed: int = 0) -> Dense:
    """Tokens and classes that have nothing to do with one another; some pixels are unknown."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, math.prod(grid), 5, generator=rng, dtype=torch.float64) * torch.arange(1, 6) + 2
    maps = torch.randint(-1, 3, (count, side, side), generator=rng).to(torch.int16)
    return Dense(tokens, grid, maps, torch.arange(count))


def far(part: Dense, seed: int = 1) -> Dense:
    depths = torch.rand(part.maps.shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    return part._replace(maps=torch.where(part.maps < 0, math.nan, depths))


def standards(part: Dense) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each number of a token."""
    mean, covariance = dense.moments(part.tokens)
    return mean, dense.deviations(mean, covariance)


def interpolated(part: Dense) -> tuple[np.ndarray, np.ndarray]:
    """Standardised tokens at every known pixel by ``F.interpolate``, and what is there."""
    x = part.tokens.flatten(0, 1)
    x = ((part.tokens - x.mean(0)) / x.std(0, correction=0)).unflatten(1, part.grid).permute(0, 3, 1, 2)
    fine = F.interpolate(x, part.maps.shape[-1], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    where = dense.known(part.maps)
    return fine[where].numpy(), part.maps[where].numpy()


# Arithmetic


@pytest.mark.parametrize(("grid", "side"), [((3, 4), 8), ((4, 4), 4), ((5, 3), 2), ((1, 2), 7)])
def test_interpolation_is_that_of_torch(grid, side):
    values = torch.randn(2, math.prod(grid), 3, dtype=torch.float64)
    wanted = F.interpolate(values.unflatten(1, grid).permute(0, 3, 1, 2), side, mode="bilinear", align_corners=False)
    assert torch.allclose(dense.spread(values, grid, side), wanted.permute(0, 2, 3, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [(3, 4), (8, 8)], ids=["interpolated", "one token a pixel"])
@pytest.mark.parametrize("alpha", [1.0, 1e-3])
def test_depth_is_scikit_learns_ridge_on_interpolated_tokens(grid, alpha):
    from sklearn.linear_model import Ridge

    part = far(drawn(12, grid))
    x, y = interpolated(part)
    wanted = Ridge(alpha=alpha * len(y)).fit(x, y.astype(np.float64))
    sums = depth.normal(part, *standards(part), "cpu")
    ((weight, bias),) = sums.ridge((alpha,))
    assert weight.numpy() == pytest.approx(wanted.coef_, abs=1e-10) and bias.item() == pytest.approx(wanted.intercept_)
    error = math.sqrt(((wanted.predict(x) - y) ** 2).mean())
    assert sums.error(weight, bias) == pytest.approx(error, rel=1e-10)
    settings = dataclasses.replace(DEPTH, alphas=(alpha,))
    cell = depth.depth(part, part, None, settings)
    told = wanted.predict(x).clip(y.min(), y.max())
    assert cell["score"] == pytest.approx(math.sqrt(((told - y) ** 2).mean()), rel=1e-6)
    assert cell["abs_rel"] == pytest.approx((np.abs(told - y) / y).mean(), rel=1e-6)
    assert cell["delta"] == pytest.approx((np.maximum(told / y, y / told) < 1.25).mean(), rel=1e-6)
    assert cell["pixels"] == len(y) and cell["alpha"] == alpha


def test_many_tokens_are_interpolated_and_come_to_the_same(monkeypatch):
    part = far(drawn())
    few = depth.normal(part, *standards(part), "cpu")
    monkeypatch.setattr(depth, "MANY", 0)
    for one, other in zip(few, depth.normal(part, *standards(part), "cpu"), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-9)


def test_the_strength_is_chosen_on_what_is_held_out():
    part = far(drawn())
    fit, held = (part.part(rows) for rows in depth.split(len(part.maps), 0.75))
    sums = depth.normal(fit, *standards(part), "cpu").ridge(DEPTH.alphas)
    errors = [depth.normal(held, *standards(part), "cpu").error(*each) for each in sums]
    cell = depth.depth(part, far(drawn(6, seed=4)), None, DEPTH)
    assert list(cell["tried"].values()) == pytest.approx(errors)
    assert cell["alpha"] == DEPTH.alphas[int(np.argmin(errors))] and cell["fit"] == 24 and cell["test"] == 6


@pytest.mark.parametrize("grid", [(3, 4), (8, 8)], ids=["interpolated", "one token a pixel"])
def test_segment_is_scikit_learns_logistic_regression_on_interpolated_tokens(grid):
    from sklearn.linear_model import LogisticRegression

    part = drawn(6, grid)
    x, y = interpolated(part)
    wanted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y)
    long = dataclasses.replace(SEGMENT, steps=600, batch_size=6)
    (head,) = segment.fitted(part, long, [(0.03, 0.0)], "cpu")
    found = head(part.tokens, part.grid, part.maps.shape[-1])[dense.known(part.maps)].softmax(1)
    assert found.numpy() == pytest.approx(wanted.predict_proba(x), abs=2e-6)


def test_pieces_change_nothing(monkeypatch):
    part = drawn()
    whole, pieces = [], []
    for found, room in ((whole, 1 << 26), (pieces, 3 * 64 * 2)):
        monkeypatch.setattr(dense, "ROOM", room)
        found += segment.fitted(part, SEGMENT, [(0.1, 0.1)], "cpu")
    assert torch.allclose(whole[0].weight, pieces[0].weight, rtol=1e-9, atol=1e-12)


def test_the_mean_is_over_the_classes_that_are_there():
    truth = torch.tensor([[[0, 0], [1, -1]], [[0, 0], [0, 0]]], dtype=torch.int16)
    told = torch.tensor([[[0, 3], [1, 1]], [[0, 0], [0, 1]]])
    test = Dense(torch.zeros(2, 4, 1), (2, 2), truth, torch.arange(2))
    cell = segment.judged([told[:1], told[1:]], test, test, 4)
    assert cell["iou"] == {0: 4 / 6, 1: 1 / 2} and cell["score"] == pytest.approx((4 / 6 + 1 / 2) / 2)
    assert cell["pixel_accuracy"] == pytest.approx(5 / 7)


def test_intervals_are_those_of_resampled_samples():
    rng = np.random.default_rng(0)
    sums = torch.from_numpy(rng.integers(1, 20, (40, 2)).astype(np.float64))
    found = bootstrap.interval(sums, lambda each: each[:, 0] / each[:, 1])
    drawn_ = [sums[rng.integers(0, 40, 40)].sum(0) for _ in range(4000)]
    low, high = np.quantile([(each[0] / each[1]).item() for each in drawn_], [0.025, 0.975])
    assert found["low"] == pytest.approx(low, rel=0.02) and found["high"] == pytest.approx(high, rel=0.02)
    assert bootstrap.interval(sums[:1], lambda each: each[:, 0]) == {"low": None, "high": None}


def test_whitened_tokens_are_independent_and_lose_nothing():
    part = drawn()
    tokens = torch.cat([part.tokens, part.tokens.sum(2, keepdim=True), torch.ones_like(part.tokens[..., :1])], 2)
    mean, whiten = segment.whitening(tokens)
    white = ((tokens - mean) @ whiten).flatten(0, 1)
    assert whiten.shape == (7, 5) and torch.allclose(torch.cov(white.T, correction=0), torch.eye(5).double(), atol=1e-9)


# Extremes


def shown(count: int, tell: bool, seed: int = 0) -> Dense:
    """Classes of patches, and tokens that tell them, or nothing."""
    rng = torch.Generator().manual_seed(seed)
    classes = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), count * 16, True, generator=rng).view(count, 4, 4)
    tokens = F.one_hot(classes.flatten(1), 4).float() if tell else torch.randn(count, 16, 4, generator=rng)
    return Dense(tokens.half(), (4, 4), classes.to(torch.int16), torch.arange(count))


def test_a_perfect_feature_and_a_useless_one():
    settings = dataclasses.replace(SEGMENT, steps=150)
    perfect = segment.segment(shown(60, True), shown(40, True, 1), 4, settings)
    assert perfect["score"] == perfect["low"] == perfect["high"] == perfect["pixel_accuracy"] == 1.0
    useless, flat = shown(60, False), shown(40, False, 1)
    found = segment.segment(useless, flat, 4, settings)
    most = Dense(useless.tokens, (4, 4), useless.maps, useless.index)
    known = segment.judged([torch.zeros(40, 4, 4, dtype=torch.long)], most, flat, 4)
    assert found["score"] == pytest.approx(known["score"], abs=0.03) and found["low"] < found["score"] < found["high"]
    assert {row["lr"] for row in found["tried"]} == {0.1, 0.01} and found["lr"] in (0.1, 0.01)


def test_depth_of_a_perfect_feature_and_of_a_useless_one():
    def of(part: Dense) -> Dense:
        return part._replace(maps=part.maps.float() * 2 + 1)

    perfect = depth.depth(of(shown(60, True)), of(shown(40, True, 1)), None, dataclasses.replace(DEPTH, alphas=(1e-9,)))
    assert perfect["score"] < 1e-6 and perfect["delta"] == 1.0 and perfect["abs_rel"] < 1e-6
    fit, test = of(shown(60, False)), of(shown(40, False, 1))
    found, mean = depth.depth(fit, test, None, DEPTH), (test.maps - fit.maps.mean()).square().mean().sqrt().item()
    assert found["score"] == pytest.approx(mean, rel=0.03)


def test_constants_tell_what_each_place_shows_mostly():
    rng = torch.Generator().manual_seed(0)
    maps = (torch.rand(50, 4, 4, generator=rng) < torch.tensor([0.1, 0.9, 0.1, 0.1])).to(torch.int16)
    maps[:, 3, 3] = -1
    part = Dense(torch.zeros(50, 4, 1), (2, 2), maps, torch.arange(50))
    place = torch.tensor([0, 1, 0, 0]).expand(50, 4, 4)
    assert segment.constant(part, part, 2) == segment.judged([place], part, part, 2)
    floats = part._replace(maps=torch.where(maps < 0, math.nan, maps + 1.0))
    wanted = torch.where(maps[:1] < 0, math.nan, floats.maps.nanmean(0, keepdim=True)).expand(50, -1, -1)
    assert depth.constant(floats, floats)["score"] == pytest.approx(
        depth.judged([wanted.nan_to_num(1.0)], floats, floats)["score"]
    )


def test_the_same_twice_and_no_trace_of_it():
    fit, test = shown(30, True), shown(10, False, 2)
    before = torch.get_rng_state()
    first, again = (segment.segment(fit, test, 4, SEGMENT) for _ in range(2))
    assert first == again and torch.equal(before, torch.get_rng_state())
    assert segment.segment(fit, test, 4, dataclasses.replace(SEGMENT, seed=1)) != first


def test_a_class_of_the_test_samples_alone_counts_as_missed():
    fit, test = shown(30, True), shown(30, True, 1)
    fit = fit._replace(maps=torch.where(fit.maps == 2, 1, fit.maps))
    cell = segment.segment(fit, test, 4, SEGMENT)
    assert cell["iou"][2] == 0 and cell["iou"][0] > 0.9


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_tokens_that_are_not_finite_are_no_score(value):
    fit, test = shown(10, True), shown(10, True)
    bad = test._replace(tokens=test.tokens.index_put((torch.tensor([3]),), torch.tensor(value).half()))
    for name, pair in (("1 of 10 test", (fit, bad)), ("1 of 10 fit", (bad, test))):
        with pytest.raises(DataError, match=f"tokens of {name} samples are not finite"):
            segment.segment(*pair, 4, SEGMENT)
    nothing = fit._replace(maps=fit.maps * 0 - 1)
    with pytest.raises(DataError, match="fit samples are known nowhere"):
        segment.segment(nothing, test, 4, SEGMENT)


@pytest.mark.parametrize(
    "wrong", [{"lrs": (0.0,)}, {"warmup": 1.0}, {"held_out": 0.0}, {"weight_decays": (-1.0,)}, {"steps": 0}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(SEGMENT, **wrong)


# Reading


class Means(nn.Module):
    """A backbone: the mean colour of each patch of four pixels, of tubelets of two frames."""

    width = 3

    def __init__(self, tubelet: int = 1):
        super().__init__()
        self.tubelet, self.scale = tubelet, nn.Parameter(torch.ones(()))

    def grid(self, pixels: Tensor) -> Grid:
        return Grid(max(pixels.shape[2] // self.tubelet, 1), pixels.shape[3] // 4, pixels.shape[4] // 4)

    def forward(self, pixels: Tensor) -> Tensor:
        deep = (min(self.tubelet, pixels.shape[2]), 4, 4)
        return F.avg_pool3d(pixels, deep).flatten(2).transpose(1, 2) * self.scale


class Pyramid(Means):
    """The same, and of patches of eight, and one vector for all."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        coarse, whole = (F.avg_pool2d(pixels[:, :, 0], side) for side in (8, pixels.shape[-1]))
        rest = (each.flatten(2).transpose(1, 2).repeat(1, 1, times) for each, times in ((coarse, 2), (whole, 1)))
        return (super().forward(pixels), *rest)


class Flags:
    """Pictures whose colour is the number of their class, half and half; some maps cannot be read."""

    classes: dict[str, tuple[str, ...]] = {}
    maps = {"segment": tuple("abcde"), "depth": None}

    def __init__(self, frames: int = 1, bad: tuple[int, ...] = (), unread: tuple[int, ...] = ()):
        self.frames, self.bad, self.unread = frames, bad, unread

    def __len__(self) -> int:
        return 9

    def describe(self, index: int) -> str:
        return f"flag {index}"

    def map(self, index: int, name: str, frame: int = 0) -> Tensor:
        if index in self.bad:
            raise BadSample(self.describe(index), "no map")
        found = torch.full((16, 16), (index + frame) % 5)
        found[:, 8:] = (index + frame + 1) % 5
        return found if name == "segment" else found.float() + 1

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int]]:
        if index in self.unread:
            raise BadSample(self.describe(index), "no picture")
        frames = [self.map(index, "segment", frame) for frame in range(self.frames)] if index not in self.bad else []
        clip = torch.stack(frames) * 50 if frames else torch.zeros(self.frames, 16, 16)
        return clip.to(torch.uint8).expand(3, -1, -1, -1), {}


def whole(source: object) -> Part:
    return Part(source, torch.arange(len(source)), "all")  # type: ignore[arg-type]


def value(found: Dense) -> Tensor:
    """The class that each token was made of."""
    return (found.tokens[..., 0].float() * 0.25 + 0.5) * 255 / 50


def test_tokens_and_maps_are_of_the_same_samples():
    found = read(Means(), whole(Flags(bad=(2,), unread=(5,))), READING, "segment")
    assert found.index.tolist() == [0, 1, 3, 4, 6, 7, 8] and found.grid == (4, 4)
    assert found.tokens.dtype == torch.float16 and found.maps.shape == (7, 16, 16)
    assert torch.allclose(value(found), found.maps[:, 2::4, 2::4].flatten(1).float(), atol=0.02)
    assert found.skipped == ("flag 2: no map", "flag 5: no picture")
    cell = segment.segment(found, found, 5, dataclasses.replace(SEGMENT, steps=200, lrs=(0.3,)))
    assert 0.2 < cell["score"] <= 1


def test_tokens_that_were_read_for_one_map_serve_another(tmp_path):
    folder, calls = cache.Cache(tmp_path, 1.0), []

    def kept(part, reading, compute):
        return folder(cache.key("tokens", part, reading, ""), lambda: (calls.append(1), compute())[1])

    first, again, other = (
        read(Means(), whole(Flags()), READING, n, kept=kept) for n in ("segment", "segment", "depth")
    )
    assert len(calls) == 1 and torch.equal(first.tokens, again.tokens) and torch.equal(first.tokens, other.tokens)
    assert torch.equal(first.tokens, read(Means(), whole(Flags()), READING, "segment").tokens)
    assert torch.equal(first.maps, again.maps) and other.maps.dtype == torch.float32
    read(Means(), whole(Flags(bad=(2,))), READING, "segment", kept=kept)
    assert len(calls) == 2


@pytest.mark.parametrize(("frames", "tubelet", "frame"), [(8, 2, 4), (6, 2, 2), (5, 1, 2), (4, 4, 1)])
def test_of_clips_the_middle_is_read(frames, tubelet, frame):
    found = read(Means(tubelet), whole(Flags(frames)), READING, "segment")
    assert torch.equal(found.maps[:, 0, 0].long(), (torch.arange(9) + frame) % 5)
    assert found.tokens.shape == (9, 16, 3)
    if tubelet == 1:
        assert torch.allclose(value(found)[:, 0], found.maps[:, 0, 0].float(), atol=0.02)
    alone = read(Means(1), whole(Flags(frames)), READING._replace(alone=True), "segment")
    assert torch.allclose(value(alone)[:, 0], alone.maps[:, 0, 0].float(), atol=0.02)
    control = read(Means(tubelet), whole(Flags(frames)), READING, "segment", control=True)
    assert control.tokens.shape[:2] == (9, 16) and torch.equal(control.maps, found.maps)


@pytest.mark.parametrize(("levels", "shape"), [("all", (16, 9)), ("finest", (16, 3))])
def test_levels_of_a_pyramid(levels, shape):
    found = read(Pyramid(), whole(Flags()), READING, "depth", levels=levels)
    assert found.tokens.shape == (9, *shape) and found.grid == (4, 4) and found.maps.dtype == torch.float32
    assert torch.allclose(value(found), found.maps[:, 2::4, 2::4].flatten(1) - 1, atol=0.02)


def test_what_cannot_be_read_is_refused():
    part = whole(Flags())
    for source, words in (
        (World(8, 16), r"no map 'depht' \(did you mean 'depth'\?\)"),
        (Flags(), "its maps: segment, depth"),
    ):
        with pytest.raises(DataError, match=words):
            read(Means(), whole(source), READING, "depht")
    with pytest.raises(ConfigError, match="leave out clips= and views="):
        read(Means(), part, READING._replace(views=side_views(16, 3)), "depth")
    with pytest.raises(DataError, match="none of 9 maps can be read; first: flag 0: no map"):
        read(Means(), whole(Flags(bad=tuple(range(9)))), READING, "depth")
    with pytest.raises(DataError, match=r"16 x 3, float16\) and maps of 9 samples .* more than 3 samples are read"):
        read(Means(), part, READING._replace(memory=4000 / 2**30), "depth")

    class Vector(Means):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels).mean(1, keepdim=True)

    with pytest.raises(ConfigError, match="one vector for a picture and no patch tokens"):
        read(Vector(), part, READING, "depth")


def test_the_world_from_a_backbone_to_a_cell():
    fit, test = (World(60, 16, split, things=1, near=(0.75, 0.95), colour=0.3) for split in ("train", "val"))
    backbone = Means()
    for name, module, settings in (("segment", segment, SEGMENT), ("depth", depth, DEPTH)):
        parts = [read(backbone, whole(source), READING, name) for source in (fit, test)]
        cell = getattr(module, name)(*parts, 10, settings)
        flat = module.constant(*parts, 10)
        assert cell["low"] <= cell["score"] <= cell["high"] and cell["fit"] == cell["test"] == flat["test"] == 60
        assert all(part.maps.shape == (60, 16, 16) for part in parts) and math.isfinite(flat["score"])
    assert backbone.training, "the mode is put back"
