"""Views are torchvision's, drawn from a key."""

import pytest
import torch
from torchvision.transforms import v2

from jepakit import seeds
from jepakit.data.views import CentreView, Normalise, RandomView, crop, draw_box, middle_view, resize, side_views


def noise(height: int, width: int, frames: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (3, frames, height, width), dtype=torch.uint8, generator=seeds.generator("noise"))


@pytest.mark.parametrize("shape", [(32, 32), (375, 500), (500, 375), (1, 1), (3, 2000), (2000, 3), (1, 7)])
@pytest.mark.parametrize(
    "scale, ratio", [((0.3, 1.0), (3 / 4, 4 / 3)), ((0.08, 1.0), (1.0, 1.0)), ((1.0, 1.0), (0.5, 2.0))]
)
def test_boxes_are_torchvisions(shape, scale, ratio):
    theirs = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    blank = torch.zeros(3, *shape)
    for seed in range(50):
        torch.manual_seed(seed)
        expected = theirs.make_params([blank])
        box = draw_box(*shape, scale, ratio, torch.Generator().manual_seed(seed))
        assert box._asdict() == expected


@pytest.mark.parametrize("shape", [(32, 32), (75, 100), (1, 1), (3, 2000), (2000, 3)])
def test_random_view_is_torchvisions_to_the_last_bit(shape):
    picture, view = noise(*shape), RandomView(16, (0.3, 1.0), (3 / 4, 4 / 3))
    theirs = v2.RandomResizedCrop(16, scale=(0.3, 1.0), antialias=True)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = theirs(picture[:, 0])
        piece, how = view.take(picture, torch.Generator().manual_seed(seed))
        assert not how.mirrored and torch.equal(view.fit(piece)[:, 0], expected)


def test_frames_share_a_box():
    clip, view = noise(20, 30, frames=3), RandomView(8, (0.3, 1.0), (3 / 4, 4 / 3))
    piece = view.take(clip, seeds.generator(1))[0]
    whole = view.fit(piece)
    assert whole.shape == (3, 3, 8, 8)
    for t in range(3):
        assert torch.equal(whole[:, t], view.fit(view.take(clip[:, t : t + 1], seeds.generator(1))[0])[:, 0])


def test_half_are_mirrored():
    view = RandomView(8, (0.3, 1.0), (3 / 4, 4 / 3), flip=True)
    flips = [view.take(noise(9, 9), seeds.generator(i))[1].mirrored for i in range(400)]
    assert 160 < sum(flips) < 240


@pytest.mark.parametrize("shape", [(32, 32), (75, 100), (100, 75), (1, 1), (16, 17)])
def test_centre_view_is_torchvisions(shape):
    picture, view = noise(*shape), CentreView(16)
    theirs = v2.Compose([v2.Resize(18, antialias=True), v2.CenterCrop(16)])
    assert torch.equal(view.fit(view.take(picture, torch.Generator())[0])[:, 0], theirs(picture[:, 0]))


def test_centre_view_leaves_the_right_size_alone_and_cuts_slivers_first():
    exact = noise(16, 16)
    view = CentreView(16)
    assert view.fit(view.take(exact, torch.Generator())[0]) is exact or torch.equal(view.fit(exact), exact)
    for shape in ((3, 2000), (2000, 3)):
        piece = view.take(noise(*shape), torch.Generator())[0]
        assert piece.numel() <= 3 * 3 * 12 and view.fit(piece).shape == (3, 1, 16, 16)


def test_crop_copies_nothing():
    picture = noise(20, 20)
    piece = crop(picture, draw_box(20, 20, (0.3, 1.0), (1.0, 1.0), seeds.generator(0)))
    assert piece.untyped_storage().data_ptr() == picture.untyped_storage().data_ptr()
    assert resize(piece, [4, 5]).shape == (3, 1, 4, 5)


def test_normalise_is_torchvisions_and_mirrors_whom_it_should():
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    batch = torch.stack([noise(6, 7), noise(6, 7)])
    out = Normalise(mean, std, torch.device("cpu"))(batch, torch.tensor([False, True]))
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    torch.testing.assert_close(out[0, :, 0], theirs(batch[0, :, 0]), rtol=0, atol=1e-6)
    assert torch.equal(out[1], out[0].flip(-1))


@pytest.mark.parametrize("shape", [(20, 50), (61, 20), (30, 30), (8, 27)])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_side_views_are_squares_from_end_to_end(shape, count):
    clip = noise(*shape, 2)
    whole = resize(clip, [16])
    height, width = whole.shape[-2:]
    step = (max(height, width) - 16) // (count - 1)  # as released: resized, then cut
    for number, view in enumerate(side_views(16, count)):
        cut = whole[..., number * step :, :] if height > width else whole[..., number * step :]
        piece, how = view.take(clip, seeds.generator(0))
        assert torch.equal(view.fit(piece), cut[..., :16, :16]) and not how.mirrored
    assert side_views(16, 1) == (CentreView(16),)


def test_the_middle_view_is_the_one_between_the_ends():
    clip = noise(20, 50, 2)
    assert torch.equal(middle_view(16, 3).fit(clip), side_views(16, 3)[1].fit(clip))
    assert middle_view(16, 1) == CentreView(16) and middle_view(16, 2) == side_views(16, 3)[1]
