"""Plain JPEGs come by a quick way. It gives Pillow's pixels, and takes nothing that Pillow refuses."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepakit.data import BadSample, jpeg
from jepakit.data.decode import Pillow
from tests.data.make import pixels

KINDS = {
    "4:2:0": {"quality": 92},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:4:4": {"quality": 60, "subsampling": "4:4:4"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "comment": {"comment": b"\xff\xd9" * 9},
}
"""Settings of plain files."""
LIMIT = 10_000
"""Pixels that a picture may have here; damaged headers promise any number."""


def file(path: Path, height: int = 40, width: int = 56, mode: str = "RGB", **options) -> bytes:
    """What was written to ``path``."""
    picture = Image.fromarray(pixels(height, width)).convert(mode)
    picture.save(path, "JPEG", **options)
    return path.read_bytes()


def answer(path: Path, monkeypatch, quick: bool, limit: int = LIMIT) -> np.ndarray | str:
    """The pixels, or why there are none; by Pillow alone, or as they are read."""
    with monkeypatch.context() as patch:
        if not quick:
            patch.setattr(jpeg, "pixels", lambda *_: None)
        try:
            return Pillow(limit)(str(path))[:, 0].permute(1, 2, 0).numpy()
        except BadSample as bad:
            return bad.reason


def same(path: Path, monkeypatch, limit: int = LIMIT) -> bool:
    """Whether both ways come to one answer."""
    mine, theirs = (answer(path, monkeypatch, quick, limit) for quick in (True, False))
    return type(mine) is type(theirs) and np.array_equal(mine, theirs)


@pytest.mark.parametrize("shape", [(40, 56), (1, 1), (17, 9), (3, 90)])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_files_come_the_quick_way_bit_by_bit(tmp_path, kind, shape):
    file(tmp_path / "a.jpg", *shape, **KINDS[kind])
    found = jpeg.read(str(tmp_path / "a.jpg"), LIMIT)
    assert found is not None and found.shape == (3, *shape) and found.permute(1, 2, 0).is_contiguous()
    assert np.array_equal(found.permute(1, 2, 0), np.asarray(Image.open(tmp_path / "a.jpg")))
    assert np.array_equal(found, Pillow()(str(tmp_path / "a.jpg"))[:, 0])


def test_what_is_not_plain_is_pillows(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    file(tmp_path / "grey.jpg", mode="L")
    file(tmp_path / "cmyk.jpg", mode="CMYK")
    file(tmp_path / "turned.jpg", exif=exif)
    plain = file(tmp_path / "plain.jpg")
    file(tmp_path / "rgb.jpg", keep_rgb=True)
    (tmp_path / "after.jpg").write_bytes(plain + b"a few bytes more")
    (tmp_path / "before.jpg").write_bytes(plain[:2] + b"\xff" + plain[2:])
    for name in ("grey", "cmyk", "turned", "rgb", "after", "before"):
        if name != "rgb":  # Pillow marks it by the names of its channels alone, which libjpeg-turbo knows as well
            assert jpeg.read(str(tmp_path / f"{name}.jpg"), LIMIT) is None, name
        assert same(tmp_path / f"{name}.jpg", monkeypatch), name
    assert answer(tmp_path / "turned.jpg", monkeypatch, True).shape == (56, 40, 3)


def test_one_with_upright_exif_is_opened_by_pillow_and_decoded_the_quick_way(tmp_path, monkeypatch):
    file(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", icc_profile=b"some profile")
    assert jpeg.read(str(tmp_path / "a.jpg"), LIMIT) is None
    quick, found = jpeg.pixels, []
    monkeypatch.setattr(jpeg, "pixels", lambda *given: found.append(quick(*given)) or found[-1])
    out = Pillow()(str(tmp_path / "a.jpg"))
    assert np.array_equal(out[:, 0], found[0])
    assert np.array_equal(found[0].permute(1, 2, 0), np.asarray(Image.open(tmp_path / "a.jpg")))


def test_the_limit_holds_before_anything_is_decoded(tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("decoded")

    file(tmp_path / "a.jpg")
    monkeypatch.setattr(jpeg, "decode_image_jpegturbo", never)
    with pytest.raises(BadSample, match="56 x 40 pixels, more than max_pixels=2239"):
        Pillow(2239)(str(tmp_path / "a.jpg"))


def damaged(plain: bytes, rng: random.Random) -> list[bytes]:
    """A file cut off, with bytes changed, taken out and put to zero, at many places."""
    found = [plain[:at] for at in rng.sample(range(2, len(plain)), 15)] + [plain[:-end] for end in range(1, 5)]
    for at in rng.sample(range(2, len(plain)), 30):
        found.append(plain[:at] + bytes([rng.randrange(256)]) + plain[at + 1 :])
    for at in rng.sample(range(2, len(plain) - 30), 8):
        found += [plain[:at] + plain[at + rng.randrange(1, 30) :], plain[:at] + bytes(20) + plain[at + 20 :]]
    return found


@pytest.mark.parametrize("kind", ["progressive", "restarts"])
def test_damaged_files_are_what_they_are_to_pillow(tmp_path, monkeypatch, kind):
    plain, path = file(tmp_path / "a.jpg", **KINDS[kind]), tmp_path / "b.jpg"
    refused = quick = 0
    for bytes_ in damaged(plain, random.Random(0)):
        path.write_bytes(bytes_)
        assert same(path, monkeypatch)
        refused += isinstance(answer(path, monkeypatch, True), str)
        quick += jpeg.read(str(path), LIMIT) is not None
    assert refused > 15 and quick > 5


def test_a_progressive_file_that_ends_between_its_scans_is_refused(tmp_path):
    plain = file(tmp_path / "a.jpg", progressive=True)
    second = [at for at in range(len(plain)) if plain[at : at + 2] == b"\xff\xda"][1]
    cut = plain[:second] + b"\xff\xfe\x40\x00" + b"a comment without an end" + jpeg.END
    (tmp_path / "b.jpg").write_bytes(cut)
    with pytest.raises(BadSample, match="truncated"):
        Pillow()(str(tmp_path / "b.jpg"))


def test_real_photographs(real_data, monkeypatch):
    assert all(same(path, monkeypatch, 10**7) for path in sorted((real_data / "clothing").glob("*/*/*.jpg"))[:8])
    assert all(same(path, monkeypatch, 10**7) for path in sorted((real_data / "odd" / "images").glob("*.jpg")))
