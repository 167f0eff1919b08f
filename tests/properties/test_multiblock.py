"""Multi-block masks on any grid: the contract, every position reached, refusals that do not depend on the draw."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jepakit_multiblock.multiblock import Multiblock
from jepakit_multiblock.sizes import Sizes, smallest

from jepakit.testing import check_mask, check_masker
from jepakit.types import Grid, Mask
from tests.properties.shared import quick

MODES = ("unbiased", "official")
sides, modes = st.integers(4, 32), st.sampled_from(MODES)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(masker: Multiblock, grid: Grid, batch: int, seed: int = 0) -> Mask:
    (mask,) = masker(grid, batch, rng(seed))
    return mask


def tried(official: bool, grid: Grid, scale: tuple[float, float], aspect: tuple[float, float]) -> int:
    """Tokens of the smallest block, by trying a fine lattice of draws."""
    found, clear, ends = math.inf, int(official), (scale[1] - scale[0], aspect[1] - aspect[0])
    for v in ((i + 0.5) / 500 for i in range(500)):
        u = v if official else 0.0
        area, ratio = int(grid.size * (scale[0] + u * ends[0])), aspect[0] + v * ends[1]
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        found = min(found, min(height, grid.h - clear) * min(width, grid.w - clear))
    return int(found)


def touched(index: torch.Tensor, grid: Grid) -> torch.Tensor:
    """How often each token is named, ``h w``."""
    return torch.bincount(index.flatten(), minlength=grid.size).view(grid.h, grid.w)


@quick
@given(sides, sides, st.integers(1, 9), modes, st.integers(0, 12), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_any_grid_has_room_or_is_refused_whatever_is_drawn(h, w, batch, mode, min_keep, targets, overlap, seed):
    masker, grid = Multiblock(targets, min_keep=min_keep, allow_overlap=overlap, mode=mode), Grid(1, h, w)
    ranges = ((0.15, 0.2), (0.75, 1.5)), ((0.85, 1.0), (1.0, 1.0))
    if min(tried(mode == "official", grid, *each) for each in ranges) <= min_keep:
        with pytest.raises(ValueError, match=rf"no room on a grid of {h} x {w}: .* min_keep={min_keep}"):
            masker(grid, batch, rng(seed))
        return
    mask = draw(masker, grid, batch, seed)
    check_mask(mask, grid, batch, overlaps=masker.overlaps)
    assert mask.target.shape[:2] == (batch, targets)
    assert mask.target.shape[2] > min_keep and mask.context.shape[1] > min_keep
    assert mask.context_view == mask.target_view == 0 and mask.weight is None


@quick
@given(
    sides,
    sides,
    st.tuples(st.floats(0.02, 0.9), st.floats(0.02, 0.9)).map(sorted).map(tuple),
    st.tuples(st.floats(0.2, 5.0), st.floats(0.2, 5.0)).map(sorted).map(tuple),
    st.booleans(),
)
def test_no_block_is_smaller_than_the_smallest(h, w, scale, aspect, official):
    grid, sizes = Grid(1, h, w), Sizes(scale, aspect, official)
    least = math.prod(smallest(sizes, grid))
    assert least <= tried(official, grid, scale, aspect)
    assert all(least <= math.prod(sizes.draw(grid, rng(i))) for i in range(20))


@quick
@given(st.integers(9, 24), st.integers(9, 24), modes, st.integers(0, 99))
def test_targets_are_rectangles_of_one_size(h, w, mode, seed):
    target = draw(Multiblock(mode=mode, min_keep=4), Grid(1, h, w), 6, seed).target
    rows, columns = target // w, target % w
    height, width = rows.amax(-1) - rows.amin(-1) + 1, columns.amax(-1) - columns.amin(-1) + 1
    assert height.unique().numel() == width.unique().numel() == 1
    assert (height * width == target.shape[-1]).all()


@pytest.mark.parametrize("mode", MODES)
def test_the_contract_of_maskers(mode):
    check_masker(Multiblock(mode=mode))
    check_masker(Multiblock(mode=mode, allow_overlap=True))
    check_masker(Multiblock(1, min_keep=0, mode=mode), grids=(Grid(1, 4, 7), Grid(1, 32, 5)))


def test_the_released_collator_stays_clear_of_the_last_row_and_column():
    grid, masker = Grid(1, 9, 13), Multiblock(mode="official", min_keep=4)
    for seed in range(30):
        mask = draw(masker, grid, 64, seed)
        for index in (mask.context, mask.target):
            assert not touched(index, grid)[-1].any() and not touched(index, grid)[:, -1].any()


def test_unbiased_masks_reach_every_token_as_context_and_as_target():
    grid, masker = Grid(1, 9, 13), Multiblock(min_keep=4)
    masks = [draw(masker, grid, 64, seed) for seed in range(30)]
    assert (sum(touched(mask.target, grid) for mask in masks) > 0).all()
    assert (sum(touched(mask.context, grid) for mask in masks) > 0).all()


@pytest.mark.parametrize("mode, positions", [("unbiased", (7, 10)), ("official", (6, 9))])
def test_every_position_is_equally_likely(mode, positions):
    """Blocks of 6 x 6 on a grid of 12 x 15; chi-squared stays within five standard deviations of its mean."""
    grid = Grid(1, 12, 15)
    masker = Multiblock(target_scale=(0.2, 0.2), target_aspect=(1.0, 1.0), mode=mode)
    target = draw(masker, grid, 5000).target
    assert target.shape[-1] == 36
    counts = touched(target[..., 0], grid)
    reached = counts[: positions[0], : positions[1]]
    assert reached.sum() == counts.sum() and (reached > 0).all()
    expected, freedom = 20000 / reached.numel(), reached.numel() - 1
    assert ((reached - expected) ** 2 / expected).sum() < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("mode, lowest, highest", [("unbiased", -0.1, 0.1), ("official", 0.97, 1.0)])
def test_scale_and_aspect_are_tied_in_the_released_collator_only(mode, lowest, highest):
    """On a grid so fine that rounding hides nothing."""
    sizes, generator = Sizes((0.15, 0.2), (0.75, 1.5), mode == "official"), rng()
    size = torch.tensor([sizes.draw(Grid(1, 64, 64), generator) for _ in range(2000)], dtype=torch.float64)
    correlation = torch.corrcoef(torch.stack([size.prod(1), size[:, 0] / size[:, 1]]))[0, 1]
    assert lowest < correlation <= highest


@pytest.mark.parametrize("mode", MODES)
def test_targets_stay_in_the_context_where_overlap_is_allowed(mode):
    grid = Grid(1, 14, 14)
    masker = Multiblock(allow_overlap=True, mode=mode)
    mask = draw(masker, grid, 20)
    rows, columns = mask.context // 14, mask.context % 14
    height, width = rows.amax(1) - rows.amin(1) + 1, columns.amax(1) - columns.amin(1) + 1
    assert masker.overlaps and (height * width == mask.context.shape[1]).all()
    seen = torch.zeros(20, grid.size, dtype=torch.bool).scatter_(1, mask.context, True)
    assert seen.gather(1, mask.target.flatten(1)).any()


def test_a_context_without_room_is_drawn_again_and_then_gives_targets_up():
    """Targets that nearly fill the grid: the context keeps more than min_keep tokens, and shares some with them."""
    grid = Grid(1, 8, 8)
    masker = Multiblock(6, target_scale=(0.8, 0.8), target_aspect=(1.0, 1.0), min_keep=30)
    mask = draw(masker, grid, 16)
    assert mask.context.shape[1] > 30
    check_mask(mask, grid, 16, overlaps=True)


@pytest.mark.parametrize(
    "grid, reason", [(Grid(1, 2, 2), "no room on a grid of 2 x 2"), (Grid(2, 14, 14), "2 x 14 x 14")]
)
@pytest.mark.parametrize("mode", MODES)
def test_grids_without_room_and_clips_are_refused(grid, reason, mode):
    with pytest.raises(ValueError, match=reason):
        Multiblock(mode=mode)(grid, 4, rng())


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"targets": 0}, "targets=0"),
        ({"target_scale": (0.2, 0.15)}, "scale is a range above 0, lower end first, not 0.2 to 0.15"),
        ({"context_aspect": (0.0, 1.0)}, "aspect .* not 0.0 to 1.0"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Multiblock(**arguments)
