"""Which frames a clip has: the rules of the released V-JEPA code, against numpy's words for them."""

import numpy as np
import pytest

from jepakit.data.clips import Sampling, spread
from jepakit.errors import ConfigError


def released(count: int, frames: int, stride: int, start: int) -> list[int]:
    """One clip of a video: linspace over T * s frames; of a short video what there is, and then its last frame."""
    span = frames * stride
    if count > span:
        return (np.clip(np.linspace(0, span, num=frames), 0, span - 1).astype(int) + start).tolist()
    own = np.linspace(0, count, num=count // stride)
    return np.clip([*own, *[count] * (frames - count // stride)], 0, count - 1).astype(int).tolist()


@pytest.mark.parametrize("frames,stride", [(16, 4), (16, 1), (16, 3), (64, 2), (8, 7), (2, 5)])
def test_as_released(frames, stride):
    sampling = Sampling(frames, stride)
    for count in (2, 3, 7, 16, 63, 64, 65, 100, 128, 129, 1000):
        found = sampling.numbers(count, 25.0)
        assert found == released(count, frames, stride, max(count - frames * stride, 0) // 2)
        assert len(found) == frames and min(found) >= 0 and max(found) < count and found == sorted(found)


def test_examples():
    assert Sampling(16, 4).numbers(64, 25.0) == [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
    assert Sampling(4, 2).numbers(5, 25.0) == [0, 4, 4, 4]
    assert Sampling(1, 4).numbers(100, 25.0) == [48]
    assert spread(5, 5) == [0, 1, 2, 3, 4] and spread(9, 0) == []


def test_a_drawn_clip_lies_anywhere():
    starts = [Sampling(4, 2).numbers(20, 25.0, place=i / 130)[0] for i in range(130)]
    assert starts == [i // 10 for i in range(130)]


def test_several_clips_have_a_part_each():
    sampling = Sampling(4, 2)
    for part in range(3):
        for place in (None, 0.0, 0.99):
            found = sampling.numbers(62, 25.0, part, 3, place)
            assert 20 * part <= found[0] and found[-1] < 20 * (part + 1)
    assert sampling.numbers(12, 25.0, 1, 3) == [4, 7, 7, 7]


def test_the_clips_that_a_video_is_judged_by():
    sampling = Sampling(4, 2)  # eight frames
    assert sampling.segments(62, 25.0, 3) == [sampling.numbers(62, 25.0, part, 3) for part in range(3)]
    assert sampling.segments(62, 25.0, 1) == [sampling.numbers(62, 25.0)]
    overlapping = sampling.segments(20, 25.0, 3)
    assert [clip[0] for clip in overlapping] == [0, 6, 12] and [clip[-1] for clip in overlapping] == [7, 13, 19]
    assert all(np.diff(clip).tolist() == np.diff(overlapping[0]).tolist() for clip in overlapping)
    assert sampling.segments(24, 25.0, 3) == [[start + n for n in (0, 2, 5, 7)] for start in (0, 8, 16)]
    for short in (8, 5, 2):
        assert sampling.segments(short, 25.0, 8) == [sampling.numbers(short, 25.0)] * 8
    with pytest.raises(ValueError, match="1 frames, fewer than 2"):
        sampling.segments(1, 25.0, 8)
    for count in range(2, 90):
        for clips in (1, 2, 4, 8):
            found = sampling.segments(count, 25.0, clips)
            assert len(found) == clips and found == sorted(found)
            assert all(len(clip) == 4 and clip == sorted(clip) and 0 <= clip[0] <= clip[-1] < count for clip in found)


def test_a_rate_takes_the_place_of_the_stride():
    assert [Sampling(16, fps=4.0).step(fps) for fps in (29.97, 25.0, 24.0, 12.5, 8.0, 3.0)] == [7, 6, 6, 3, 2, 1]
    assert Sampling(16, fps=2.5).step(29.97) == 12
    for unknown in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="give data.stride"):
            Sampling(16, fps=4.0).numbers(100, unknown)


def test_too_short_too_long_and_out_of_range():
    with pytest.raises(ValueError, match="1 frames, fewer than 2"):
        Sampling(4).numbers(1, 25.0)
    assert Sampling(4, min_frames=1).numbers(1, 25.0) == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="7 frames, fewer than 8"):
        Sampling(4).numbers(7, 25.0, parts=8)
    with pytest.raises(ValueError, match="max_frames=99"):
        Sampling(4, max_frames=99).numbers(100, 25.0)
    for wrong in ({"frames": 0}, {"frames": 4, "stride": 0}, {"frames": 4, "fps": -1}, {"frames": 4, "min_frames": 0}):
        with pytest.raises(ConfigError, match="must be above 0"):
            Sampling(**wrong).check()
