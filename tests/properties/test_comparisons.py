"""The masks of I-JEPA's comparisons on any grid: disjoint, of the paper's shape and share, or refused at once."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jepakit_multiblock.comparisons import QUADRANTS, Block, Random, Rasterized
from jepakit_multiblock.multiblock import Multiblock
from jepakit_multiblock.sizes import Sizes, may_fill

from jepakit.build import build
from jepakit.config import resolve
from jepakit.testing import CLIP_GRIDS, IMAGE_GRIDS, check_mask, check_masker
from jepakit.types import Grid, Mask
from tests.properties.shared import quick

PAPER = (Grid(1, 14, 14), Grid(1, 16, 16))
sides, batches, seeds = st.integers(1, 24), st.integers(1, 9), st.integers(0, 99)
shares = st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)).map(sorted).map(tuple)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(masker, grid: Grid, batch: int, seed: int = 0) -> Mask:
    (mask,) = masker(grid, batch, rng(seed))
    check_mask(mask, grid, batch)
    assert mask.context_view == mask.target_view == mask.kind == 0 and mask.weight is None
    return mask


def rectangles(index: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, ...]:
    """Top, left, height and width of each row of tokens, which has to be a whole rectangle."""
    rows, columns = index // grid.w, index % grid.w
    top, left = rows.amin(-1), columns.amin(-1)
    height, width = rows.amax(-1) - top + 1, columns.amax(-1) - left + 1
    assert (height * width == index.shape[-1]).all()
    return top, left, height, width


def share(mask: Mask, grid: Grid) -> float:
    """Of the grid, what is seen."""
    return mask.context.shape[1] / grid.size


@quick
@given(sides, sides, batches, st.sampled_from(["drawn", *QUADRANTS]), seeds)
def test_quadrants_lie_about_one_corner_and_do_not_overlap(h, w, batch, context, seed):
    masker, grid = Rasterized(context), Grid(1, h, w)
    if min(h, w) < 2:
        with pytest.raises(ValueError, match=f"no room on a grid of {h} x {w}: it has no four quadrants"):
            masker(grid, batch, rng(seed))
        return
    mask = drawn(masker, grid, batch, seed)
    assert mask.target.shape[1] == 3
    quadrants = torch.cat([mask.context.unsqueeze(1), mask.target], dim=1)
    assert all(len(sample.unique()) == sample.numel() for sample in quadrants)
    top, left, height, width = rectangles(quadrants, grid)
    assert (height == h // 2).all() and (width == w // 2).all()
    for found, side in ((top, h), (left, w)):
        assert (found.amax(1) - found.amin(1) == side // 2).all() and (found.amin(1) <= side % 2).all()
    if context != "drawn":
        assert ((top[:, 0] > top.amin(1)) == context.startswith("bottom")).all()
        assert ((left[:, 0] > left.amin(1)) == context.endswith("right")).all()


@quick
@given(sides, sides, batches, shares, shares.map(lambda each: (each[0] * 3, each[1] * 3)), seeds)
def test_a_block_and_what_lies_around_it_make_up_the_grid(h, w, batch, scale, aspect, seed):
    masker, grid = Block(scale, aspect), Grid(1, h, w)
    try:
        masker.refuse(grid)
    except ValueError as error:
        assert str(error).startswith(f"no room on a grid of {h} x {w}: ")
        with pytest.raises(ValueError, match="no room"):
            masker(grid, batch, rng(seed))
        return
    mask = drawn(masker, grid, batch, seed)
    rectangles(mask.target, grid)
    assert mask.target.shape[1] == 1 and mask.target.shape[2] + mask.context.shape[1] == grid.size


@quick
@given(sides, sides, shares, shares.map(lambda each: (each[0] * 3, each[1] * 3)))
def test_no_block_fills_a_grid_that_was_not_refused(h, w, scale, aspect):
    """By every aspect at the largest area, and by draws."""
    grid, sizes, most = Grid(1, h, w), Sizes(scale, aspect, False), int(h * w * scale[1])
    ratios = [aspect[0] + i / 500 * (aspect[1] - aspect[0]) for i in range(501)] if most else []
    fills = any(round(math.sqrt(most * r)) >= h and round(math.sqrt(most / r)) >= w for r in ratios)
    assert may_fill(sizes, grid) or not fills
    assert may_fill(sizes, grid) or all(sizes.draw(grid, rng(i)) != (h, w) for i in range(20))


@quick
@given(st.integers(1, 4), sides, sides, batches, shares, st.integers(1, 5), seeds)
def test_random_tokens_are_dealt_out_evenly(t, h, w, batch, ratio, targets, seed):
    masker, grid = Random(ratio, targets), Grid(t, h, w)
    fewest, most = int(grid.size * (1 - ratio[1])), int(grid.size * (1 - ratio[0]))
    if not fewest or grid.size - most < targets:
        with pytest.raises(ValueError, match=f"no room on a grid of {t} x {h} x {w}: .* targets={targets}"):
            masker(grid, batch, rng(seed))
        return
    mask = drawn(masker, grid, batch, seed)
    seen, asked = mask.context.shape[1], mask.target.shape[2]
    assert fewest <= seen <= most and mask.target.shape[1] == targets
    assert all(len(sample.unique()) == sample.numel() for sample in mask.target)
    assert 0 <= grid.size - seen - asked * targets < targets  # what does not go round


@pytest.mark.parametrize(
    "masker", [Rasterized(), Block(), Random(), Random((0.4, 0.6), 3)], ids=lambda m: type(m).__name__
)
def test_the_contract_of_maskers(masker):
    check_masker(masker, IMAGE_GRIDS)


def test_random_takes_clips_and_the_others_say_that_they_do_not():
    check_masker(Random(), CLIP_GRIDS)
    for masker in (Rasterized(), Block()):
        with pytest.raises(ValueError, match="masks single frames, the grid is 8 x 14 x 14"):
            masker(*CLIP_GRIDS, 2, rng())


@pytest.mark.parametrize("grid", PAPER, ids=str)
def test_shares_are_those_of_table_6(grid):
    assert share(drawn(Rasterized(), grid, 8), grid) == 0.25
    assert share(drawn(Random(), grid, 8), grid) == pytest.approx(0.4, abs=1 / grid.size)
    blocks = [share(drawn(Block(), grid, 8, seed), grid) for seed in range(300)]
    assert sum(blocks) / len(blocks) == pytest.approx(0.4, abs=0.01)
    assert min(blocks) > 0.33 and max(blocks) < 0.47  # sides are whole tokens


@pytest.mark.parametrize("masker", [Rasterized(), Block(), Random()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("grid", [Grid(1, 8, 8), Grid(1, 7, 9)], ids=str)
def test_every_token_is_seen_now_and_imagined_then_but_a_block_hides_the_middle(masker, grid):
    masks = [drawn(masker, grid, 64, seed) for seed in range(30)]
    seen = set(torch.cat([mask.context.flatten() for mask in masks]).tolist())
    asked = set(torch.cat([mask.target.flatten() for mask in masks]).tolist())
    assert len(asked) == grid.size
    if isinstance(masker, Block):  # wherever it lies, a block of more than half of each side covers the middle
        assert grid.h // 2 * grid.w + grid.w // 2 not in seen
    else:
        assert len(seen) == grid.size


@pytest.mark.parametrize("grid", [Grid(1, 8, 8), Grid(1, 7, 9)], ids=str)
def test_each_quadrant_is_as_likely_to_be_seen(grid):
    top, left, _, _ = rectangles(drawn(Rasterized(), grid, 4000).context, grid)
    counts = torch.bincount((top >= grid.h // 2) * 2 + (left >= grid.w // 2), minlength=4)
    assert grid.h % 2 or ((counts - 1000).abs() < 5 * 1000**0.5).all()
    assert (counts > 400).all()  # on odd sides a lower quadrant may begin a row later, and an upper one too


def test_random_tokens_are_all_as_likely_to_be_seen():
    """Chi-squared stays within five standard deviations of its mean."""
    grid = Grid(1, 8, 8)
    context = drawn(Random(), grid, 4000).context
    expected = context.numel() / grid.size
    chi = ((torch.bincount(context.flatten(), minlength=grid.size) - expected) ** 2 / expected).sum()
    assert chi < 63 + 5 * (2 * 63) ** 0.5


def test_random_official_draws_its_ratio_for_a_batch():
    """The released collator: 0.4 to 0.6 of the tokens are imagined, all others seen."""
    grid = PAPER[0]
    masks = [drawn(Random((0.4, 0.6)), grid, 4, seed) for seed in range(200)]
    seen = [mask.context.shape[1] for mask in masks]
    assert min(seen) >= 78 and max(seen) <= 117 and len(set(seen)) > 30
    assert all(mask.context.shape[1] + mask.target.shape[2] == grid.size for mask in masks)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda: Block(scale=(0.7, 0.6)), "scale is a range above 0, lower end first, not 0.7 to 0.6"),
        (lambda: Block(aspect=(0.0, 1.0)), "aspect .* not 0.0 to 1.0"),
        (lambda: Block((1.0, 1.0), (1.0, 1.0))(Grid(1, 8, 8), 2, rng()), "a block of scale 1.0 may fill it"),
        (lambda: Block((0.01, 0.6))(Grid(1, 8, 8), 2, rng()), "a block of 0 x 0 tokens is none"),
        (lambda: Random((0.6, 0.4)), "ratio is a range between 0 and 1, lower end first, not 0.6 to 0.4"),
        (lambda: Random((0.5, 1.0)), "ratio is a range between 0 and 1"),
        (lambda: Random(targets=0), "targets=0"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


TABLE_8 = [
    {"target_scale": (low, high)}
    for low, high in ((0.075, 0.2), (0.1, 0.2), (0.125, 0.2), (0.15, 0.2), (0.2, 0.25), (0.2, 0.3))
]
TABLE_9 = [{"context_scale": (low, 1.0)} for low in (0.4, 0.65, 0.75, 0.85)]
TABLE_10 = [{"targets": count} for count in (1, 2, 3, 4)]


@pytest.mark.parametrize("mode", ["unbiased", "official"])
@pytest.mark.parametrize("setting", [*TABLE_8, *TABLE_9, *TABLE_10], ids=str)
def test_every_setting_of_tables_8_to_10_has_room(setting, mode):
    for grid in PAPER:
        for seed in range(3):
            mask = drawn(Multiblock(**setting, mode=mode), grid, 16, seed)
            assert mask.target.shape[1] == setting.get("targets", 4) and mask.context.shape[1] > 10


def test_multiblock_settings_act_on_what_is_seen_as_the_tables_order_them():
    """Smaller and fewer targets, and larger contexts, leave more to see."""

    def seen(settings: list[dict]) -> list[float]:
        maskers = (Multiblock(**setting) for setting in settings)
        return [sum(share(drawn(each, PAPER[0], 16, s), PAPER[0]) for s in range(12)) for each in maskers]

    assert seen(TABLE_8[:5]) == sorted(seen(TABLE_8[:5]), reverse=True)
    assert seen(TABLE_9) == sorted(seen(TABLE_9))
    assert seen(TABLE_10) == sorted(seen(TABLE_10), reverse=True)


def test_a_setting_without_room_says_so():
    with pytest.raises(ValueError, match="no room on a grid of 8 x 8: a block of .* not more than min_keep=10"):
        Multiblock(target_scale=(0.075, 0.2))(Grid(1, 8, 8), 4, rng())


@pytest.mark.parametrize("setting", ["rasterized", "block", "random", "random_official"])
def test_each_is_a_line_of_configuration(setting):
    built = build(resolve(["recipe=demo", f"masker={setting}", "data.batch_size=4"]))
    assert drawn(built.masker, built.grid, 4).target.shape[1] == (3 if setting == "rasterized" else 1)
