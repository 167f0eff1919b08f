"""Large photographs decoded smaller: the same crops of nearly the same pixels, and only where that was asked for."""

import numpy as np
import pytest
import torch
from PIL import Image

from jepakit import seeds
from jepakit.data.decode import Pillow
from jepakit.data.folder import Folder
from jepakit.data.loader import Loader, evaluation_batches
from jepakit.data.scaled import Enough
from jepakit.data.views import CentreView, RandomView
from jepakit.errors import ConfigError
from tests.data.make import picture
from tests.data.test_loader import all_same

OPTIONS = {"batch_size": 4, "size": 16, "workers": 0, "crop_scale": [0.1, 1.0]}


@pytest.fixture
def folder(tmp_path):
    """Photographs of many sizes; one that is no JPEG, one that is turned, and one that cannot be read."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for number in range(9):
        picture(tmp_path / f"{number}.jpg", 60 + 30 * number, 300 - 20 * number, number, quality=95)
    picture(tmp_path / "turned.jpg", 120, 200, 9, quality=95, exif=turned)
    picture(tmp_path / "other.png", 120, 200, 10)
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:900])
    return str(tmp_path)


def view(size: int, scale: tuple[float, float] = (1.0, 1.0), ratio: tuple[float, float] = (1.0, 1.0)) -> RandomView:
    return RandomView(size, scale, ratio)


@pytest.mark.parametrize("side, wanted", [(223, 1), (447, 1), (448, 2), (895, 2), (896, 4), (1792, 8), (9000, 8)])
def test_as_small_as_leaves_the_view_its_pixels(side, wanted):
    enough = Enough([view(224)], [seeds.generator(0)])
    assert enough(side, side) == wanted and enough.full == (side, side)
    enough.forget()
    assert enough.full is None


def test_the_view_that_needs_most_decides_and_nothing_is_drawn_from_what_views_are_drawn_from():
    rngs = [seeds.generator(number) for number in range(2)]
    before = [rng.get_state() for rng in rngs]
    assert Enough([view(64), view(16)], rngs)(256, 256) == 4
    assert Enough([view(16), CentreView(16)], rngs)(256, 256) == 1
    assert all(map(torch.equal, before, (rng.get_state() for rng in rngs)))


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("way", [1, 6])
def test_a_picture_is_decoded_at_a_part_of_its_sides(tmp_path, scale, way):
    exif = Image.Exif()
    exif[0x0112] = way
    path = str(picture(tmp_path / "a.jpg", 80, 120 + way, quality=95, exif=exif))
    asked = []
    small = Pillow()(path, lambda *size: asked.append(size) or scale)
    height, width = (80, 121) if way == 1 else (126, 80)
    assert asked == [(height, width)] and small.shape == (3, 1, -(-height // scale), -(-width // scale))
    whole, side = Image.fromarray(Pillow()(path)[:, 0].permute(1, 2, 0).numpy()), 80 // scale
    expected = np.asarray(whole.crop((0, 0, 80, 80)).reduce(scale)).astype(int)
    if way == 1:
        assert np.abs(small[:, 0, :side, :side].permute(1, 2, 0).numpy() - expected).mean() < 2


def test_the_same_crops_of_nearly_the_same_pixels(folder):
    whole, small = (
        list(Loader(Folder(folder, scaled_decode=scaled), OPTIONS, 3).batches(0, 6)) for scaled in (False, True)
    )
    assert any(batch.replaced for batch in whole) and not all_same(whole, small)
    for one, other in zip(whole, small, strict=True):
        assert torch.equal(one.index, other.index) and one.replaced == other.replaced
        assert torch.equal(one.condition[0], other.condition[0])
        assert (one.views[0] - other.views[0]).abs().mean() < 0.08
        others = one.index == 10  # 0.jpg to 8.jpg, broken.jpg, other.png, turned.jpg
        assert torch.equal(one.views[0][others], other.views[0][others])


def test_any_number_of_workers_and_any_beginning(folder):
    loaders = [Loader(Folder(folder, scaled_decode=True), OPTIONS | {"workers": count}, 3) for count in (0, 1)]
    alone = list(loaders[0].batches(0, 6))
    assert all_same(alone, list(loaders[1].batches(0, 6))) and all_same(alone[4:], list(loaders[0].batches(4, 6)))


def test_evaluations_see_whole_pictures(folder):
    found = [list(evaluation_batches(Folder(folder, scaled_decode=scaled), OPTIONS)) for scaled in (False, True)]
    assert all_same(*found)


def test_a_decoder_that_cannot(folder, monkeypatch):
    monkeypatch.setattr(Pillow, "scales", False)
    with pytest.raises(ConfigError, match="data.scaled_decode=true: decoder pillow decodes nothing smaller"):
        Folder(folder, scaled_decode=True)
