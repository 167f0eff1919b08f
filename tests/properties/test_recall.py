"""What V-JEPA 2.1 asks of the context: weights that make one mean of two, distances by brute force, a schedule."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jepakit_tubes.recall import Recall, distances
from jepakit_tubes.tubes import Tubes
from scipy.ndimage import distance_transform_edt

from jepakit.testing import CLIP_GRIDS, IMAGE_GRIDS, check_mask, check_masker
from jepakit.types import Grid
from tests.properties.shared import quick

SIDE = Grid(3, 9, 8)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@quick
@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
def test_distances_are_those_of_every_pair(t, h, w, seed):
    grid = Grid(t, h, w)
    count = int(torch.randint(1, grid.size + 1, (), generator=rng(seed)))
    order = torch.rand(3, grid.size, generator=rng(seed)).argsort(1)
    place = [(i // (h * w), i // w % h, i % w) for i in range(grid.size)]
    found = distances(order, order[:, :count], grid)
    for tokens, row in zip(order.tolist(), found.tolist(), strict=True):
        nearest = [min(math.dist(place[i], place[j]) for j in tokens[:count]) for i in tokens]
        assert row == pytest.approx(nearest, rel=1e-6)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("grid", [SIDE, Grid(8, 14, 14), Grid(1, 3, 140), Grid(140, 2, 2), Grid(5, 1, 1)])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.9])
def test_distances_are_scipys_to_the_last_bit(share, grid, whole):
    """Of places hidden at all times or not, few and many, near and farther than 16 bits can square."""
    part = grid._replace(t=1) if whole else grid
    count = max(1, int(share * part.size))
    order = torch.rand(7, part.size, generator=rng()).argsort(1)
    times = torch.arange(0, grid.size, part.size)[:, None]
    hidden, seen = ((some[:, None] + times).flatten(1) for some in (order[:, :count], order[:, count:]))
    fields = [torch.ones(grid.size, dtype=torch.bool).scatter_(0, each, False).view(*grid) for each in hidden]
    expected = torch.stack([torch.as_tensor(distance_transform_edt(each.numpy())).flatten() for each in fields])
    assert torch.equal(distances(seen, hidden, grid), expected.gather(1, seen).float())


@quick
@given(st.integers(1, 5), st.floats(0.01, 2.0), st.booleans(), st.integers(0, 40), st.integers(0, 99))
def test_one_mean_is_that_of_the_hidden_and_that_of_the_seen(batch, share, near, step, seed):
    recall = Recall(share, (10, 30), near)
    for mask, plain in zip(
        Tubes((3, 2), (0.2, 0.5), recall=share, recall_steps=(10, 30), recall_by_distance=near)(
            SIDE, batch, rng(seed), step
        ),
        Tubes((3, 2), (0.2, 0.5))(SIDE, batch, rng(seed)),
        strict=True,
    ):
        check_mask(mask, SIDE, batch)
        assert torch.equal(mask.context, plain.context) and torch.equal(mask.imagined, plain.target)
        error = torch.rand(mask.target.shape, generator=rng(seed))
        hidden, seen = error.split([plain.target.shape[2], mask.recall], dim=2)
        gap = distances(mask.context, plain.target[:, 0], SIDE) if near else torch.ones(mask.context.shape)
        expected = hidden.mean() + recall.at(step) * (seen[:, 0] / gap.sqrt()).mean()
        torch.testing.assert_close((error * mask.weight).mean(), expected)


def test_the_weight_grows_on_a_line_and_stays():
    """As released: nothing before the first step, 0.5 from the last one on."""
    recall = Recall(0.5, (15000, 30000), True)
    steps = (0, 14999, 15000, 15001, 22500, 29999, 30000, 10**6)
    assert [recall.at(step) for step in steps] == [0, 0, 0, 0.5 / 15000, 0.25, 0.5 * 14999 / 15000, 0.5, 0.5]
    assert Recall(0.5, (0, 0), False).at(0) == 0.5


def test_the_contract_of_maskers_that_ask_for_the_context():
    check_masker(Tubes(recall=0.5), (*IMAGE_GRIDS, *CLIP_GRIDS))
    (mask,) = Tubes((3,), (0.2,), recall=0.5)(SIDE, 2, rng())  # without a step: the first
    assert mask.recall and not mask.weight[:, :, -mask.recall :].any() and mask.weight[:, :, : -mask.recall].all()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"recall": -0.1}, "recall is the weight of the loss on context tokens, 0 or more, not -0.1"),
        ({"recall": 0.5, "recall_steps": (3, 2)}, r"recall_steps are a first and a last step, in order, not \[3, 2\]"),
        ({"recall_steps": (-1, 2)}, r"recall_steps are a first and a last step, in order, not \[-1, 2\]"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Tubes(**arguments)
