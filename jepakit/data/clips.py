"""Which frames of a video make up a clip. Frames are numbered as they are shown.

The rules are those of the released V-JEPA code (src/datasets/video_dataset.py), and so are their corners:

* A clip of T frames at stride s covers T * s frames. It takes T of them spread evenly from the first to the last, so
  that neighbours lie a little more than s apart: 0, 4, 8, 12, 17, ... for 16 frames at stride 4.
* A video of n frames, no longer than that, gives n // s frames spread evenly over all of it; what is missing to T
  repeats its last frame.
* With fps, the stride is that of V-JEPA 2: the video's own rate, rounded up, over fps, rounded down; at least 1.
* Of several clips each lies in its own equal part of the video.
* Several clips to judge a video by (``segments``) lie so too; where these parts are shorter than a clip, they keep its
  length, begin evenly spread, and overlap. In a video no longer than a clip all are alike.

Three corners are not kept. There the last place where a clip fits is never drawn; clips that overlap leave out their
last frames; and the clips that a video is judged by lie anywhere in their parts, where here they lie in the middle.
"""

import math
from typing import NamedTuple

from jepakit.errors import ConfigError


class Sampling(NamedTuple):
    """How clips are taken. ``frames`` is T; ``fps`` given, it takes the place of ``stride``."""

    frames: int
    stride: int = 4
    fps: float | None = None
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

    def numbers(self, count: int, fps: float, part: int = 0, parts: int = 1, place: float | None = None) -> list[int]:
        """The frames of the clip that lies in ``part`` of ``parts`` equal ones of a video of ``count`` frames.

        ``place`` is where in its part, from 0 (first) to below 1 (last); None: in the middle.
        Raises ValueError for a video that is too short or too long.
        """
        self._refuse(count, max(self.min_frames, parts))
        step, length = self.step(fps), count // parts
        first, span = part * length, self.frames * step
        if length > span:
            room = length - span
            start = room // 2 if place is None else int(place * (room + 1))
            return [first + start + n for n in spread(span, self.frames)]
        own = min(length // step, self.frames)
        return [first + n for n in (*spread(length, own), *[length - 1] * (self.frames - own))]

    def segments(self, count: int, fps: float, clips: int) -> list[list[int]]:
        """The frames of each of ``clips`` evenly spread over a video. Raises ValueError as ``numbers`` does."""
        self._refuse(count, self.min_frames)
        span = self.frames * self.step(fps)
        if clips == 1 or count // clips > span:
            return [self.numbers(count, fps, part, clips) for part in range(clips)]
        whole = self._replace(min_frames=1).numbers(min(count, span), fps)
        apart = max(count - span, 0) // (clips - 1)
        return [[apart * clip + n for n in whole] for clip in range(clips)]

    def _refuse(self, count: int, least: int) -> None:
        if count < least:
            raise ValueError(f"{count} frames, fewer than {least}")
        if count > self.max_frames:
            raise ValueError(f"{count:,} frames, more than max_frames={self.max_frames}")


def spread(span: int, count: int) -> list[int]:
    """``count`` of the numbers below ``span``, evenly from 0 to ``span - 1``."""
    return [min(i * span // max(count - 1, 1), span - 1) for i in range(count)]
