"""Every odd file has one defined answer: pixels, or one line that names it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, TiffImagePlugin

from jepakit.data import BadSample
from jepakit.data.decode import Pillow
from tests.data.make import bomb, picture, pixels

decode = Pillow()

STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture has to be turned so that each orientation (by the EXIF standard) sets it right."""


def refused(path: Path, *words: str, decoder: Pillow = decode) -> None:
    with pytest.raises(BadSample) as caught:
        decoder(str(path))
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    assert all(word in text for word in words), text


def rgb(path: Path) -> np.ndarray:
    out = decode(str(path))
    assert out.dtype == torch.uint8 and out.shape[:2] == (3, 1)
    return out[:, 0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp"])
def test_lossless_formats_come_out_as_they_went_in(tmp_path, suffix):
    path = picture(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(rgb(path), pixels())


def test_format_is_told_by_content(tmp_path):
    path = picture(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(rgb(path), pixels())
    assert decode.format(str(path)) == "PNG"


def test_grey_and_bilevel_get_three_channels(tmp_path):
    grey = pixels()[..., 0]
    Image.fromarray(grey).save(tmp_path / "l.png")
    Image.fromarray(grey > 127).save(tmp_path / "1.png")
    assert np.array_equal(rgb(tmp_path / "l.png"), np.repeat(grey[..., None], 3, 2))
    assert np.array_equal(rgb(tmp_path / "1.png"), np.repeat(np.where(grey > 127, 255, 0)[..., None], 3, 2))


def test_transparency_is_laid_over_white(tmp_path):
    red = np.zeros((2, 3, 4), np.uint8)
    red[..., 0], red[0, :, 3], red[1, :, 3] = 200, 255, 0
    red[0, 0, 3] = 128
    Image.fromarray(red).save(tmp_path / "rgba.png")
    out = rgb(tmp_path / "rgba.png")
    assert out[0, 1].tolist() == [200, 0, 0] and out[1, 0].tolist() == [255, 255, 255]
    assert np.abs(out[0, 0].astype(int) - [227, 127, 127]).max() <= 1
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=1)
    assert rgb(tmp_path / "p.png").tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    assert np.abs(rgb(tmp_path / "c.jpg").astype(int) - [255, 0, 0]).max() <= 3


def test_sixteen_bits_are_scaled(tmp_path):
    ramp = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)
    for suffix in ("png", "tif"):
        Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
        out = rgb(tmp_path / f"a.{suffix}")
        assert np.array_equal(out[..., 0], ramp >> 8) and out.min() == 0 and out.max() == 255
    (tmp_path / "a.pgm").write_bytes(b"P5 256 4 65535\n" + ramp.astype(">u2").tobytes())
    assert np.array_equal(rgb(tmp_path / "a.pgm")[..., 0], ramp >> 8)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_scale_are_refused(tmp_path, kind):
    Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "32 bits")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_orientation_is_applied(tmp_path, orientation, suffix):
    marked = np.zeros((16, 32, 3), np.uint8)
    marked[:8, :16] = 255
    upright = Image.fromarray(marked)
    stored = upright if orientation == 1 else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", **({"tiffinfo": tags} if suffix == "tif" else {"exif": exif}))
    assert np.abs(rgb(tmp_path / f"a.{suffix}").astype(int) - marked).mean() < 3


def test_broken_exif_does_not_spoil_the_picture(tmp_path):
    path = picture(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")
    assert np.array_equal(rgb(path), pixels())


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif", "ppm"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_is_refused_even_if_others_allow_it(tmp_path, monkeypatch, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(whole[: int(len(whole) * share)])
    refused(tmp_path / f"b.{suffix}")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    refused(tmp_path / "empty.jpg", "empty file")
    refused(tmp_path / "page.jpg", "not a picture", "JPEG")
    refused(tmp_path / "folder.jpg", "directory")
    refused(tmp_path / "link.jpg", "No such file")
    assert pickle.loads(pickle.dumps(BadSample("a", "b"))).reason == "b"


def test_programs_are_not_run_for_a_picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    refused(tmp_path / "a.jpg", "not a picture")


def test_pixel_limit_holds_before_decoding(tmp_path, monkeypatch):
    def never(self):
        raise AssertionError("decoded")

    path = bomb(tmp_path / "bomb.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    refused(path, "60000 x 60000", f"max_pixels={decode.max_pixels}")
    refused(picture(tmp_path / "a.png", 10, 11), "11 x 10", decoder=Pillow(max_pixels=109))


def test_pixel_limit_is_the_callers(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert rgb(picture(tmp_path / "a.png")).shape == (20, 24, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_real_odd_files(real_data):
    odd = real_data / "odd" / "images"
    for name in ("zero_bytes.jpg", "not_an_image.jpg", "truncated_half.jpg", "truncated_header.jpg"):
        refused(odd / name)
    refused(odd / "bomb_60000x60000.png", "max_pixels")
    assert decode.format(str(odd / "wrong_suffix.png")) == "JPEG"
    shapes = {name: rgb(odd / name).shape for name in ("one_pixel.png", "sliver_2000x3.png", "exif_rotated.jpg")}
    assert shapes["one_pixel.png"] == (1, 1, 3) and shapes["sliver_2000x3.png"] == (3, 2000, 3)
    with Image.open(odd / "exif_rotated.jpg") as stored:
        assert shapes["exif_rotated.jpg"][:2] == stored.size
    for name in ("alpha.png", "cmyk.jpg", "grey.jpg", "palette.png", "sixteen_bit.png"):
        assert np.ptp(rgb(odd / name)) > 100, name
