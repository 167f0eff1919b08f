"""Three libraries that read videos, asked in one way: the number of frames, their rate, and frames by number.

Frames are numbered as they are shown, from 0, whatever their times are: B-frames and a variable rate change nothing.
They come out as 8-bit RGB, turned as the file says they are to be shown. Each class takes one core. None of this
imports torch of its own accord: it runs in processes of its own (isolated.py).
"""

import bisect
import contextlib
import ctypes
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from jepakit.data import container

SUFFIXES = tuple(
    ".3gp .asf .avi .f4v .flv .m2ts .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .ogv .vob .webm .wmv".split()
)
"""File names that are worth a look."""
EXACT = ("MP4", "Matroska")
"""Containers whose packets have times that can be relied on: what frame a packet becomes is known without decoding."""
DECORD_CODECS = ("H.264", "HEVC", "VP8", "VP9")
"""Codecs that decord finds frames of; AV1 it does not know, and in MPEG-4 with B-frames it misses by some frames."""

NEAR = 10
"""Frames that a seek has to pass over more of, to pay: a decoder that starts anew takes about as long as for these."""
VERSIONS = range(56, 80)
"""Of FFmpeg's libavutil: from that of FFmpeg 4 on."""


class TooLarge(ValueError):
    """Frames of more pixels than are allowed: no reason to try another decoder."""


class Inexact(ValueError):
    """A file of which a decoder would give other frames than it is asked for."""


class Facts(NamedTuple):
    """What is known of a video before its frames are: how many there are, how many a second, and their size."""

    frames: int
    fps: float
    width: int
    height: int


class Video(Protocol):
    """An open video. ``facts`` may decode one frame to know its size."""

    def facts(self, max_pixels: int) -> Facts:
        """Raises TooLarge for frames of more than ``max_pixels``."""
        ...

    def read(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """These frames; numbers rise and occur once. Raises anything where one cannot be decoded."""
        ...

    def close(self) -> None: ...


class Decord:
    """decord 0.6: FFmpeg 4.1 inside. Elsewhere than in ``EXACT`` containers and codecs it seeks to wrong frames."""

    suffixes: tuple[str, ...] = SUFFIXES
    channels: int = 3

    def __init__(self) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._reader: Any = decord.VideoReader

    def open(self, path: str) -> "DecordVideo":
        """Raises anything for a file that it cannot read, or of which it would give other frames than asked for."""
        require_exact(path, DECORD_CODECS)
        return DecordVideo(self._reader(path, num_threads=1))


class DecordVideo:
    """A video that decord has opened."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def facts(self, max_pixels: int) -> Facts:
        height, width, _ = self._reader[0].shape  # it tells no size before it has decoded a frame
        refuse_large(width, height, max_pixels)
        return Facts(len(self._reader), float(self._reader.get_avg_fps()), width, height)

    def read(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        return self._reader.get_batch(list(numbers)).asnumpy()

    def close(self) -> None:
        self._reader = None


class TorchCodec:
    """torchcodec: uses the FFmpeg of the system, and cannot be used without one. Exact in ``EXACT`` containers."""

    suffixes: tuple[str, ...] = SUFFIXES
    channels: int = 3

    def __init__(self) -> None:
        require_ffmpeg()
        from torchcodec.decoders import VideoDecoder

        self._reader: Any = VideoDecoder

    def open(self, path: str) -> "TorchCodecVideo":
        """Raises anything for a file that it cannot read, or of which it would give other frames than asked for."""
        require_exact(path)
        return TorchCodecVideo(self._reader(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"))


class TorchCodecVideo:
    """A video that torchcodec has opened."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def facts(self, max_pixels: int) -> Facts:
        known = self._reader.metadata
        refuse_large(known.width, known.height, max_pixels)
        return Facts(len(self._reader), float(known.average_fps or 0), known.width, known.height)

    def read(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        return self._reader.get_frames_at(list(numbers)).data.numpy()

    def close(self) -> None:
        self._reader = None


class PyAV:
    """PyAV (the package ``av``): brings an FFmpeg of its own, newer than decord's, and reads what that reads."""

    suffixes: tuple[str, ...] = SUFFIXES
    channels: int = 3

    def __init__(self) -> None:
        import av

        self._open: Any = av.open

    def open(self, path: str) -> "PyAVVideo":
        """Raises anything for a file that it cannot read."""
        opened = functools.partial(self._open, path, metadata_errors="ignore")
        return PyAVVideo(opened, container.inspect(path).kind in EXACT)


class PyAVVideo:
    """A video that PyAV has opened.

    Where packets have times, they are listed first, and decoding begins at the key frame before what is wanted; it goes
    on to a later key frame where that passes over many frames (``NEAR``; any, where each frame stands for itself).
    Other videos are decoded from their beginning and counted, twice: that is slow, and right.
    """

    def __init__(self, opened: Callable[[], Any], timed: bool) -> None:
        self._opened, self._file = opened, opened()
        if not self._file.streams.video:
            self.close()
            raise ValueError("there is no video in it")
        packets = [packet for packet in self._file.demux(self._stream) if packet.size and not packet.is_discard]
        shown = {packet.pts for packet in packets}
        self._timed = timed and None not in shown and len(shown) == len(packets)
        self._times: list[int] = sorted(shown) if self._timed else []
        self._keys = [(p.pts, p.pts if p.dts is None else p.dts) for p in packets if p.is_keyframe]

    @property
    def _stream(self) -> Any:
        return self._file.streams.best("video")

    def facts(self, max_pixels: int) -> Facts:
        known = self._stream.codec_context
        size, rate = (known.width, known.height), float(self._stream.average_rate or 0)
        refuse_large(*size, max_pixels)
        first = next(self._from_start(), None)
        if first is None:
            raise ValueError("no frame can be decoded")
        count = len(self._times) if self._timed else sum(1 for _ in self._from_start())
        return Facts(count, rate, *(size[::-1] if first.rotation % 180 else size))

    def read(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        if not self._timed:
            return np.stack(pick(enumerate(self._from_start()), numbers))
        pieces = []
        for key, times in self._runs(numbers):
            try:
                pieces += pick(((frame.pts, frame) for frame in self._from(key)), times)
            except LookupError:  # the file's index led past it
                pieces += pick(((frame.pts, frame) for frame in self._from_start()), times)
        return np.stack(pieces)

    def close(self) -> None:
        self._file.close()

    def _runs(self, numbers: Sequence[int]) -> Iterator[tuple[int | None, list[int]]]:
        """Where to seek, and the times of the frames that are decoded from there on."""
        near = 0 if len(self._keys) == len(self._times) else NEAR
        shown = {at: bisect.bisect_left(self._times, pts) for pts, at in self._keys}
        found: list[tuple[int | None, list[int]]] = []
        last, key = -1, None
        for number in numbers:
            before, key = key, self._key(self._times[number])
            if not found or (key != before and shown.get(key, 0) - last - 1 > near):
                found.append((key, []))
            found[-1][1].append(self._times[number])
            last = number
        yield from found

    def _key(self, time: int) -> int | None:
        """Where to seek for the frame that is shown at ``time``; None: to the beginning."""
        return max((at for pts, at in self._keys if pts <= time), default=None)

    def _from(self, key: int | None) -> Iterator[Any]:
        """The frames as they are shown, from a key frame on."""
        if key is None:
            return self._from_start()
        self._file.seek(key, stream=self._stream)
        return self._file.decode(self._stream)

    def _from_start(self) -> Iterator[Any]:
        """All frames. The file is opened anew: not every container can be sought in."""
        self.close()
        self._file = self._opened()
        self._stream.codec_context.thread_count = 1
        return self._file.decode(self._stream)


def pick(frames: Iterator[tuple[int, Any]], wanted: Sequence[int]) -> list[UInt8[np.ndarray, "H W 3"]]:
    """The pixels of PyAV's frames that are wanted, in order. Raises LookupError where one does not come."""
    from av.video.reformatter import VideoReformatter

    left, found, convert = list(wanted), [], VideoReformatter()  # a frame's own would be made anew for each
    for number, frame in frames:
        if number == left[0]:
            found.append(np.rot90(convert.reformat(frame, format="rgb24").to_ndarray(), frame.rotation // 90))
            left.pop(0)
        if not left:
            return found
    raise LookupError(f"frame {left[0]} is in the list of packets and does not come out of the decoder")


def require_exact(path: str, codecs: Sequence[str] = ()) -> None:
    """Raises Inexact for a container that is not one of ``EXACT``, or a codec that is not one of ``codecs``."""
    kind, codec = container.inspect(path)
    if kind not in EXACT or (codecs and codec not in codecs):
        what = f"{kind or 'this container'}{' with ' * bool(codec)}{codec}"
        raise Inexact(f"it finds no exact frames in {what}; decoder pyav does (pip install av)")


def refuse_large(width: int, height: int, max_pixels: int) -> None:
    """Raises TooLarge for a frame of more than ``max_pixels``."""
    if width * height > max_pixels:
        raise TooLarge(f"{width} x {height} pixels, more than max_pixels={max_pixels}")


def require_ffmpeg() -> None:
    """Raises ImportError where no FFmpeg is found. torchcodec would say so too, but after torch is imported."""
    for name, version in itertools.product(("libavutil.so.{}", "libavutil.{}.dylib"), VERSIONS):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name.format(version))
            return
    raise ImportError("no FFmpeg among the system's libraries")
