"""Correlations are what going through all pairs of places gives."""

import pytest
import torch
from jepakit_flow.correlation import everywhere, local, look, pyramid
from torch import Tensor


def plain(one: Tensor, other: Tensor, radius: int) -> Tensor:
    """Place by place, displacement by displacement."""
    (batch, _, h, w), side = one.shape, 2 * radius + 1
    found = one.new_zeros(batch, side * side, h, w)
    for y in range(h):
        for x in range(w):
            for k in range(side * side):
                down, across = y + k // side - radius, x + k % side - radius
                if 0 <= down < h and 0 <= across < w:
                    found[:, k, y, x] = (one[:, :, y, x] * other[:, :, down, across]).mean(1)
    return found


@pytest.mark.parametrize(("size", "radius"), [((1, 1), 1), ((3, 5), 2), ((4, 9), 1), ((2, 17), 3), ((5, 8), 0)])
def test_local(size, radius):
    one, other = torch.randn(2, 2, 3, *size, dtype=torch.float64, requires_grad=True)
    found, expected = local(one, other, radius), plain(one, other, radius)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    for each in (one, other):
        (mine,) = torch.autograd.grad((found * weight).sum(), each, retain_graph=True)
        (theirs,) = torch.autograd.grad((expected * weight).sum(), each, retain_graph=True)
        torch.testing.assert_close(mine, theirs)


def test_where_a_feature_went_is_where_its_correlation_is_greatest():
    one = torch.nn.functional.normalize(torch.randn(1, 16, 9, 12), dim=1)
    other = one.roll((1, -2), (2, 3))  # one down, two to the left
    best = local(one, other, 3).argmax(1)[0, 3:-3, 3:-3]
    assert torch.equal(best, torch.full_like(best, (1 + 3) * 7 + (-2 + 3)))


def test_everywhere_and_looking_it_up():
    one, other = torch.randn(2, 2, 6, 5, 7)
    at = torch.stack(torch.meshgrid(torch.arange(7.0), torch.arange(5.0), indexing="xy")).expand(2, -1, -1, -1)
    (volume,) = volumes = pyramid(everywhere(one, other), 1)
    assert volume.shape == (2 * 5 * 7, 1, 5, 7)
    near = look(volumes, at, 2)
    torch.testing.assert_close(near / 6**0.5, plain(one, other, 2), atol=1e-4, rtol=1e-3)


def test_coarse_levels_are_means():
    volumes = pyramid(everywhere(*torch.randn(2, 1, 4, 8, 8)), 9)
    assert [tuple(each.shape[2:]) for each in volumes] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    at = torch.full((1, 2, 8, 8), 2.5)  # the middle of a pixel of the next level
    found = look(volumes[:2], at, 0)
    torch.testing.assert_close(found[0, 1].flatten(), volumes[1][:, 0, 1, 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0, 0], found[0, 1], atol=1e-4, rtol=1e-4)


def test_products_are_not_halved_by_autocast():
    one, other = torch.randn(2, 1, 64, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found, every = local(one, other, 1), everywhere(one, other)
    assert torch.equal(found, local(one, other, 1)) and torch.equal(every, everywhere(one, other))
