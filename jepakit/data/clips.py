"""Which frames of a video make up a clip. Frames are numbered as they are shown.

The rules are those of the released V-JEPA code (src/datasets/video_dataset.py), and so are their corners:

* A clip of T frames at stride s covers T * s frames. It takes T of them spread evenly from the first to the last, so
  that neighbours lie a little more than s apart: 0, 4, 8, 12, 17, ... for 16 frames at stride 4.
* A video of n frames, no longer than that, gives n // s frames spread evenly over all of it; what is missing to T
  repeats its last frame.
* With fps, the stride is that of V-JEPA 2: the video's own rate, rounded up, over fps, rounded down; at least 1.
* Of several clips each lies in its own equal part of the video.

One corner is not kept: there the last place where a clip fits is never drawn.
"""

import math
from typing import NamedTuple

from jepakit.errors import ConfigError


class Sampling(NamedTuple):
    """How clips are taken. ``frames`` is T; ``fps`` given, it takes the place of ``stride``."""

    frames: int
    stride: int = 4
    fps: float | None = None
    clips: int = 1
    min_frames: int = 2
    max_frames: int = 1_000_000

    def check(self) -> "Sampling":
        """Itself. Raises ConfigError for a number that is out of its range."""
        for name, value in self._asdict().items():
            if value is not None and value <= 0:
                raise ConfigError(f"data.{name}={value} must be above 0")
        return self

    def step(self, fps: float) -> int:
        """Frames from one of a clip to the next, in a video of ``fps`` frames a second."""
        if self.fps is None:
            return self.stride
        if not 0 < fps < math.inf:
            raise ValueError("its frame rate is not known: give data.stride in place of data.fps")
        return max(1, int(math.ceil(fps) // self.fps))

    def numbers(self, count: int, fps: float, part: int = 0, place: float | None = None) -> list[int]:
        """The frames of clip ``part`` of a video of ``count`` frames.

        ``place`` is where the clip lies, from 0 (first) to below 1 (last); None: in the middle.
        Raises ValueError for a video that is too short or too long.
        """
        least = max(self.min_frames, self.clips)
        if count < least:
            raise ValueError(f"{count} frames, fewer than {least}")
        if count > self.max_frames:
            raise ValueError(f"{count:,} frames, more than max_frames={self.max_frames}")
        step, length = self.step(fps), count // self.clips
        first, span = part * length, self.frames * step
        if length > span:
            room = length - span
            start = room // 2 if place is None else int(place * (room + 1))
            return [first + start + n for n in spread(span, self.frames)]
        own = min(length // step, self.frames)
        return [first + n for n in (*spread(length, own), *[length - 1] * (self.frames - own))]


def spread(span: int, count: int) -> list[int]:
    """``count`` of the numbers below ``span``, evenly from 0 to ``span - 1``."""
    return [min(i * span // max(count - 1, 1), span - 1) for i in range(count)]
