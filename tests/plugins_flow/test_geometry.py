"""Warping, resizing and the occlusion check, against motions that are known."""

import pytest
import torch
from jepakit_flow.geometry import consistent, inside, resize, sample, warp

from tests.plugins_flow.pictures import moved


def constant(h: int, w: int, shift: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(shift).view(1, 2, 1, 1).expand(1, 2, h, w).contiguous()


def test_no_flow_changes_nothing():
    x = torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(warp(x, torch.zeros(2, 2, 5, 7)), x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1)])
def test_pictures_of_one_row_or_column(size):
    x = torch.randn(1, 2, *size)
    torch.testing.assert_close(warp(x, torch.zeros(1, 2, *size)), x, atol=1e-4, rtol=1e-4)


def test_a_pixel_to_the_right_and_two_down():
    x = torch.arange(30.0).view(1, 1, 5, 6)
    found = warp(x, constant(5, 6, (1.0, 2.0)))
    torch.testing.assert_close(found[0, 0, :3, :5], x[0, 0, 2:, 1:])
    assert torch.equal(inside(constant(5, 6, (1.0, 2.0)))[0, :3, :5], torch.ones(3, 5, dtype=torch.bool))
    assert inside(constant(5, 6, (1.0, 2.0))).sum() == 15


def test_half_a_pixel_is_the_mean_of_two():
    x = torch.randn(1, 1, 4, 4)
    found = warp(x, constant(4, 4, (0.5, 0.0)))
    torch.testing.assert_close(found[..., :3], (x[..., :3] + x[..., 1:]) / 2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[..., 3], x[..., 3])  # the border goes on


@pytest.mark.parametrize(("shift", "turn"), [((3.0, -2.0), 0.0), ((1.5, 0.5), 0.05)])
def test_the_second_picture_warped_is_the_first(shift, turn):
    first, second, flow = moved(0, 24, 40, shift, turn)
    seen = inside(flow[None])[0]
    error = (warp(second[None], flow[None])[0] - first).abs().mean(0)[seen]
    assert error.mean() < 0.01 < 5 * error.mean() + 0.01 < (second - first).abs().mean()


def test_resizing_changes_lengths_with_sizes():
    flow = constant(8, 12, (3.0, -2.0))
    torch.testing.assert_close(resize(flow, (4, 24)), constant(4, 24, (6.0, -1.0)))
    assert resize(flow, (8, 12)) is flow
    _, _, turning = moved(0, 32, 32, (2.0, 0.0), 0.1)
    back = resize(resize(turning[None], (16, 16)), (32, 32))[0]
    assert (back - turning)[:, 4:-4, 4:-4].abs().max() < 0.05


def test_going_there_and_back_finds_what_is_covered():
    """A square of 8 moves 4 to the right over a still ground: what it covers then has no way back."""
    forward, backward = torch.zeros(1, 2, 16, 24), torch.zeros(1, 2, 16, 24)
    forward[:, 0, 4:12, 4:12], backward[:, 0, 4:12, 8:16] = 4.0, -4.0
    covered = torch.zeros(16, 24, dtype=torch.bool)
    covered[4:12, 12:16] = True
    assert torch.equal(~consistent(forward, backward)[0], covered)
    assert not consistent(constant(4, 8, (5.0, 0.0)), constant(4, 8, (-5.0, 0.0)))[0, :, 3:].any()


def test_there_is_no_gradient_through_the_check_and_one_through_warping():
    x, flow = torch.randn(1, 2, 4, 5, requires_grad=True), torch.zeros(1, 2, 4, 5, requires_grad=True)
    (warp(x, flow + 0.3) * consistent(flow, flow)[:, None]).sum().backward()
    assert x.grad is not None and flow.grad is not None and flow.grad.abs().sum() > 0


def test_half_precision_is_not_enough_for_places():
    x, flow = torch.randn(1, 1, 2, 300).bfloat16(), torch.zeros(1, 2, 2, 300).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = warp(x, flow)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, x.float(), atol=1e-3, rtol=1e-3)


def test_sampling_at_places_of_another_size():
    x = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(sample(x, torch.tensor([[[[3.0]], [[1.0]]]]))[0, :, 0, 0], x[0, :, 1, 3])
