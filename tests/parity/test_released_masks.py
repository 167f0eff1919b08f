"""The official masks are drawn from the released collator's distribution: its counts and ours, bin by bin.

Its counts are in ``released/`` (see the README there). Seeds are fixed, so a verdict stays what it is. Every statistic
must also tell the unbiased masks apart: a comparison that cannot fail says nothing.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from jepakit_multiblock.multiblock import Multiblock
from torch import Tensor

from jepakit.marks import inside
from jepakit.types import Grid, Mask

FOLDER = Path(__file__).parent / "released"
SIDES = (14, 16, 28)
DRAWS = {1: 1000, 16: 300, 128: 100}
"""Batches that are drawn here, by the number of their samples."""
FEW = 10
"""Counts that are expected in a bin, at least."""
LEAST = 1e-4
"""Of the chance that two samples of one distribution differ that much; there are about 150 comparisons."""


@cache
def released(name: int | str) -> dict[str, Any]:
    return json.loads((FOLDER / f"masks_{name}.json").read_text("utf-8"))


def draw(side: int, batch: int, **arguments: Any) -> Iterator[Mask]:
    masker, rng = Multiblock(**arguments), torch.Generator().manual_seed(side + batch)
    return (masker(Grid(1, side, side), batch, rng)[0] for _ in range(DRAWS[batch]))


@cache
def figures(side: int, batch: int, mode: str) -> dict[str, Any]:
    """The counts that are kept of the released collator, of masks drawn here."""
    found: dict[str, Any] = {"batches": DRAWS[batch]} | {key: Counter() for key in ("target_sizes", "kept", "covered")}
    found |= {key: defaultdict(Counter) for key in ("top", "left")}
    places = {key: torch.zeros(side * side) for key in ("context", "context_squares", "target", "target_squares")}
    for mask in draw(side, batch, mode=mode):
        height, width = size(mask.target[0, 0], side)
        found["target_sizes"][f"{height}x{width}"] += 1
        found["top"][str(height)].update((mask.target[..., 0] // side).flatten().tolist())
        found["left"][str(width)].update((mask.target[..., 0] % side).flatten().tolist())
        found["kept"][str(mask.context.shape[1])] += 1
        found["covered"].update(str(len(sample.unique())) for sample in mask.target[:1])
        for key, index in (("context", mask.context), ("target", mask.target)):
            counts = torch.bincount(index.flatten(), minlength=side * side)
            places[key] += counts
            places[f"{key}_squares"] += counts**2
    return found | places


def size(index: Tensor, side: int) -> tuple[int, int]:
    """Height and width of the block that spans ``index``."""
    rows, columns = index // side, index % side
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def chance(one: Mapping[Any, int], other: Mapping[Any, int]) -> float:
    """That two samples of one distribution differ by so much or more: chi-squared of two histograms."""
    table = torch.tensor(_bins(one, other), dtype=torch.float64)
    totals = table.sum(0)
    expected = table.sum(1)[:, None] * totals / totals.sum()
    freedom = torch.tensor((len(table) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, ((table - expected) ** 2 / expected).sum() / 2)) if freedom else 1.0


def _bins(one: Mapping[Any, int], other: Mapping[Any, int]) -> list[list[int]]:
    """Counts of both, side by side. Neighbours are put together until chi-squared, a limit of many counts, holds."""
    bins, fewer = [[0, 0]], min(sum(one.values()), sum(other.values())) / (sum(one.values()) + sum(other.values()))
    for key in sorted(one.keys() | other.keys(), key=lambda each: f"{each:0>5}"):
        if sum(bins[-1]) * fewer >= FEW:
            bins.append([0, 0])
        bins[-1] = [bins[-1][0] + one.get(key, 0), bins[-1][1] + other.get(key, 0)]
    if len(bins) > 1 and sum(bins[-1]) * fewer < FEW:
        bins[-2:] = [[sum(side) for side in zip(*bins[-2:], strict=True)]]
    return bins


def sizes(side: int, batch: int, mode: str) -> float:
    return chance(figures(side, batch, mode)["target_sizes"], released(side)[str(batch)]["target_sizes"])


def corners(side: int, batch: int, mode: str) -> float:
    """Top rows of blocks of each height, left columns of blocks of each width."""
    found, expected = figures(side, batch, mode), released(side)[str(batch)]
    return min(
        chance(found[key][span], dict(enumerate(expected[key][span])))
        for key in ("top", "left")
        for span in found[key].keys() & expected[key].keys()
    )


def kept(side: int, batch: int, mode: str) -> float:
    """Context tokens: of single samples what there is, of a batch what is left after the cut."""
    return chance(figures(side, batch, mode)["kept"], released(side)[str(batch)]["kept"])


def covered(side: int, batch: int, mode: str) -> float:
    """Tokens that are in a target block or several: how the four blocks lie to one another."""
    return chance(figures(side, batch, mode)["covered"], released(side)[str(batch)]["covered"])


def places(side: int, batch: int, mode: str) -> float:
    """How often each token is context, and target. Samples of a batch are alike, so the batches are what is counted."""
    found, expected = figures(side, batch, mode), released(side)[str(batch)]
    expected = {"context_squares": expected["context"]} | expected  # of one sample a token is there or not
    return min(_places(found, expected, key) for key in ("context", "target"))


def _places(one: dict[str, Any], other: dict[str, Any], key: str) -> float:
    means, spreads = [], []
    for each in (one, other):
        counts, squares = (torch.as_tensor(each[name], dtype=torch.float64) for name in (key, f"{key}_squares"))
        means.append(counts / each["batches"])
        spreads.append((squares / each["batches"] - means[-1] ** 2) / each["batches"])
    apart, spread = (means[0] - means[1]).abs(), (spreads[0] + spreads[1]).sqrt()
    if (apart[spread == 0] > 0).any():
        return 0.0
    farthest = (apart / spread)[spread > 0].max()
    return float(min(1.0, len(apart) * torch.erfc(farthest / 2**0.5)))


CASES = [(each, side, batch) for each in (sizes, corners, kept) for side in SIDES for batch in DRAWS]
CASES += [(covered, side, 1) for side in SIDES] + [(places, side, batch) for side in SIDES for batch in (1, 128)]


@pytest.mark.parametrize("statistic, side, batch", CASES, ids=lambda each: getattr(each, "__name__", each))
def test_official_masks_are_the_released_ones(statistic, side, batch):
    assert statistic(side, batch, "official") > LEAST


@pytest.mark.parametrize("statistic, batch", [(sizes, 1), (corners, 128), (kept, 128), (covered, 1), (places, 128)])
def test_unbiased_masks_are_told_apart(statistic, batch):
    assert statistic(SIDES[0], batch, "unbiased") < LEAST


@pytest.mark.parametrize("side", SIDES)
def test_sizes_of_the_context_block(side):
    """Seen where targets are left in it."""
    found = Counter(size(mask.context[0], side) for mask in draw(side, 1, mode="official", allow_overlap=True))
    assert chance({f"{h}x{w}": n for (h, w), n in found.items()}, released(side)["1"]["context_sizes"]) > LEAST


def test_targets_are_given_up_as_the_released_collator_does():
    """Targets of 6 x 6 on a grid of 10 x 10, a context of 7 x 7 that must keep more than 20: most give targets up."""
    grid, rng, expected = Grid(1, 10, 10), torch.Generator().manual_seed(10), released("crowded")
    masker = Multiblock(mode="official", min_keep=20)
    blocks = inside(grid, (6, 6), masker.first(grid, (6, 6), (4, 5000), rng))
    seen = masker.seen(grid, (7, 7), blocks, rng)
    shared = (seen & blocks.any(0)).sum(1)
    assert expected["shared"]["0"] < expected["batches"] / 2
    for counts, theirs in ((seen.sum(1), expected["kept"]), (shared, expected["shared"])):
        assert chance({str(key): n for key, n in Counter(counts.tolist()).items()}, theirs) > LEAST
