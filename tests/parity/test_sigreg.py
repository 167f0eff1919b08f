"""SIGReg in float64: against the statistic written out, and against lightly's implementation on the same slices."""

import math

import pytest
import torch
from jepakit_sigreg.sigreg import Sigreg
from jepakit_sigreg.statistics import directions, epps_pulley
from torch import Tensor

from jepakit import seeds
from tests.parity.shared import close, randn

SAMPLES, TOKENS, WIDTH, SLICES = 6, 3, 5, 4


def plain_statistic(x: list[float], knots: int, reach: float) -> float:
    """N times the integral over both signs of t, by the trapezoid rule, one knot after the other."""

    def apart(t: float) -> float:
        real, imaginary = (sum(f(t * each) for each in x) / len(x) for f in (math.cos, math.sin))
        return abs(complex(real, imaginary) - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)

    places = [reach * k / (knots - 1) for k in range(1 - knots, knots)]
    return len(x) * sum((apart(a) + apart(b)) / 2 * (b - a) for a, b in zip(places, places[1:], strict=False))


def exactly(statistics: list[float]) -> Tensor:
    """Their mean."""
    return torch.tensor(statistics, dtype=torch.float64).mean()


def drawn(strategy: Sigreg, width: int = WIDTH) -> Tensor:
    return directions(width, strategy.slices, seeds.generator("sigreg", strategy.now)).double()


@pytest.mark.parametrize(("knots", "reach"), [(17, 3.0), (10, 5.0)])
def test_statistic_is_epps_and_pulleys(knots, reach):
    x = randn(SAMPLES) * 1.3 + 0.2
    close(epps_pulley(x.view(-1, 1, 1), knots, reach).squeeze(), exactly([plain_statistic(x.tolist(), knots, reach)]))


def test_integral_is_exact_enough():
    """The 17 knots against the closed form of the integral over the whole line (Epps and Pulley; BHEP, beta 1)."""
    x = randn(50)
    apart = (-(x[:, None] - x).square() / 2).exp().sum() / 50 - math.sqrt(2) * (-x.square() / 4).exp().sum()
    exact = math.sqrt(2 * math.pi) * (apart + 50 / math.sqrt(3))
    assert abs(epps_pulley(x.view(-1, 1, 1)).item() / exact.item() - 1) < 0.02


def test_penalty_is_the_mean_over_slices():
    strategy = Sigreg(weight=0.3, slices=SLICES)
    x = randn(SAMPLES, 1, WIDTH)
    statistics = [plain_statistic((x[:, 0] @ direction).tolist(), 17, 3.0) for direction in drawn(strategy).T]
    close(strategy.penalty(x, x, x)["sigreg"], 0.3 * exactly(statistics))


@pytest.mark.parametrize("tokens", ["mean", "each", "all"])
def test_what_a_sample_is(tokens):
    strategy = Sigreg(weight=1.0, slices=SLICES, tokens=tokens)
    x = randn(SAMPLES, TOKENS, WIDTH)
    sets = {"mean": [x.mean(1)], "each": list(x.unbind(1)), "all": [x.reshape(-1, WIDTH)]}[tokens]
    statistics = [plain_statistic((each @ way).tolist(), 17, 3.0) for each in sets for way in drawn(strategy).T]
    close(strategy.penalty(x, x, x)["sigreg"], exactly(statistics))


def test_it_is_lightlys_on_the_same_slices(monkeypatch):
    from lightly.loss.lejepa_loss import SIGReg

    strategy, theirs = Sigreg(weight=1.0, slices=SLICES), SIGReg(num_vectors=SLICES).double()
    # lightly rounds its knots to float32; told in float64 they are ours
    t = torch.linspace(0, 3, 17, dtype=torch.float64)
    theirs.t, theirs.phi = t, (-t.square() / 2).exp()
    theirs.weights = theirs.phi * torch.tensor([1, *[2] * 15, 1]).double() * 3 / 16
    monkeypatch.setattr(theirs, "_generate_unit_vectors", lambda *_: drawn(strategy))
    views = randn(2, SAMPLES, WIDTH).requires_grad_()
    found = torch.stack([strategy.penalty(x[:, None], x, x)["sigreg"] for x in views]).mean()  # a mask for each view
    expected = theirs(views)
    close(found, expected)
    close(torch.autograd.grad(found, views)[0], torch.autograd.grad(expected, views)[0])


@pytest.mark.parametrize("tokens", ["mean", "each", "all"])
def test_gradients_are_those_of_differences(tokens):
    strategy = Sigreg(slices=SLICES, tokens=tokens)
    x = randn(SAMPLES, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: strategy.penalty(x, x, x)["sigreg"], [x])
