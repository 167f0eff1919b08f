"""Tubes on any grid: the contract, boxes of the size that was drawn, whole tubes, refusals that do not depend on the
draw."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jepakit_tubes.random_tubes import RandomTubes
from jepakit_tubes.sizes import LEAST, Sizes, refuse
from jepakit_tubes.tubes import Tubes
from torch import Tensor

from jepakit.build import build
from jepakit.config import resolve
from jepakit.testing import CLIP_GRIDS, IMAGE_GRIDS, check_mask, check_masker
from jepakit.types import Grid, Mask
from tests.properties.shared import quick

MODES, CUTS = ("unbiased", "official"), ("both", "context", "target")
lengths, sides, batches, seeds = st.integers(1, 6), st.integers(1, 20), st.integers(1, 9), st.integers(0, 99)
modes, cuts = st.sampled_from(MODES), st.sampled_from(CUTS)
shares = st.floats(0.05, 0.95)
aspects = st.tuples(st.floats(0.2, 5.0), st.floats(0.2, 5.0)).map(sorted).map(tuple)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked(index: Tensor, grid: Grid) -> Tensor:
    """Which tokens are named, ``B t h w``."""
    return torch.zeros(len(index), grid.size, dtype=torch.bool).scatter_(1, index, True).unflatten(1, grid)


def parts(mask: Mask, grid: Grid) -> tuple[Tensor, Tensor]:
    """Context and target, ``B t h w`` each."""
    return marked(mask.context, grid), marked(mask.target[:, 0], grid)


def whole(tokens: Tensor) -> bool:
    """Whether every place is there at all times or at none."""
    return bool((tokens == tokens[:, :1]).all())


def room(masker: Tubes, grid: Grid) -> bool:
    try:
        for sizes, count in zip(masker.sizes, masker.blocks, strict=True):
            refuse(sizes, grid, count)
    except ValueError:
        return False
    return True


@quick
@given(lengths, sides, sides, batches, modes, cuts, st.tuples(shares, shares), seeds)
def test_any_grid_has_room_or_is_refused_whatever_is_drawn(t, h, w, batch, mode, cut, scales, seed):
    masker, grid = Tubes((3, 2), scales, cut=cut, mode=mode), Grid(t, h, w)
    if not room(masker, grid):
        with pytest.raises(ValueError, match=rf"no room on a grid of {t} x {h} x {w}: a block of scale "):
            masker(grid, batch, rng(seed))
        return
    masks = masker(grid, batch, rng(seed))
    assert [mask.kind for mask in masks] == [0, 1]
    for mask in masks:
        check_mask(mask, grid, batch)
        assert mask.target.shape[1] == 1 and mask.context_view == mask.target_view == 0 and mask.weight is None
        assert cut == "both" or mask.context.shape[1] + mask.target.shape[2] == grid.size
        if mode == "unbiased":
            assert all(map(whole, parts(mask, grid)))


@quick
@given(lengths, sides, sides, st.integers(1, 30), shares, aspects)
def test_refusal_is_the_worst_of_all_draws(t, h, w, blocks, scale, aspect):
    """By a fine lattice of aspects: no size that can be drawn is missing, and none is invented that matters."""
    grid, sizes = Grid(t, h, w), Sizes(scale, aspect, (1.0, 1.0))
    drawn = {sizes.fit(grid, (0.0, i / 400))[1:] for i in range(401)}
    assert drawn <= set(sizes.possible(grid))
    assert len(set(sizes.possible(grid)) - drawn) <= 2  # what only a narrow range of aspects is rounded to
    free = [1 - 1 / ((h - height + 1) * (w - width + 1)) for height, width in drawn]
    if not all(map(math.prod, drawn)) or min(free) ** blocks <= LEAST:
        with pytest.raises(ValueError, match="no room"):
            refuse(sizes, grid, blocks)


@pytest.mark.parametrize(
    "masker, grid, reason",
    [
        (Tubes(), Grid(8, 2, 2), "8 x 2 x 2: a block of scale 0.15 may have 0 x 0 tokens"),
        (Tubes(scales=(0.15, 1.0)), Grid(8, 14, 14), "scale 1.0 may have 8 x 14 x 14 tokens; 2 of that size may leave"),
        (Tubes((8, 20), (0.15, 0.9)), Grid(1, 14, 14), "scale 0.9 may have .* 20 of that size may leave no context"),
        (RandomTubes(), Grid(8, 3, 3), "8 x 3 x 3: a ratio of 0.9 leaves 0 of 9 places to see"),
        (RandomTubes(1e-12), Grid(8, 2, 2), "leaves 4 of 4 places to see"),
    ],
)
def test_grids_without_room_are_refused(masker, grid, reason):
    for seed in range(5):
        with pytest.raises(ValueError, match=f"^no room on a grid of .*{reason}"):
            masker(grid, 2, rng(seed))


@pytest.mark.parametrize("mode", MODES)
def test_the_contract_of_maskers(mode):
    check_masker(Tubes(mode=mode), (*IMAGE_GRIDS, *CLIP_GRIDS, Grid(3, 4, 11), Grid(1, 4, 4)))
    check_masker(Tubes(temporal_scale=(0.3, 0.8), max_temporal_keep=0.5, max_keep=20, mode=mode), CLIP_GRIDS)


def test_the_contract_of_maskers_random_tubes():
    check_masker(RandomTubes(), (*IMAGE_GRIDS, *CLIP_GRIDS, Grid(3, 4, 11)))


@quick
@given(lengths, st.integers(5, 20), st.integers(5, 20), st.floats(0.1, 1.0), modes, seeds)
def test_one_block_is_a_box_of_the_size_that_was_drawn(t, h, w, extent, mode, seed):
    grid, ends = Grid(t, h, w), (extent, extent)
    (mask,) = Tubes((1,), (0.3,), temporal_scale=ends, mode=mode)(grid, 1, rng(seed))
    seen, asked = parts(mask, grid)
    assert (seen != asked).all()  # a single sample is not cut
    size = tuple(len(axis.unique()) for axis in asked[0].nonzero().T)
    assert math.prod(size) == mask.target.shape[2] and size[0] == max(1, int(t * extent))
    assert size[1:] in Sizes(0.3, (0.75, 1.5), ends).possible(grid)


@pytest.mark.parametrize("mode", MODES)
def test_every_position_is_equally_likely(mode):
    """Boxes of 2 x 4 x 4 on a grid of 4 x 8 x 8, the last row, column and frame included; chi-squared stays within five
    standard deviations of its mean."""
    grid, places = Grid(4, 8, 8), (3, 5, 5)
    masker = Tubes((1,), (0.25,), aspect=(1.0, 1.0), temporal_scale=(0.5, 0.5), mode=mode)
    (mask,) = masker(grid, 6000, rng())
    assert mask.target.shape[2] == 32
    counts = torch.bincount(mask.target[:, 0, 0], minlength=grid.size).unflatten(0, grid)
    reached = counts[: places[0], : places[1], : places[2]]
    assert reached.sum() == counts.sum()
    expected, freedom = 6000 / reached.numel(), reached.numel() - 1
    assert ((reached - expected) ** 2 / expected).sum() < freedom + 5 * (2 * freedom) ** 0.5


def test_sizes_of_the_kinds_are_tied_in_the_released_collator_only():
    grid = Grid(2, 32, 32)

    def alike(mode: str) -> int:
        masker = Tubes((1, 1), (0.2, 0.2), mode=mode)
        drawn = [[parts(mask, grid)[1][0].any(0).any(1).sum() for mask in masker(grid, 1, rng(i))] for i in range(50)]
        return sum(bool(first == second) for first, second in drawn)

    assert alike("official") == 50 and alike("unbiased") < 25


@pytest.mark.parametrize("cut", CUTS)
def test_the_smallest_samples_of_a_batch_are_not_cut(cut):
    """In each batch a sample keeps all of its context, and one keeps all of its target."""
    grid = Grid(4, 10, 10)
    for mask in Tubes(cut=cut)(grid, 12, rng()):
        seen, asked = parts(mask, grid)
        rest = ~(seen | asked)
        assert rest.any() == (cut == "both") and whole(rest)
        for part in (seen, asked):
            assert torch.equal(marked(Tubes(cut=cut).shorten(part.flatten(1).numpy(), None, grid, rng()), grid), part)


def test_the_official_cut_keeps_the_first_tokens_and_the_unbiased_one_random_tubes():
    grid = Grid(4, 3, 3)
    tokens = np.zeros((2, grid.size), dtype=bool)
    tokens[0, :8], tokens[1] = True, True
    assert Tubes(mode="official").shorten(tokens, None, grid, rng()).tolist() == [[*range(8)]] * 2
    kept = [Tubes().shorten(tokens, None, grid, rng(i)) for i in range(600)]
    assert all(each[0].tolist() == [*range(8)] for each in kept)
    second = marked(torch.stack([each[1] for each in kept]), grid)
    assert whole(second)
    share = second.double().mean(0)
    assert share.min() > 2 / 9 - 0.09 and share.max() < 2 / 9 + 0.09


def test_max_keep_limits_the_context_and_cuts_one_tube_at_most():
    grid = Grid(4, 10, 10)
    for most in (4, 7, 22):
        for mask in Tubes(max_keep=most)(grid, 6, rng()):
            times = parts(mask, grid)[0].sum(1)  # B h w
            assert mask.context.shape[1] == most
            assert (((times > 0) & (times < grid.t)).flatten(1).sum(1) == (most % grid.t > 0)).all()
    lost = [Tubes(max_keep=3)(grid, 6, rng(i))[0].context // 100 for i in range(30)]
    assert len(torch.cat(lost).unique()) == grid.t  # a tube that is cut loses any of its times


@pytest.mark.parametrize("mode", MODES)
def test_a_causal_context_ends_early_and_all_that_is_later_is_imagined(mode):
    """The paper's causal multi-block: 6 of 16 frames are 3 of 8 tubelets."""
    grid = CLIP_GRIDS[0]
    for mask in Tubes(max_temporal_keep=0.375, mode=mode)(grid, 1, rng()):
        seen, asked = parts(mask, grid)
        assert seen[:, :3].any() and not seen[:, 3:].any() and asked[:, 3:].all() and whole(seen[:, :3])


def test_shorter_blocks_favour_no_frame_in_the_unbiased_mode():
    """The same for first and last; the inner ones are in more of the blocks."""
    grid, masker = Grid(6, 8, 8), Tubes((6,), (0.3,), temporal_scale=(0.5, 0.5))
    masks = [masker(grid, 32, rng(seed))[0] for seed in range(60)]
    for found in (sum(parts(mask, grid)[side].double().mean((0, 2, 3)) for mask in masks) / 60 for side in (0, 1)):
        torch.testing.assert_close(found, found.flip(0), rtol=0.05, atol=0.01)


@quick
@given(lengths, sides, sides, batches, st.floats(0.02, 0.98), seeds)
def test_random_tubes_are_whole_and_of_the_asked_share(t, h, w, batch, ratio, seed):
    masker, grid = RandomTubes(ratio), Grid(t, h, w)
    seen = math.floor(round(h * w * (1 - ratio), 6))
    if not 0 < seen < h * w:
        with pytest.raises(ValueError, match=f"no room on a grid of {t} x {h} x {w}"):
            masker(grid, batch, rng(seed))
        return
    (mask,) = masker(grid, batch, rng(seed))
    check_mask(mask, grid, batch)
    assert mask.context.shape[1] == seen * t and mask.target.shape == (batch, 1, grid.size - seen * t)
    assert all(map(whole, parts(mask, grid)))
    assert (mask.context.diff(dim=1) > 0).all() and (mask.target.diff(dim=2) > 0).all()


def test_random_tubes_lie_anywhere():
    """Chi-squared stays within five standard deviations of its mean; a tenth of 100 places is 10."""
    grid = Grid(2, 10, 10)
    (mask,) = RandomTubes()(grid, 3000, rng())
    assert mask.context.shape[1] == 20
    counts = torch.bincount(mask.context.flatten() % 100, minlength=100) / grid.t
    assert ((counts - 300) ** 2 / 300).sum() < 99 + 5 * (2 * 99) ** 0.5


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"blocks": (8,)}, "each kind of mask has a number of blocks and a scale, not 1 and 2"),
        ({"blocks": (), "scales": ()}, "not 0 and 0"),
        ({"blocks": (8, 0)}, r"blocks=\[8, 0\]: each kind has one block at least"),
        ({"scales": (0.15, 1.2)}, "scale lies above 0 and up to 1, lower end first, not 1.2 to 1.2"),
        ({"aspect": (1.5, 0.75)}, "aspect lies above 0, lower end first, not 1.5 to 0.75"),
        ({"temporal_scale": (0.0, 1.0)}, "temporal_scale lies above 0 and up to 1, lower end first, not 0.0 to 1.0"),
        ({"max_temporal_keep": 0.0}, "max_temporal_keep lies above 0 and up to 1, not 0.0"),
        ({"max_keep": 0}, "max_keep=0: a context has one token at least"),
        ({"max_keep": 9, "cut": "target"}, "max_keep=9 limits a context that is cut"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Tubes(**arguments)


def test_a_ratio_that_is_none_is_refused():
    with pytest.raises(ValueError, match="ratio lies between 0 and 1, not 1.0"):
        RandomTubes(1.0)


def test_kinds_are_lines_of_configuration():
    made = build(resolve(["recipe=demo", "masker=tubes", "masker.blocks=[3]", "masker.scales=[0.3]"]))
    (mask,) = made.masker(made.grid, 4, rng())
    assert made.masker.blocks == (3,) and mask.kind == 0
