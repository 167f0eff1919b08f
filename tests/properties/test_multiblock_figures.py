"""What multi-block masks look like on average: the sizes that the formulas allow, and which rows are favoured.

Figures of the ``official`` mode were taken from the released collator by running it; ``tests/parity`` compares whole
histograms. The ``unbiased`` mode is held to what it exists for: no row is favoured.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from jepakit_multiblock.multiblock import Multiblock

from jepakit.types import Grid, Mask

TARGETS = {  # grid: probability of each size of a target block, to .01
    14: {(5, 6): 0.27, (6, 5): 0.13, (6, 6): 0.22, (7, 5): 0.36, (8, 5): 0.03},
    16: {(5, 7): 0.05, (6, 6): 0.02, (6, 7): 0.28, (7, 6): 0.29, (8, 6): 0.30, (9, 6): 0.07},
}
TARGETS_28 = {(9, 12), (10, 12), (11, 11), (11, 12), (12, 11), (13, 11), (14, 10), (14, 11), (15, 10)}
CONTEXTS = {14: {(13, 13): 1.0}, 16: {(15, 15): 1.0}, 28: {(27, 27): 0.69, (26, 26): 0.31}}
SAMPLES = {14: 800, 16: 800, 28: 600}


def draw(masker: Multiblock, side: int, batch: int, seeds: range) -> list[Mask]:
    grid = Grid(1, side, side)
    return [masker(grid, batch, torch.Generator().manual_seed(seed))[0] for seed in seeds]


def extent(index: torch.Tensor, side: int) -> tuple[int, int]:
    """Height and width of the first block of ``index``."""
    rows, columns = index // side, index % side
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def per_row(masks: list[Mask], side: int) -> torch.Tensor:
    """Mean number of context tokens in each row of the grid."""
    counts = [torch.bincount((m.context // side).flatten(), minlength=side) / len(m.context) for m in masks]
    return torch.stack(counts).mean(0)


def enumerated(side: int, scale: tuple[float, float], aspect: tuple[float, float]) -> Counter:
    """Probability of each size, by every value of the one number that the released collator draws."""
    found, fine = Counter(), 20000
    for u in ((i + 0.5) / fine for i in range(fine)):
        area = int(side * side * (scale[0] + u * (scale[1] - scale[0])))
        ratio = aspect[0] + u * (aspect[1] - aspect[0])
        height, width = int(round(math.sqrt(area * ratio))), int(round(math.sqrt(area / ratio)))
        found[min(height, side - 1), min(width, side - 1)] += 1 / fine
    return found


@pytest.mark.parametrize("side", [14, 16, 28])
def test_sizes_are_those_of_the_released_collator(side):
    targets = enumerated(side, (0.15, 0.2), (0.75, 1.5))
    contexts = enumerated(side, (0.85, 1.0), (1.0, 1.0))
    assert dict(contexts) == pytest.approx(CONTEXTS[side], abs=0.01)
    assert {size for size, share in targets.items() if share > 0.001} == set(TARGETS.get(side, TARGETS_28))
    if side in TARGETS:
        assert {size: targets[size] for size in TARGETS[side]} == pytest.approx(TARGETS[side], abs=0.01)
    count = SAMPLES[side]
    masks = draw(Multiblock(mode="official", allow_overlap=True), side, 1, range(count))
    for expected, blocks in ((targets, [m.target[0, 0] for m in masks]), (contexts, [m.context[0] for m in masks])):
        found = Counter(extent(block, side) for block in blocks)
        assert found.keys() <= expected.keys()
        for size, share in expected.items():
            assert abs(found[size] / count - share) < 4.5 * math.sqrt(share * (1 - share) / count) + 1e-3, size


@pytest.mark.parametrize(
    "side, batch, tokens, rows",
    [  # mean context tokens; kept tokens of the top row, and of the last three rows that are used
        (16, 128, (66.5, 70.5), {0: 12.4, 12: 1.6, 13: 0.7, 14: 0.2}),
        (14, 16, (58.5, 61.5), {0: 10.5, 10: 3.6, 11: 2.6, 12: 1.25}),
    ],
)
def test_the_released_cut_starves_the_bottom_rows(side, batch, tokens, rows):
    masks = draw(Multiblock(mode="official"), side, batch, range(120 if batch > 16 else 240))
    mean = sum(m.context.shape[1] for m in masks) / len(masks)
    assert tokens[0] < mean < tokens[1]
    found = per_row(masks, side)
    for row, expected in rows.items():
        assert found[row] == pytest.approx(expected, rel=0.15, abs=0.15), row
    assert found[-1] == 0


@pytest.mark.parametrize("side", [14, 16])
def test_the_unbiased_cut_favours_no_row(side):
    """The same for top and bottom, left and right; the inner rows, which targets cover more often, keep fewer."""
    masks = draw(Multiblock(), side, 128, range(120))
    assert min(m.context.shape[1] for m in masks) > 10
    for found in (per_row(masks, side), per_row([m._replace(context=m.context % side * side) for m in masks], side)):
        torch.testing.assert_close(found, found.flip(0), rtol=0.03, atol=0.03)
        assert found.min() > 0.3 * found.max() and found[0] > found[side // 2]


def test_the_unbiased_cut_drops_random_tokens_of_what_was_seen():
    """In a sample with a longer context than the shortest, what is kept is spread over all that there was."""
    masker, grid = Multiblock(), Grid(1, 16, 16)
    seen = np.zeros((2, grid.size), dtype=bool)
    seen[0, :40], seen[1] = True, True
    kept = torch.stack([masker.cut(seen, torch.Generator().manual_seed(i))[1] for i in range(500)])
    share = torch.bincount(kept.flatten(), minlength=grid.size) / 500
    assert share.mean() == pytest.approx(40 / 256) and share.min() > 0.08 and share.max() < 0.25
