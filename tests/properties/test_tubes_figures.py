"""What tubes look like on average, against figures taken from the released collator by running it.

They are means of 2000 batches on ``CLIP`` and of 1200 on ``WIDE``, with the settings of the paper; their standard error
is below 0.0012. ``official`` mode is held to them; ``unbiased`` mode to what it exists for: no frame and no row is
favoured, and as much is seen. Here aspects are taken evenly from their range, in place of drawing them: fewer batches
say as much.
"""

import functools

import pytest
import torch
from jepakit_tubes.tubes import Tubes

from jepakit.types import Grid, Mask

CLIP, WIDE, BATCH, BATCHES = Grid(8, 14, 14), Grid(8, 16, 16), 24, 60
GRIDS, KINDS, MODES = (CLIP, WIDE), (0, 1), ("official", "unbiased")
UNCUT = {CLIP: (0.3730, 0.1884), WIDE: (0.3807, 0.1887)}
"""Share of the grid that is context, of each kind, in batches of one; the target is all else."""
CONTEXT = {CLIP: (0.2324, 0.0631), WIDE: (0.2423, 0.0630)}
TARGET = {CLIP: (0.4795, 0.7036), WIDE: (0.4744, 0.7036)}
"""The same in batches of ``BATCH``, where both are cut."""
CONTEXT_SLICES = {  # of ``CLIP``: share of each time slice, of each kind
    0: (0.3728, 0.3728, 0.3695, 0.3341, 0.2309, 0.1161, 0.0461, 0.0168),
    1: (0.1864, 0.1474, 0.0842, 0.0428, 0.0185, 0.0106, 0.0079, 0.0071),
}
TARGET_SLICES = {
    0: (0.6272, 0.6272, 0.6272, 0.6269, 0.6099, 0.4646, 0.2017, 0.0511),
    1: (0.8129, 0.8129, 0.8129, 0.8129, 0.8129, 0.8057, 0.5777, 0.1809),
}


def maskers(mode: str) -> list[Tubes]:
    """The masker of the paper, for each of several aspects."""
    aspects = (0.75 + (number + 0.5) / BATCHES * (1.5 - 0.75) for number in range(BATCHES))
    return [Tubes(aspect=(aspect, aspect), mode=mode) for aspect in aspects]


@functools.cache
def draw(grid: Grid, mode: str) -> list[list[Mask]]:
    """Masks of several batches, of each kind."""
    rng = torch.Generator().manual_seed(0)
    return list(zip(*(masker(grid, BATCH, rng) for masker in maskers(mode)), strict=True))


def where(masks: list[Mask], grid: Grid, side: str = "context") -> torch.Tensor:
    """Share of the samples in whose context (or target) each token is, ``t h w``."""
    count = torch.zeros(grid.size, dtype=torch.float64)
    for mask in masks:
        count += torch.bincount(getattr(mask, side).flatten(), minlength=grid.size)
    return (count / len(masks) / BATCH).unflatten(0, grid)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_shares_of_single_samples(grid, kind):
    """Before the cut, which is all that the modes differ in."""
    rng, seen = torch.Generator().manual_seed(0), 0.0
    for masker in maskers("official"):
        size = masker.sizes[kind].fit(grid, (0.0, 0.0))
        seen += 1 - masker.hidden(grid, size, (64, masker.blocks[kind]), rng).mean()
    assert seen / BATCHES == pytest.approx(UNCUT[grid][kind], abs=0.008)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_shares_of_batches_are_the_same_however_they_are_cut(grid, mode, kind):
    masks = draw(grid, mode)[kind]
    for side, expected in (("context", CONTEXT), ("target", TARGET)):
        assert where(masks, grid, side).mean().item() == pytest.approx(expected[grid][kind], abs=0.01), side


@pytest.mark.parametrize("kind", KINDS)
def test_the_released_cut_starves_the_late_frames(kind):
    for side, expected in (("context", CONTEXT_SLICES), ("target", TARGET_SLICES)):
        found = where(draw(CLIP, "official")[kind], CLIP, side).mean((1, 2))
        assert found.tolist() == pytest.approx(expected[kind], abs=0.02 if side == "context" else 0.05), side


@pytest.mark.parametrize("kind", KINDS)
def test_the_unbiased_cut_favours_no_frame_and_no_row(kind):
    """Every frame is the same; top and bottom, left and right are alike, and the middle is what is hidden most."""
    for side in ("context", "target"):
        found = where(draw(CLIP, "unbiased")[kind], CLIP, side)
        assert (found == found[0]).all()
        for edge in (found.mean((0, 2)), found.mean((0, 1))):
            torch.testing.assert_close(edge, edge.flip(0), rtol=0.1, atol=0.02)
            assert (edge[0] > edge[CLIP.h // 2]) == (side == "context")
