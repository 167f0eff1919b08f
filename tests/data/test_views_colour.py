"""Colours: the draws of a sample, and what they do to a batch, held against torchvision's functions one by one."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional as F

from jepakit import seeds
from jepakit.data.colour import COLUMN, JITTER, ORDERS, Colour, How
from jepakit.data.recolour import recolour
from tests.data.make import pixels

NEUTRAL = How()
VICREG = Colour((0.4, 0.4, 0.2, 0.1), 0.8, 0.2, 0.1, (0.1, 2.0), 0.2)


def pictures(count: int = 4, side: int = 40, frames: int = 1) -> torch.Tensor:
    """Smooth pictures, ``B 3 T S S`` in 0..1, with a black, a white and a grey corner."""
    found = np.stack([pixels(side, side, seed) for seed in range(count * frames)])
    found[:, :4, :4], found[:, :4, -4:], found[:, -4:, :4] = 0, 255, 77
    values = torch.from_numpy(found).permute(0, 3, 1, 2).float().div(255)
    return values.unflatten(0, (count, frames)).transpose(1, 2).contiguous()


def rows(*each: dict[str, float]) -> torch.Tensor:
    return torch.tensor([How(**one) for one in each])


def test_what_changes_nothing_is_left_alone_to_the_last_bit():
    batch = pictures()
    assert torch.equal(recolour(batch.clone(), rows(*[{}] * 4), 8), batch)
    found = recolour(batch.clone(), rows({}, {"brightness": 0.5}, {}, {"grey": 1.0}), 8)
    assert torch.equal(found[0], batch[0]) and torch.equal(found[2], batch[2])
    assert not torch.equal(found[1], batch[1]) and not torch.equal(found[3], batch[3])


@pytest.mark.parametrize(
    "name, values, theirs, close",
    [
        ("brightness", (0.0, 0.6, 1.3, 2.5), F.adjust_brightness, 1e-6),
        ("contrast", (0.0, 0.6, 1.3, 2.5), F.adjust_contrast, 2e-4),  # kornia's grey is .299 R, torchvision's .2989 R
        ("saturation", (0.0, 0.6, 1.3, 2.5), F.adjust_saturation, 2e-4),
        ("hue", (-0.5, -0.1, 0.03, 0.5), F.adjust_hue, 2e-6),
        ("grey", (1.0,) * 4, lambda image, _: F.rgb_to_grayscale(image, 3), 2e-4),
        ("solarize", (1.0,) * 4, lambda image, _: F.solarize(image, 0.5), 1e-6),
        ("blur", (0.1, 0.7, 1.4, 2.0), lambda image, sigma: F.gaussian_blur(image, [17, 17], [sigma] * 2), 1e-6),
    ],
)
def test_each_operation_is_torchvisions(name, values, theirs, close):
    batch = pictures()
    found = recolour(batch.clone(), rows(*({name: value} for value in values)), 8)
    expected = torch.stack([theirs(image[:, 0], value) for image, value in zip(batch, values, strict=True)]).unsqueeze(
        2
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=close)
    assert (found - batch).abs().max() > 0.05


def test_a_row_does_not_depend_on_the_others():
    rng = seeds.generator("rows")
    how = torch.tensor([How(**VICREG.draw(rng)) for _ in range(6)])
    together = recolour(pictures(6), how, VICREG.radius)
    for i, (picture, row) in enumerate(zip(pictures(6), how, strict=True)):
        torch.testing.assert_close(recolour(picture[None], row[None], 8)[0], together[i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", range(0, len(ORDERS), 5))
def test_a_jitter_keeps_to_its_order(number):
    """The four one after the other as torchvision does them, on floats; 8-bit values differ by rounding alone."""
    drawn = {"brightness": 1.35, "contrast": 0.7, "saturation": 1.15, "hue": 0.08}
    found = recolour(pictures(2), rows(*[drawn | {"order": float(number)}] * 2), 8)[:, :, 0]
    exact, rounded = pictures(2)[:, :, 0], pictures(2)[:, :, 0].mul(255).round().to(torch.uint8)
    for name in ORDERS[number]:
        exact = getattr(F, f"adjust_{name}")(exact, drawn[name])
        rounded = getattr(F, f"adjust_{name}")(rounded, drawn[name])
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-3)
    assert (found * 255 - rounded).abs().mean() < 2


def test_orders_differ_in_what_they_do():
    drawn = {"brightness": 1.6, "contrast": 0.5, "saturation": 1.8, "hue": 0.2}
    found = recolour(
        pictures(1).expand(24, -1, -1, -1, -1).clone(), rows(*[drawn | {"order": i} for i in range(24)]), 8
    )
    assert len({round(image.double().sum().item(), 3) for image in found}) > 4


def test_what_comes_last_is_done_last():
    """Grey, then blur, then solarize, as released: each of the three commutes with none of the others exactly."""
    how = rows({"saturation": 1.8, "grey": 1.0, "blur": 1.5, "solarize": 1.0})
    image = F.rgb_to_grayscale(F.adjust_saturation(pictures(1)[0, :, 0], 1.8), 3)
    expected = F.solarize(F.gaussian_blur(image, [17, 17], [1.5, 1.5]), 0.5)
    torch.testing.assert_close(recolour(pictures(1), how, 8)[0, :, 0], expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_near_pillows_which_the_released_code_uses(sigma):
    """Pillow's is three box filters on 8-bit values: of noise they differ by less than 1 of 255 on average."""
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=seeds.generator("noise"))
    blurred = Image.fromarray(noise.numpy()).filter(ImageFilter.GaussianBlur(sigma))
    theirs, before = (torch.from_numpy(np.array(each)).permute(2, 0, 1).float() for each in (blurred, noise.numpy()))
    found = recolour(before[None, :, None] / 255, rows({"blur": sigma}), 8)[0, :, 0] * 255
    inner = (..., slice(8, -8), slice(8, -8))  # borders are mirrored here, repeated there
    assert (found - theirs)[inner].abs().mean() < 1 and (found - before)[inner].abs().mean() > 20


def test_small_views_can_be_blurred():
    flat = torch.full((2, 3, 1, 4, 4), 0.3)
    torch.testing.assert_close(recolour(flat.clone(), rows({"blur": 2.0}, {"blur": 0.1}), 8), flat)


def test_frames_of_a_clip_are_changed_alike():
    clip = pictures(2, 24, frames=3)
    how = torch.tensor([How(**VICREG._replace(blur=1.0).draw(seeds.generator(i))) for i in range(2)])
    found = recolour(clip.clone(), how, 8)
    assert found.shape == clip.shape and found.is_contiguous()
    for t in range(3):
        torch.testing.assert_close(found[:, :, t : t + 1], recolour(clip[:, :, t : t + 1].clone(), how, 8))


def test_one_channel_can_be_jittered_in_brightness_blurred_and_solarized():
    grey = pictures(1)[:, :1]
    found = recolour(grey.clone(), rows({"brightness": 0.5, "blur": 1.0, "solarize": 1.0}), 8)
    assert found.shape == grey.shape and not torch.equal(found, grey)


def test_draws_keep_to_their_shares_and_ranges():
    found = [VICREG._replace(blur=0.5).draw(seeds.generator("draws", i)) for i in range(2000)]
    columns = dict(zip(How._fields, torch.tensor([How(**each) for each in found]).T, strict=True))
    for name, share in {"grey": 0.2, "solarize": 0.2, "blur": 0.5, "hue": 0.8, "brightness": 0.8}.items():
        chosen = (columns[name] != NEUTRAL[COLUMN[name]]).float().mean().item()
        assert abs(chosen - share) < 4 * math.sqrt(share * (1 - share) / 2000)
    both = ((columns["blur"] > 0) & (columns["hue"] != 0)).float().mean().item()
    assert abs(both - 0.4) < 4 * math.sqrt(0.4 * 0.6 / 2000)  # each decides for itself
    for name, width in zip(JITTER, VICREG.jitter, strict=True):
        away = columns[name] - NEUTRAL[COLUMN[name]]
        assert away.abs().max() <= width + 1e-6 and away.min() < -0.9 * width and away.max() > 0.9 * width
    assert columns["blur"][columns["blur"] > 0].min() >= 0.1 and columns["blur"].max() <= 2.0
    assert set(columns["order"].int().tolist()) == set(range(len(ORDERS)))


def test_a_probability_changes_nobody_elses_draws():
    one, other = (Colour((0.4, 0.4, 0.2, 0.1), 1.0, 0.0, blur).draw(seeds.generator(3)) for blur in (0.0, 1.0))
    assert "blur" in other and one == {key: value for key, value in other.items() if key != "blur"}


def test_nothing_is_drawn_where_nothing_can_happen():
    rng = seeds.generator(0)
    before = rng.get_state()
    assert Colour().draw(rng) == Colour((0.4,) * 4, jitter_p=0.0).draw(rng) == {} and torch.equal(
        before, rng.get_state()
    )
