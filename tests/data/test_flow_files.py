"""Files of optical flow: read as they were written, by hand too, and refused in one line where they are damaged."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jepakit.data import BadSample
from jepakit.data.flow import FORMATS, HUGE, Truth, read_flow, write_flow
from jepakit.errors import DataError


def drawn(height: int, width: int, seed: int, most: float = 500.0) -> Truth:
    """A flow of which a part is unknown."""
    rng = np.random.default_rng(seed)
    known = rng.random((height, width)) < 0.8
    flow = rng.uniform(-most, most, (2, height, width)) * known
    return Truth(torch.from_numpy(flow.astype(np.float32)), torch.from_numpy(known))


def png(path: Path, values: np.ndarray, size: tuple[int, int] | None = None, kind: bytes = b"\x10\x02") -> Path:
    """A PNG of 16 bits ``H W C``, without filters; its header may lie about ``size`` and ``kind``."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = size or values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">II", width, height) + kind + bytes(3)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_what_is_written_is_read(tmp_path_factory, suffix, height, width, seed):
    path, truth = tmp_path_factory.mktemp("flow") / f"x{suffix}", drawn(height, width, seed)
    write_flow(path, truth)
    again = read_flow(path)
    assert torch.equal(again.known, truth.known) and again.occluded is None
    assert again.flow.dtype == torch.float32 and (again.flow - truth.flow).abs().max() <= (suffix == ".png") / 128


def test_formats_agree(tmp_path):
    truth = drawn(11, 7, 0)
    truth = truth._replace(flow=torch.round(truth.flow * 64) / 64)
    for suffix in FORMATS:
        write_flow(tmp_path / f"x{suffix}", truth)
        assert torch.equal(read_flow(tmp_path / f"x{suffix}").flow, truth.flow)


def test_flo_by_hand(tmp_path):
    values = [1.5, -2, 0, 0, HUGE * 2, 3, float("nan"), 1, float("inf"), 0, -HUGE, 0]
    (tmp_path / "x.flo").write_bytes(b"PIEH" + struct.pack("<2i12f", 3, 2, *values))
    truth = read_flow(tmp_path / "x.flo")
    assert truth.known.tolist() == [[True, True, False], [False] * 3]
    assert truth.flow[:, 0].tolist() == [[1.5, 0, 0], [-2, 0, 0]] and not truth.flow[:, 1].any()


@pytest.mark.parametrize("order", "<>")
def test_pfm_by_hand(tmp_path, order):
    scale = "-1.0" if order == "<" else "0.5"
    rows = struct.pack(f"{order}12f", 1, 2, 9, 3, 4, 9, 5, 6, 9, 7, float("-inf"), 9)
    (tmp_path / "x.pfm").write_bytes(f"PF\n2 2\n{scale}\n".encode() + rows)
    truth = read_flow(tmp_path / "x.pfm")
    assert truth.flow.tolist() == [[[5, 0], [1, 3]], [[6, 0], [2, 4]]]
    assert truth.known.tolist() == [[True, False], [True, True]]


def test_png_by_hand(tmp_path):
    values = np.array([[[2**15, 2**15 + 64, 1], [2**15 - 32, 0, 1]], [[0, 0, 0], [65535, 5, 65535]]])
    truth = read_flow(png(tmp_path / "x.png", values))
    assert truth.flow.tolist() == [[[0, -0.5], [0, 511.984375]], [[1, -512], [0, -511.921875]]]
    assert truth.known.tolist() == [[True, True], [False, True]]
    write_flow(tmp_path / "y.png", truth)
    written = np.asarray(Image.open(tmp_path / "y.png"))  # which keeps the high byte
    assert np.array_equal(written[..., :2], values[..., :2] >> 8)
    assert np.array_equal(read_flow(tmp_path / "y.png").flow, truth.flow)


def test_damaged_files_are_refused(tmp_path):
    for suffix in FORMATS:
        write_flow(tmp_path / f"good{suffix}", drawn(20, 30, 0))
        data, path = (tmp_path / f"good{suffix}").read_bytes(), tmp_path / f"bad{suffix}"
        for bad in (b"", data[:3], data[:11], data[:20], data[: len(data) // 2], data[:-13], b"hello" * 50):
            path.write_bytes(bad)
            with pytest.raises(BadSample, match="bad") as error:
                read_flow(path)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 5000), value=st.integers(0, 255))
def test_bit_rot_is_a_flow_or_refused(tmp_path_factory, suffix, place, value):
    path = tmp_path_factory.mktemp("flow") / f"x{suffix}"
    write_flow(path, drawn(20, 30, 0))
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(data)
    try:
        truth = read_flow(path)
    except BadSample:
        return
    assert truth.flow.isfinite().all() and not truth.flow[:, ~truth.known].any()


def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path):
    flo, pfm = tmp_path / "x.flo", tmp_path / "x.pfm"
    for width, height, reason in (
        (2**31 - 1, 2**31 - 1, "more than max_pixels"),
        (-1, 5, "-1 x 5 pixels"),
        (3, 2, "62 bytes, where 3 x 2 pixels take 60"),
        (300, 200, "62 bytes, where 300 x 200"),
    ):
        flo.write_bytes(b"PIEH" + struct.pack("<2i", width, height) + bytes(50))
        with pytest.raises(BadSample, match=reason):
            read_flow(flo)
    pfm.write_bytes(b"PF\n99999999 99999999\n-1.0\n" + bytes(50))
    with pytest.raises(BadSample, match="more than max_pixels"):
        read_flow(pfm)
    with open(flo, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadSample, match="1099511627776 bytes, more than"):
        read_flow(flo)


def test_pngs_that_hold_no_flow(tmp_path):
    some = np.zeros((4, 4, 3))
    for size, kind, reason in (
        (None, b"\x08\x02", "three channels of 16 bits"),
        (None, b"\x10\x00", "three channels of 16 bits"),
        ((60_000, 60_000), b"\x10\x02", "60000 x 60000 pixels, more than"),
        ((6000, 6000), b"\x10\x02", "bytes are too few for 6000 x 6000"),
        ((0, 4), b"\x10\x02", "4 x 0 pixels"),
        ((5, 4), b"\x10\x02", "damaged"),
    ):
        with pytest.raises(BadSample, match=reason):
            read_flow(png(tmp_path / "x.png", some, size, kind))


def test_other_files(tmp_path):
    (tmp_path / "grey.pfm").write_bytes(b"Pf\n2 2\n-1.0\n" + bytes(16))
    for name, reason in (
        ("grey.pfm", "not a .pfm file of three channels"),
        ("x.fla", r"flow is kept in files .flo, .png, .pfm, not '.fla' .did you mean '.flo'"),
        ("missing.flo", "No such file"),
    ):
        with pytest.raises(BadSample, match=reason):
            read_flow(tmp_path / name)
    with pytest.raises(DataError, match="a flow of 512 pixels; a PNG reaches from -512 to below 512"):
        write_flow(tmp_path / "x.png", Truth(torch.full((2, 2, 2), 512.0), torch.ones(2, 2, dtype=torch.bool)))
    with pytest.raises(DataError, match="x.jpg: flow is kept in files"):
        write_flow(tmp_path / "x.jpg", drawn(2, 2, 0))


def test_middlebury(real_data, tmp_path):
    for path in (real_data / "flow" / "middlebury").glob("*/flow10.flo"):
        truth = read_flow(path)
        values = np.fromfile(path, np.float32)[3:].reshape(*truth.known.shape, 2)
        assert np.array_equal(truth.known, (np.abs(values) < HUGE).all(-1)) and 0.8 < truth.known.float().mean()
        assert np.array_equal(truth.flow.permute(1, 2, 0)[truth.known], values[truth.known.numpy()])
        write_flow(tmp_path / "x.png", truth)
        assert (read_flow(tmp_path / "x.png").flow - truth.flow).abs().max() <= 1 / 128
