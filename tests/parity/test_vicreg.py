"""VICReg, VICRegL and Barlow Twins in float64: against formulas written out, and against lightly's implementations."""

import pytest
import torch
from jepakit_vicreg.barlow import Barlow
from jepakit_vicreg.vicreg import Vicreg
from jepakit_vicreg.vicregl import Vicregl, nearest, places
from torch import Tensor

from tests.parity.shared import close, randn

SAMPLES, TOKENS, WIDTH = 7, 3, 5
EMPTY = torch.empty(SAMPLES, 1, WIDTH, dtype=torch.float64)


def vectors(seed: int, spread: float = 0.6) -> Tensor:
    """``N D``, correlated, some of whose deviations are below one and some above."""
    mixed = randn(SAMPLES, WIDTH, seed=seed) @ randn(WIDTH, WIDTH, seed=seed + 50)
    return spread * mixed + 3


def plain_covariance(x: Tensor) -> list[list[Tensor]]:
    """Entry by entry."""
    mean = [sum(row[d] for row in x) / len(x) for d in range(x.shape[1])]
    return [
        [sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in x) / (len(x) - 1) for j in range(x.shape[1])]
        for i in range(x.shape[1])
    ]


def plain_variance(x: Tensor) -> Tensor:
    """VICReg, equation 1 with gamma 1."""
    matrix = plain_covariance(x)
    return sum(torch.clamp(1 - (matrix[d][d] + 1e-4).sqrt(), min=0) for d in range(len(matrix))) / len(matrix)


def plain_redundancy(x: Tensor) -> Tensor:
    """VICReg, equation 4."""
    matrix, width = plain_covariance(x), x.shape[1]
    return sum(matrix[i][j] ** 2 for i in range(width) for j in range(width) if i != j) / width


def both_ways(strategy: torch.nn.Module, one: Tensor, other: Tensor) -> Tensor:
    """What two views' masks, from each to the other, add to a step: the mean of their penalties."""
    forth = strategy.penalty(one[:, None], one[:, None, None], other[:, None, None])
    back = strategy.penalty(other[:, None], other[:, None, None], one[:, None, None])
    return (sum(forth.values()) + sum(back.values())) / 2


def test_terms_are_the_papers_equations():
    x = vectors(0)
    found = Vicreg(variance=1.0, covariance=1.0, scaling="paper").penalty(x[:, None], EMPTY, EMPTY)
    close(found["variance"], 2 * plain_variance(x))
    close(found["covariance"], 2 * plain_redundancy(x))
    assert 0 < plain_variance(x) < 1


def test_paper_sums_the_variance_of_both_views_and_the_released_code_averages_it():
    one, other = vectors(0), vectors(1)
    v, c = plain_variance(one) + plain_variance(other), plain_redundancy(one) + plain_redundancy(other)
    close(both_ways(Vicreg(scaling="paper"), one, other), 25 * v + c)
    close(both_ways(Vicreg(scaling="released"), one, other), 25 * v / 2 + c)


def test_released_scaling_is_lightlys():
    from lightly.loss import VICRegLoss

    one, other = vectors(0).requires_grad_(), vectors(1).requires_grad_()
    found = both_ways(Vicreg(), one, other) + 25 * torch.nn.functional.mse_loss(one, other)
    expected = VICRegLoss()(one, other)
    close(found, expected)
    for a, b in zip(torch.autograd.grad(found, (one, other)), torch.autograd.grad(expected, (one, other)), strict=True):
        close(a, b)


def test_invariance_beside_the_distance():
    """C-JEPA's third term: between mean tokens, whatever their number."""
    seen, truth = randn(SAMPLES, TOKENS, WIDTH), randn(SAMPLES, 2, 4, WIDTH, seed=1)
    found = Vicreg(variance=0.0, covariance=0.0, invariance=3.0).penalty(seen, truth, truth)["invariance"]
    close(found, 3 * (seen.mean(1) - truth.mean((1, 2))).square().sum() / (SAMPLES * WIDTH))


@pytest.mark.parametrize("tokens", ["mean", "each", "all"])
def test_what_a_sample_is(tokens):
    x = vectors(0).unsqueeze(1) + randn(SAMPLES, TOKENS, WIDTH, seed=2)
    found = Vicreg(variance=1.0, covariance=1.0, tokens=tokens).penalty(x, EMPTY, EMPTY)
    sets = {"mean": [x.mean(1)], "each": list(x.unbind(1)), "all": [x.reshape(-1, WIDTH)]}[tokens]
    close(found["variance"], torch.stack([plain_variance(each) for each in sets]).mean())
    close(found["covariance"], 2 * torch.stack([plain_redundancy(each) for each in sets]).mean())


def test_levels_of_a_pyramid_are_weighed_and_named():
    x = randn(SAMPLES, 9, 2), randn(SAMPLES, 4, WIDTH), randn(SAMPLES, 1, WIDTH)
    found = Vicreg(tokens="all", levels=(0.0, 0.5, 2.0)).penalty(x, EMPTY, EMPTY)
    assert list(found) == ["variance_1", "covariance_1", "variance_2", "covariance_2"]
    close(found["variance_1"], 0.5 * 25 * plain_variance(x[1].flatten(0, 1)))
    close(found["covariance_2"], 2 * 2 * plain_redundancy(x[2].flatten(0, 1)))
    with pytest.raises(ValueError, match="levels has 3 weights, the features have 2 levels"):
        Vicreg(levels=(1.0, 1.0, 1.0)).penalty(x[:2], EMPTY, EMPTY)


def test_each_token_is_lightlys_map():
    from lightly.loss.vicreg_loss import covariance_loss, variance_loss

    x = randn(SAMPLES, TOKENS, WIDTH)
    found = Vicreg(variance=1.0, covariance=1.0, tokens="each").penalty(x, EMPTY, EMPTY)
    close(found["variance"], variance_loss(x))
    close(found["covariance"], 2 * covariance_loss(x))


def test_barlow_is_the_papers_equation():
    one, other = vectors(0), vectors(1)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(WIDTH):
        for j in range(WIDTH):
            a, b = (x[:, d] - x[:, d].sum() / SAMPLES for x, d in ((one, i), (other, j)))
            scale = ((a.square().sum() / SAMPLES + 1e-5) * (b.square().sum() / SAMPLES + 1e-5)).sqrt()
            c = (a * b).sum() / SAMPLES / scale
            total = total + ((1 - c) ** 2 if i == j else 0.005 * c**2)
    close(both_ways(Barlow(), one, other), total)


def test_barlow_is_lightlys():
    from lightly.loss import BarlowTwinsLoss

    one, other = vectors(0).requires_grad_(), vectors(1).requires_grad_()
    found, expected = both_ways(Barlow(), one, other), BarlowTwinsLoss()(one, other)
    close(found, expected)
    for a, b in zip(torch.autograd.grad(found, (one, other)), torch.autograd.grad(expected, (one, other)), strict=True):
        close(a, b)


def maps(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A map of nine local features, a global vector, and how the view came about: a crop, half of them mirrored."""
    corner, size = randn(SAMPLES, 2, seed=seed).sigmoid() / 2, 0.2 + randn(SAMPLES, 2, seed=seed + 1).sigmoid() / 4
    mirrored, colours = torch.arange(SAMPLES)[:, None] % 2, randn(SAMPLES, 3, seed=seed)
    how = torch.cat([corner, corner + size, mirrored, colours], 1)
    return randn(SAMPLES, 9, WIDTH, seed=seed), randn(SAMPLES, 4, seed=seed + 1), how


def plain_places(how: Tensor) -> Tensor:
    """Of each cell of a mirrored or plain 3 x 3 grid, the middle."""
    rows = []
    for left, top, right, bottom, mirrored, *_ in how.tolist():
        columns = [2, 1, 0] if mirrored else [0, 1, 2]
        rows.append(
            [
                (left + (right - left) * (2 * column + 1) / 6, top + (bottom - top) * (2 * row + 1) / 6)
                for row in range(3)
                for column in columns
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)


def test_places_are_the_middles_of_cells():
    _, _, how = maps(0)
    close(places(how, 9), plain_places(how))
    with pytest.raises(ValueError, match="square"):
        places(how, 8)


def test_vicregl_is_lightlys():
    """Two views, matched in content and in place, more pairs on one side than on the other."""
    from lightly.loss import VICRegLLoss

    (a, u, here), (b, v, there) = maps(0), maps(3)
    strategy = Vicregl(matches=(5, 2))
    total = torch.zeros((), dtype=torch.float64)
    for one, other, how in (((a, u), (b, v), (here, there)), ((b, v), (a, u), (there, here))):
        guess, truth = ((x[:, None], y[:, None, None]) for x, y in (one, other))  # blocks of a mask
        total = total + sum(strategy.penalty(guess, guess, truth, how).values()) / 2
    views = [(u, a.unflatten(1, (3, 3))), (v, b.unflatten(1, (3, 3)))]
    grids = [plain_places(how).unflatten(1, (3, 3)) for how in (here, there)]
    close(total, VICRegLLoss(num_matches=(5, 2))(views, grids).squeeze())


def test_matches_are_the_nearest_pairs():
    """One sample at a time, by hand: the three tokens with the nearest partner, and these."""
    (a, _, _), (b, _, _) = maps(0), maps(3)
    found = nearest(a, b, a, b, 3)
    for row in range(SAMPLES):
        pairs = [(*min((float((x - y).norm()), j) for j, y in enumerate(b[row])), i) for i, x in enumerate(a[row])]
        best = sorted(pairs)[:3]
        close(found[0][row], torch.stack([a[row, i] for _, _, i in best]))
        close(found[1][row], torch.stack([b[row, j] for _, j, _ in best]))


@pytest.mark.parametrize("strategy", [Vicreg(tokens="each"), Vicreg(invariance=1.0, of="guess"), Barlow(), Vicregl()])
def test_gradients_are_those_of_differences(strategy):
    def total(seen: Tensor, guess: Tensor, truth: Tensor) -> Tensor:
        return sum(strategy.penalty(seen, guess, truth).values())

    parts = randn(4, 2, 3), randn(4, 1, 2, 3, seed=1), randn(4, 1, 2, 3, seed=2)
    assert torch.autograd.gradcheck(total, [(0.5 * part).requires_grad_() for part in parts])
