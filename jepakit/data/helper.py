"""The process that decodes videos for another one (isolated.py): it answers until nobody asks.

{"open": path, "first": number of a decoder}  -> {"good": [frames, fps, width, height]}
{"read": numbers}                             -> {"good": [T, H, W, 3]}, then the pixels
{"spent": true}                               -> {"good": CPU seconds of this process}
any                                           -> {"bad": reason}
"""

import contextlib
import faulthandler
import json
import os
import re
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jepakit.data.decoders import Facts, Inexact, TooLarge, Video
from jepakit.errors import DataError, UserError

LONGEST = 160
"""Letters of a decoder's own words that are passed on."""


class Reading:
    """The helper's side: one video at a time, each decoder in turn."""

    def __init__(self, names: Sequence[str], max_pixels: int):
        self._names, self._max_pixels = list(names), max_pixels
        self._decoders: dict[str, Any] = {}
        self._unusable: dict[str, str] = {}
        self._video: Video | None = None

    def first(self) -> str:
        """The first decoder that can be used. Raises DataError that says why none can."""
        for name in self._names:
            if self._decoder(name) is not None:
                return name
        raise DataError(f"no video can be decoded here; {'; '.join(self._unusable.values())}")

    def open(self, path: str, first: int) -> Facts:
        """The file as the first decoder sees it that can read it, from number ``first`` on.

        Raises ValueError with the words of all of them.
        """
        self._path, self._left = path, self._names[first:]
        self._reasons: list[str] = []
        self._inexact: list[str] = []
        return self._next()

    def read(self, numbers: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """The frames, by the next decoder where this one fails."""
        while self._video is not None:
            try:
                frames = np.ascontiguousarray(self._video.read(numbers))
            except Exception as error:  # decoders raise anything when the bytes are wrong
                self._reasons.append(self._words(error))
                while self._next().frames <= max(numbers):
                    self._reasons.append(f"{self._name}: it finds fewer frames")
            else:
                self._close()
                return frames
        raise ValueError("no video is open")

    def _next(self) -> Facts:
        while self._left:
            self._close()
            self._name = self._left.pop(0)
            decoder = self._decoder(self._name)
            if decoder is None:
                continue
            try:
                self._video = decoder.open(self._path)
                facts = self._video.facts(self._max_pixels)
                if facts.frames > 0:
                    return facts
                self._reasons.append(f"{self._name}: no frames")
            except TooLarge:
                raise
            except Inexact as error:
                self._inexact.append(self._words(error))
            except Exception as error:  # as above
                self._reasons.append(self._words(error))
        self._close()
        raise ValueError(f"not a video that can be read ({'; '.join(self._reasons or self._inexact)})")

    def _close(self) -> None:
        if self._video is not None:
            self._video.close()
        self._video = None

    def _decoder(self, name: str) -> Any:
        """A decoder, made when it is first needed; None where it cannot be used."""
        from jepakit.plugins import discover

        if name not in self._decoders:
            try:
                self._decoders[name] = discover().get("decoder", name).load()()
            except (ImportError, OSError, RuntimeError, UserError) as error:
                self._decoders[name] = None
                self._unusable[name] = f"decoder {name}: {' '.join(str(error).split())[:LONGEST]}"
        return self._decoders[name]

    def _words(self, error: Exception) -> str:
        """What a decoder says, in one line, without times and places in its code."""
        text = getattr(error, "strerror", None) or " ".join(str(error).replace(self._path, "the file").split())
        text = re.sub(r"\[[\d:]+\] /\S+ |\(-?\d+ vs\. \d+\) ", "", text)
        return f"{self._name}: {text[:LONGEST] or type(error).__name__}"


def serve(descriptor: int, names: Sequence[str], max_pixels: int, seconds: float) -> None:
    """The helper's life: answer until nobody asks. One whose parent has died while it hangs ends by itself."""
    connection, reading = Connection(descriptor), Reading(names, max_pixels)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        _say(connection, good=reading.first())
    except DataError as error:
        return _say(connection, unusable=str(error))
    for stream in (1, 2):
        os.dup2(silence, stream)  # FFmpeg's remarks about every damaged file
    with contextlib.suppress(EOFError, ConnectionError), open(os.devnull, "w") as nowhere:
        while True:
            request = json.loads(connection.recv_bytes())
            faulthandler.dump_traceback_later(2 * seconds, exit=True, file=nowhere)
            _answer(connection, reading, request)
            faulthandler.cancel_dump_traceback_later()


def _answer(connection: Connection, reading: Reading, request: dict[str, Any]) -> None:
    if "spent" in request:
        return _say(connection, good=time.process_time())
    try:
        if "open" in request:
            return _say(connection, good=reading.open(request["open"], request["first"]))
        frames = reading.read(request["read"])
    except ValueError as error:
        return _say(connection, bad=str(error))
    _say(connection, good=frames.shape)
    connection.send_bytes(memoryview(frames).cast("B"))


def _say(connection: Connection, **answer: Any) -> None:
    connection.send_bytes(json.dumps(answer).encode())
