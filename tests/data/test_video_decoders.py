"""The same request gets the same frames from every decoder, whatever the container, the codec and the times are."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from jepakit.data import container
from jepakit.data.decoders import Decord, Inexact, PyAV, TooLarge
from jepakit.data.isolated import Isolated, unusable
from tests.data.make import audio, numbers, turned, video

LARGE = 10**6
WANTED = ([7, 12, 15, 22, 25], [0], [39], [0, 9, 10, 11, 38, 39], list(range(40)))
IRREGULAR = [40 * i + 13 * (i % 3) + 5000 for i in range(40)]
EXACT = {
    "h264.mp4": {},
    "h264.mkv": {},
    "irregular.mp4": {"times": IRREGULAR},
    "irregular.mkv": {"times": IRREGULAR},
    "short.mov": {"gop": 2},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "faststart.mp4": {"movflags": "faststart"},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
}
"""What decord finds exact frames in."""
OTHERS = {
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4.mkv": {"codec": "mpeg4"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "h264.ts": {},
    "h264.flv": {},
}
"""What it does not: in most of these it, or torchcodec, silently returns other frames than it was asked for."""


def read(decoder, path: Path, wanted: list[int]) -> np.ndarray:
    opened = decoder.open(str(path))
    try:
        facts = opened.facts(LARGE)
        assert (facts.frames, facts.width, facts.height) == (40, 96, 64)
        return opened.read(wanted)
    finally:
        opened.close()


@pytest.mark.parametrize("name", EXACT)
def test_exact_frames(tmp_path, name):
    path = video(tmp_path / name, **EXACT[name])
    for wanted in WANTED:
        one, other = read(Decord(), path, wanted), read(PyAV(), path, wanted)
        assert numbers(one.transpose(3, 0, 1, 2)) == wanted
        np.testing.assert_allclose(one.astype(int), other.astype(int), atol=2)


@pytest.mark.parametrize(
    "gop, wanted, runs",
    [
        (4, [0, 4, 8, 12, 16], 1),  # three frames between are decoded sooner than sought over
        (4, [0, 30], 2),
        (20, [0, 10, 19, 25], 1),
        (20, [0, 5, 25], 2),
        (1, [3, 4, 8], 2),  # each frame stands for itself: nothing is held back
    ],
)
def test_a_seek_has_to_pay(tmp_path, gop, wanted, runs):
    opened = PyAV().open(str(video(tmp_path / "a.mp4", gop=gop, sc_threshold="0")))
    found = list(opened._runs(wanted))
    assert len(found) == runs and sum(len(times) for _, times in found) == len(wanted)
    assert numbers(opened.read(wanted).transpose(3, 0, 1, 2)) == wanted
    opened.close()


@pytest.mark.parametrize("name", OTHERS)
def test_a_decoder_that_is_not_exact_refuses(tmp_path, name):
    path = video(tmp_path / name, **OTHERS[name])
    for wanted in WANTED:
        assert numbers(read(PyAV(), path, wanted).transpose(3, 0, 1, 2)) == wanted
    with pytest.raises(Inexact, match="no exact frames"):
        Decord().open(str(path))


def test_what_is_turned_is_shown_upright(tmp_path):
    plain, path = video(tmp_path / "plain.mp4"), turned(video(tmp_path / "turned.mp4"))
    upright = np.rot90(read(PyAV(), plain, [3, 20]), -1, (1, 2))
    for decoder in (PyAV(), Decord()):
        opened = decoder.open(str(path))
        facts = opened.facts(LARGE)
        assert (facts.width, facts.height) == (64, 96)
        np.testing.assert_allclose(opened.read([3, 20]).astype(int), upright.astype(int), atol=2)
        opened.close()


def test_the_pixels_of_a_frame_are_limited(tmp_path):
    path = str(video(tmp_path / "a.mp4", 3))
    for decoder in (PyAV(), Decord()):
        with pytest.raises(TooLarge, match="96 x 64 pixels, more than max_pixels=6143"):
            decoder.open(path).facts(6143)


def borrowed(folder: Path) -> str:
    """The FFmpeg that PyAV brings, under the names that torchcodec looks for: a value for LD_LIBRARY_PATH."""
    libraries = Path(av.__file__).parents[1] / "av.libs"
    folder.mkdir()
    for path in libraries.glob("lib[as][vw]*.so.*"):
        name, _, version = path.name.partition(".so.")
        (folder / f"{name.split('-')[0]}.so.{version.split('.')[0]}").symlink_to(path)
    return os.pathsep.join((str(folder), str(libraries)))


def test_torchcodec_gives_the_same_frames(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", borrowed(tmp_path / "ffmpeg"))
    one = Isolated(["torchcodec"], 60.0, LARGE)
    for name, options in EXACT.items():
        path = video(tmp_path / name, **options)
        for wanted in WANTED:
            found = one.clip(str(path), lambda facts, wanted=wanted: wanted)
            np.testing.assert_allclose(found.astype(int), read(PyAV(), path, wanted).astype(int), atol=2)
    path = turned(video(tmp_path / "turned.mp4"))
    assert one.clip(str(path), lambda facts: [facts.width - 60, facts.height - 60]).shape == (2, 96, 64, 3)
    one.close()


def test_torchcodec_without_ffmpeg_says_so(monkeypatch):
    monkeypatch.setattr("jepakit.data.decoders.VERSIONS", ())
    from jepakit.data.decoders import TorchCodec

    with pytest.raises(ImportError, match="no FFmpeg among the system's libraries"):
        TorchCodec()
    assert unusable("pyav") == "" == unusable("decord")


def test_what_a_file_is(tmp_path):
    known = {name: container.inspect(str(video(tmp_path / name, **(EXACT | OTHERS)[name]))) for name in EXACT | OTHERS}
    assert known["h264.mp4"] == known["fragments.mp4"] == known["short.mov"] == ("MP4", "H.264")
    assert known["h264.mkv"] == ("Matroska", "H.264") and known["vp9.webm"] == ("Matroska", "VP9")
    assert known["mpeg4.mkv"] == ("Matroska", "MPEG-4") and known["mpeg4.mp4"] == ("MP4", "MPEG-4")
    assert known["mjpeg.avi"] == ("AVI", "") and known["h264.ts"] == known["h264.flv"] == ("", "")
    assert container.inspect(str(audio(tmp_path / "audio.mp4"))) == ("MP4", "")


@pytest.mark.parametrize("name", ["h264.mkv", "mjpeg.avi", "faststart.mp4", "fragments.mp4", "h264.mp4"])
def test_what_ends_too_early_is_refused(tmp_path, name):
    path = video(tmp_path / name, **(EXACT | OTHERS)[name])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"ends too early: {len(whole) // 2:,} of "):
        container.inspect(str(path))
    path.write_bytes(whole + bytes(100))
    container.inspect(str(path))


def test_a_live_stream_has_no_stated_end(tmp_path):
    path = video(tmp_path / "live.mkv", live="1")
    path.write_bytes(path.read_bytes()[:-50])
    assert container.inspect(str(path)) == ("Matroska", "H.264")


def test_real_clips(real_data):
    for name in ("book.mkv", "car-detection.mp4", "one-by-one-person-detection.mp4"):
        path, found = str(real_data / "videos" / name), []
        for decoder in (Decord(), PyAV()):
            opened = decoder.open(path)
            count = opened.facts(LARGE).frames
            found.append((count, opened.read([1, count // 3, count - 1])))
            opened.close()
        assert found[0][0] == found[1][0]
        assert np.abs(found[0][1].astype(int) - found[1][1].astype(int)).mean() < 1
