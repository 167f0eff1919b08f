"""Losses are the formulas that their papers write, and each of them alone finds a motion that is known."""

import math

import pytest
import torch
from jepakit_flow import losses
from jepakit_flow.geometry import warp
from jepakit_flow.objective import Objective, visible
from torch import Tensor

from tests.plugins_flow.pictures import moved

DIFFERENCES = ("l1", "l2", "ssim", "census")


def pictures(h: int = 6, w: int = 7) -> tuple[Tensor, Tensor]:
    one, other = torch.rand(2, 2, 3, h, w, dtype=torch.float64)
    return one, other


def test_absolute_and_squared_differences():
    one, other = pictures()
    torch.testing.assert_close(losses.l1(one, other), ((one - other) ** 2 + losses.EPS**2).sqrt().mean(1))
    torch.testing.assert_close(losses.l2(one, other), ((one - other) ** 2).mean(1))


def test_ssim():
    """Means, variances and covariance under a Gaussian window, at one place that is far from the border."""
    one, other = pictures(9, 9)
    line = torch.exp(-((torch.arange(7, dtype=torch.float64) - 3) ** 2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    total = 0.0
    for channel in range(3):
        a, b = (x[0, channel, 1:8, 1:8] for x in (one, other))
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
        both = (window * a * b).sum() - mean_a * mean_b
        light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        total += light * (2 * both + 9e-4) / (var_a + var_b + 9e-4)
    torch.testing.assert_close(losses.ssim(one, other)[0, 4, 4], (1 - total / 3) / 2)


def test_census():
    """Neighbour by neighbour at one place."""
    one, other = pictures(9, 9)
    grey = [255 * (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]) for x in (one, other)]
    total = 0.0
    for down in range(-3, 4):
        for across in range(-3, 4):
            a, b = (x[0, 4 + down, 4 + across] - x[0, 4, 4] for x in grey)
            gap = (a / (0.81 + a**2).sqrt() - b / (0.81 + b**2).sqrt()) ** 2
            total += gap / (0.1 + gap)
    torch.testing.assert_close(losses.census(one, other)[0, 4, 4], total / 49)


def test_census_outlives_a_change_of_light_and_the_others_do_not():
    one, other = pictures(16, 16)
    darker = 0.5 * one + 0.2
    ratio = {
        name: getattr(losses, name)(one, darker).mean() / getattr(losses, name)(one, other).mean()
        for name in DIFFERENCES
    }
    assert ratio["census"] < 0.3 * ratio["l1"]


@pytest.mark.parametrize("order", [1, 2])
def test_smoothness(order):
    flow, (picture, _) = torch.randn(2, 2, 4, 5, dtype=torch.float64), pictures(4, 5)
    total = 0.0
    for dim, (h, w) in ((2, (4 - order, 5)), (3, (4, 5 - order))):
        terms = []
        for y in range(h):
            for x in range(w):
                at = [(y + i, x) if dim == 2 else (y, x + i) for i in range(order + 1)]
                along = [flow[..., a, b] for a, b in at]
                bend = along[1] - along[0] if order == 1 else along[2] - 2 * along[1] + along[0]
                edges = [
                    (picture[..., c, d] - picture[..., a, b]).abs().mean(1)
                    for (a, b), (c, d) in zip(at, at[1:], strict=False)
                ]
                weight = torch.exp(-3.0 * torch.stack(edges).max(0).values)
                terms.append(weight[:, None] * (bend**2 + losses.EPS**2).sqrt())
        total = total + torch.stack(terms).mean() / 2
    torch.testing.assert_close(losses.smoothness(flow, picture, 3.0, order), total)


def test_what_is_smooth_costs_nothing_and_edges_are_free():
    _, _, turning = moved(0, 12, 12, (2.0, 1.0), 0.1)
    flat = torch.full((1, 3, 12, 12), 0.5)
    assert losses.smoothness(turning[None], flat, 10.0, 2) < 1.1 * losses.EPS
    step, edge = torch.zeros(1, 2, 12, 12), flat.clone()
    step[..., 6:], edge[..., 6:] = 4.0, 1.0
    assert losses.smoothness(step, edge, 10.0) < 0.05 * losses.smoothness(step, flat, 10.0)


def test_cycle():
    flow, mask = torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4)
    flow[:, 0] = 1.0
    assert losses.cycle(flow, -flow, mask) < 1.1 * losses.EPS
    torch.testing.assert_close(losses.cycle(flow, flow, mask), torch.tensor(1.0), atol=2 * losses.EPS, rtol=0)
    assert losses.cycle(flow, flow, torch.zeros(1, 4, 4)) == 0


@pytest.mark.parametrize("name", DIFFERENCES)
def test_gradients_of_differences(name):
    one, other = (x[:1, :, :4, :4] for x in pictures())
    assert torch.autograd.gradcheck(lambda x: getattr(losses, name)(one, x), other.clone().requires_grad_())


def test_gradients_of_flows():
    flow, back = torch.randn(2, 1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    picture, mask = pictures(3, 4)[0][:1], torch.rand(1, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: losses.smoothness(x, picture, 2.0, 2), flow)
    assert torch.autograd.gradcheck(lambda x, y: losses.cycle(x, y, mask), (flow, back), atol=1e-4)


def test_a_mask_never_hides_most_of_a_picture():
    there, back = torch.zeros(2, 2, 8, 8), torch.zeros(2, 2, 8, 8)
    there[0, 0] = 9.0  # all of it leaves the picture
    there[1, 0, :, 6:] = 9.0  # a quarter does
    assert visible(there, back)[0].mean() == 1 and visible(there, back)[1].mean() == 0.75


def test_what_is_hidden_counts_only_if_it_is_to():
    """A bar that only one picture has lies where the flow leaves the picture."""
    flow, one = torch.zeros(1, 2, 16, 16), torch.full((1, 3, 16, 16), 0.5)
    flow[:, 0, :, 12:] = 9.0
    other = one.clone()
    other[..., 12:] = 1.0
    found = [Objective({"l2": 1.0}, 1.0, 1, 1.0, hide)([flow], [flow], one, other)["l2"] for hide in (True, False)]
    assert found[0] == 0 < found[1]


def test_losses_are_named_and_weighed():
    flows = [torch.randn(1, 2, side, side) for side in (4, 8)]
    one, other = torch.rand(2, 1, 3, 16, 16)
    weights = dict.fromkeys((*DIFFERENCES, "smooth", "cycle"), 1.0)
    single = Objective(weights, 10.0, 1, 0.8)(flows, flows, one, other)
    double = Objective({**weights, "l1": 2.0, "l2": 0.0}, 10.0, 1, 0.8)(flows, flows, one, other)
    assert list(single) == list(weights) and "l2" not in double
    torch.testing.assert_close(double["l1"], 2 * single["l1"])
    assert Objective({}, 10.0, 1, 0.8)(flows, flows, one, other) == {}


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize(("shift", "turn"), [((1.5, -1.0), 0.0), ((0.5, 0.5), 0.06)])
def test_each_difference_alone_finds_a_motion(name, shift, turn):
    """A free flow, an affine function of the place, goes downhill to the motion that there was."""
    pairs = [moved(number, 24, 32, shift, turn) for number in range(2)]
    first, second, truth = (torch.stack(each) for each in zip(*pairs, strict=True))
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 32), indexing="ij")
    basis = torch.stack([torch.ones(24, 32), x, y])
    free = torch.zeros(2, 2, 3, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.1)
    for _ in range(60):
        flow = torch.einsum("bck,khw->bchw", free, basis)
        loss = getattr(losses, name)(first, warp(second, flow))[:, 3:-3, 3:-3].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = (flow.detach() - truth).norm(dim=1).mean()
    assert error < 0.15 * truth.norm(dim=1).mean(), error
    assert math.isfinite(loss.item())
