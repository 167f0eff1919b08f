"""The predictor keeps its contract, refuses what it cannot do, and learns to see motion without being told of any."""

import math

import pytest
import torch
from jepakit_flow.geometry import resize, warp
from jepakit_flow.predictor import FlowPredictor, shaped
from torch import Tensor, nn

from jepakit import testing
from jepakit.types import Evidence, Features, Grid, Mask
from tests.plugins_flow.pictures import moved

ASK, GRID = Mask(None, None, 0, 1), Grid(1, 1, 1)
WIDTHS = (4, 6, 6, 8)
EVERY = {"l1": 1.0, "l2": 1.0, "ssim": 1.0, "census": 1.0, "smooth": 1.0, "cycle": 1.0}


class Pyramid(nn.Module):
    """A backbone of convolutions, with the pooled last map as one more level if that is asked for."""

    width = WIDTHS[-1]

    def __init__(self, widths: tuple[int, ...] = WIDTHS, pooled: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride, padding=1)
            for before, after, stride in zip((3, *widths), widths, (2, 2, 1, 2), strict=False)
        )
        self.pooled = pooled

    def grid(self, pixels: Tensor) -> Grid:
        return GRID

    def forward(self, pixels: Tensor, keep: None = None) -> tuple[Tensor, ...]:
        maps, x = [], pixels[:, :, 0]
        for conv in self.convs:
            maps.append(x := conv(x).relu())
        levels = tuple(each.flatten(2).transpose(1, 2) for each in maps)
        return (*levels, maps[-1].mean((2, 3))[:, None]) if self.pooled else levels


def predictor(widths: tuple[int, ...] = WIDTHS, **arguments) -> FlowPredictor:
    torch.manual_seed(0)
    small = {"factor": 0.1, "radius": 2, "steps": 2, "view_shape": (3, 1, 32, 32), "grid": Grid(1, 4, 4)}
    return FlowPredictor(widths, (0.5,) * 3, (0.25,) * 3, **{**small, **arguments})


def asked(backbone: nn.Module, h: int = 32, w: int = 32, batch: int = 2) -> tuple[Features, Evidence]:
    first, second = torch.randn(2, batch, 3, 1, h, w, generator=torch.Generator().manual_seed(0))
    return backbone(first), Evidence(tuple(level.unsqueeze(1) for level in backbone(second)), first, second)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
@pytest.mark.parametrize("estimator", ["pwc", "raft"])
def test_a_guess_is_of_the_form_of_the_answers(estimator, size, pooled):
    backbone = Pyramid(pooled=pooled)
    widths = (*WIDTHS, WIDTHS[-1]) if pooled else WIDTHS
    made = predictor(widths, estimator=estimator, levels=(1, 2, 3), **EVERY)
    seen, told = asked(backbone, *size)
    guess = made(seen, ASK, GRID, told)
    assert [each.shape for each in guess.features] == [each.shape for each in told.truth]
    assert list(guess.losses) == list(EVERY) and all(torch.isfinite(loss) for loss in guess.losses.values())
    if pooled:
        torch.testing.assert_close(guess.features[-1].squeeze(1), seen[-1])
    total = torch.stack([*guess.losses.values(), *(each.square().mean() for each in guess.features)]).sum()
    testing.check_gradients(made, total)
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in backbone.parameters())


@pytest.mark.parametrize("estimator", ["pwc", "raft"])
def test_samples_and_directions_do_not_see_one_another(estimator):
    made, backbone = predictor(estimator=estimator, **EVERY).eval(), Pyramid()
    stirred(made)
    seen, told = asked(backbone)
    whole = made(seen, ASK, GRID, told)
    parts = [
        made(
            tuple(level[i : i + 1] for level in seen),
            ASK,
            GRID,
            Evidence(tuple(level[i : i + 1] for level in told.truth), told.seen[i : i + 1], told.target[i : i + 1]),
        )
        for i in range(2)
    ]
    for level, *each in zip(whole.features, *(part.features for part in parts), strict=True):
        torch.testing.assert_close(level, torch.cat(each), atol=1e-4, rtol=1e-4)
    for name in ("l1", "smooth"):
        torch.testing.assert_close(whole.losses[name], (parts[0].losses[name] + parts[1].losses[name]) / 2)
    back = Evidence(tuple(level.unsqueeze(1) for level in seen), told.target, told.seen)
    turned = made(tuple(level.squeeze(1) for level in told.truth), ASK, GRID, back)
    torch.testing.assert_close(turned.losses["l1"], whole.losses["l1"])


def stirred(made: nn.Module) -> None:
    """Weights that are not zero anywhere."""
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def test_the_guess_is_what_was_seen_moved_by_the_way_back():
    made, backbone = predictor(), Pyramid()
    stirred(made)
    seen, told = asked(backbone)
    one, other = ([shaped(level, (32, 32)) for level in levels] for levels in (seen, backbone(told.target)))
    there, back = made.both(one, other)
    assert max(flow.abs().max() for flow in there) > 0.01
    guess = made(seen, ASK, GRID, told).features
    for level, flow, found in zip(one, reversed(back), guess, strict=True):
        torch.testing.assert_close(found[:, 0], warp(level, flow).flatten(2).transpose(1, 2))
    torch.testing.assert_close(made.flow(backbone, told.seen, told.target), resize(there[-1], (32, 32)))


def test_without_training_nothing_moves():
    made, backbone = predictor(), Pyramid()
    seen, told = asked(backbone)
    for level, found in zip(seen, made(seen, ASK, GRID, told).features, strict=True):
        torch.testing.assert_close(found[:, 0], level, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (13, 45), (40, 24)])
def test_flow_of_pictures_of_any_size(size):
    made, backbone = predictor(), Pyramid()
    stirred(made)
    first, second = torch.randn(2, 2, 3, 1, *size)
    found = made.flow(backbone, first, second)
    assert found.shape == (2, 2, *size) and torch.isfinite(found).all() and not found.requires_grad


def test_one_level_of_tokens_is_a_map():
    made = predictor((6,))
    seen, told = asked(lambda pixels: (Pyramid()(pixels)[1],))
    guess = made(seen[0], ASK, GRID, told._replace(truth=told.truth[0]))
    assert isinstance(guess.features, Tensor) and guess.features.shape == told.truth[0].shape


@pytest.mark.parametrize(
    ("size", "count", "shape"), [((32, 64), 32, (4, 8)), ((7, 90), 1, (1, 1)), ((30, 20), 6, (3, 2))]
)
def test_maps_are_found_by_the_form_of_the_picture(size, count, shape):
    tokens = torch.arange(float(count)).view(1, count, 1)
    assert torch.equal(shaped(tokens, size), tokens.view(1, 1, *shape))


def test_what_is_refused():
    made, backbone = predictor(), Pyramid()
    seen, told = asked(backbone)
    chosen = Mask(torch.zeros(2, 1, dtype=torch.int64), None)
    with pytest.raises(ValueError, match="whole view to whole view"):
        made(seen, chosen, GRID, told)
    with pytest.raises(ValueError, match="asks about one view"):
        made(seen, ASK, GRID)
    with pytest.raises(ValueError, match="answers must be of the form"):
        made(seen, ASK, GRID, told._replace(truth=told.truth[:2]))
    with pytest.raises(ValueError, match="4 levels, its encoder was to have 3"):
        predictor(WIDTHS[:3])(seen, ASK, GRID, told)
    with pytest.raises(ValueError, match="7 features are no map of a picture of 32 x 32 pixels"):
        cut = tuple(level[:, :7] for level in seen)
        made(cut, ASK, GRID, told._replace(truth=tuple(level[:, :, :7] for level in told.truth)))
    with pytest.raises(ValueError, match="a view has 2 frames"):
        made(seen, ASK, GRID, told._replace(seen=told.seen.expand(-1, -1, 2, -1, -1)))


@pytest.mark.parametrize("levels", [(), (4,), (-1,), (2, 1), (1, 1)])
def test_levels_that_there_are_not(levels):
    with pytest.raises(ValueError, match="from 0, the finest, to 3"):
        predictor(levels=levels)


@pytest.mark.parametrize("estimator", ["pwc", "raft"])
def test_shapes_are_found_without_content(estimator):
    made, backbone = predictor(estimator=estimator, **EVERY).to("meta"), Pyramid().to("meta")
    pixels = torch.empty(2, 3, 1, 16, 24, device="meta")
    levels = backbone(pixels)
    guess = made(levels, ASK, GRID, Evidence(tuple(level.unsqueeze(1) for level in levels), pixels, pixels))
    assert [each.shape[2:] for each in guess.features] == [each.shape[1:] for each in levels]


@pytest.mark.parametrize("estimator", ["pwc", "raft"])
def test_bfloat16(estimator):
    """Features and convolutions are halved, places and losses are not."""
    made, backbone = predictor(estimator=estimator, **EVERY), Pyramid()
    with torch.autocast("cpu", torch.bfloat16):
        seen, told = asked(backbone)
        guess = made(seen, ASK, GRID, told)
    assert seen[0].dtype == torch.bfloat16
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in guess.losses.values())
    torch.stack(list(guess.losses.values())).sum().backward()


@pytest.mark.parametrize(("estimator", "steps"), [("pwc", 60), ("raft", 30)])
def test_motion_is_learned_from_pictures_alone(estimator, steps):
    """Textures that are shifted, and turned a little, by any amount: after some steps much of the flow of textures that
    were never seen is found."""
    generator = torch.Generator().manual_seed(0)

    def pairs(start: int, count: int) -> list[Tensor]:
        found = []
        for number in range(start, start + count):
            angle, length, turn = torch.rand(3, generator=generator).tolist()
            shift = (2 * length * math.cos(math.tau * angle), 2 * length * math.sin(math.tau * angle))
            found.append(moved(number, 20, 20, shift, 0.06 * (turn - 0.5)))
        first, second, flow = (torch.stack(each) for each in zip(*found, strict=True))
        return [*((frames[:, :, None] - 0.5) / 0.25 for frames in (first, second)), flow]

    backbone = Pyramid((16,))
    made = predictor((16,), estimator=estimator, factor=0.2, steps=2)
    first, second, _ = pairs(0, 64)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *made.parameters()], lr=2e-3)
    for _ in range(steps):
        chosen = torch.randint(64, (8,), generator=generator)
        one, other = first[chosen], second[chosen]
        truth = tuple(level.unsqueeze(1) for level in backbone(other))
        guess = made(backbone(one), ASK, GRID, Evidence(truth, one, other))
        optimizer.zero_grad()
        torch.stack(list(guess.losses.values())).sum().backward()
        optimizer.step()
    first, second, truth = pairs(1000, 16)
    error = (made.flow(backbone, first, second) - truth).norm(dim=1).mean()
    assert error < 0.8 * truth.norm(dim=1).mean(), f"{error} of {truth.norm(dim=1).mean()}"
