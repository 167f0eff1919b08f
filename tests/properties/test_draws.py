"""The same generator gives the same masks as ever: runs can be repeated, and what they came to can be compared.

The digests are those of plain formulas, one operation after the other over all tokens, which the maskers had first.
"""

import hashlib

import pytest
import torch
from jepakit_multiblock import marks as rectangles
from jepakit_multiblock.comparisons import Block, Random, Rasterized
from jepakit_multiblock.multiblock import Multiblock
from jepakit_tubes import marks as tubes
from jepakit_tubes.random_tubes import RandomTubes
from jepakit_tubes.tubes import Tubes

from jepakit.protocols import Masker
from jepakit.types import Grid

IMAGES = Grid(1, 14, 14), Grid(1, 16, 16), Grid(1, 9, 13)
CLIPS = Grid(8, 14, 14), Grid(3, 6, 11), Grid(1, 9, 13)
CROWDED = {"targets": 6, "target_scale": (0.5, 0.8), "min_keep": 3}
EARLY = {"temporal_scale": (0.3, 0.8), "max_temporal_keep": 0.5, "max_keep": 21}
DIGESTS = [
    (Multiblock(), IMAGES, "a4f398283d93"),
    (Multiblock(mode="official"), IMAGES, "8f013d40232a"),
    (Multiblock(**CROWDED), IMAGES, "46d60382c24b"),
    (Multiblock(**CROWDED, mode="official"), IMAGES, "24b2b83e4352"),
    (Multiblock(allow_overlap=True), IMAGES, "9f738b9cb824"),
    (Rasterized(), IMAGES, "aee4f7030be9"),
    (Block(), IMAGES, "18f4b7dc4874"),
    (Random(targets=3), IMAGES, "1447493cc1fc"),
    (Tubes(), CLIPS, "9e3aa946ad1c"),
    (Tubes(mode="official"), CLIPS, "073b09fbb96b"),
    (Tubes(cut="context"), CLIPS, "8ed0aacba4d6"),
    (Tubes(cut="target"), CLIPS, "0e9598a8e5dc"),
    (Tubes(**EARLY), CLIPS, "7fed0a2468ce"),
    (Tubes(**EARLY, mode="official"), CLIPS, "2712c18835a4"),
    (RandomTubes(0.7), CLIPS, "e3bcfa57e9e0"),
]


def digest(masker: Masker, grids: tuple[Grid, ...]) -> str:
    """Of all masks for some batches and seeds, and of what the generator would draw next."""
    found = hashlib.sha256()
    for grid in grids:
        for seed, batch in enumerate((1, 5, 64)):
            rng = torch.Generator().manual_seed(seed)
            for mask in masker(grid, batch, rng):
                for index in (mask.context, mask.target):
                    assert index is not None
                    found.update(str(tuple(index.shape)).encode() + index.contiguous().numpy().tobytes())
            found.update(torch.rand(1, generator=rng).numpy().tobytes())
    return found.hexdigest()[:12]


@pytest.mark.parametrize("masker, grids, expected", DIGESTS)
def test_a_generator_gives_the_same_masks_as_ever(masker, grids, expected):
    assert digest(masker, grids) == expected


def coarse(shape: torch.Size, seed: int) -> torch.Tensor:
    """Draws of which many are equal, 0 among them."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 8).floor() / 8


@pytest.mark.parametrize("seed", range(5))
def test_where_draws_are_equal_it_is_the_same_tokens_too(seed, monkeypatch):
    """Those that torch's own search and sort come to, which is not the order of the tokens."""
    marks = torch.rand(30, 40, generator=torch.Generator().manual_seed(seed)) < 0.6
    count, draws = int(marks.sum(1).min()) - 2, coarse(marks.shape, seed)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws.clone())
    highest = draws.masked_fill(~marks, -1.0).topk(count, dim=1).indices.sort(1).values
    assert torch.equal(rectangles.some(marks.numpy(), count, torch.Generator()), highest)
    order = draws.argsort(1)
    ordered = marks.gather(1, order)
    kept = torch.zeros_like(marks).scatter_(1, order, ordered & (ordered.cumsum(1) <= count))
    assert torch.equal(tubes.lowest(marks.numpy(), count, draws), kept.nonzero()[:, 1].view(len(marks), -1))
