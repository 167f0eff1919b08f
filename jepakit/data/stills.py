"""Pairs of pictures, and what is known of the motion between them: layouts.py finds their files, here they are read."""

import os

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from jepakit.data import BadSample
from jepakit.data.decode import Pillow
from jepakit.data.flow import Truth, read_flow
from jepakit.data.folder import Names, printable
from jepakit.data.layouts import Pair


class Stills:
    """Pairs of pictures below one root.

    Args:
        root: the folder that the files of ``pairs`` are relative to.
        pairs: what layouts.py found there, by layout.
        max_pixels: pictures and flow of more pixels are refused.
    """

    def __init__(self, root: str, pairs: dict[str, list[Pair]], max_pixels: int):
        self.root, self._max_pixels, self._decode = root, max_pixels, Pillow(max_pixels)
        several = [pair for each in pairs.values() for pair in each]
        self.kinds = {name: len(each) for name, each in pairs.items()}
        self.truths = sum(bool(pair.flow) for pair in several)
        self._pairs = Names(["\0".join(pair) for pair in several])

    def __len__(self) -> int:
        return len(self._pairs)

    def path(self, index: int) -> str:
        """The first frame's file; that of the second, or of the flow, where there is none."""
        return os.path.join(self.root, next(filter(None, self._files(index))))

    def read(self, index: int, place: float) -> UInt8[Tensor, "3 2 H W"]:
        """The two frames; ``place`` says nothing here. Raises BadSample."""
        files = self._files(index)
        first, second = (self._picture(index, name, getattr(files, name)) for name in ("first", "second"))
        if first.shape != second.shape:
            raise self._bad(index, f"frames of different sizes: {_size(first)} and {_size(second)} pixels")
        return torch.cat([first, second], 1)

    def truth(self, index: int) -> Truth | None:
        """What is known of the motion; None where there is no file that says it. Raises BadSample."""
        files = self._files(index)
        if not files.flow:
            return None
        found = self._flow(index, files.flow)
        first = self._picture(index, "first", files.first)
        occluded = None
        if files.clear:
            occluded = found.known & ~self._flow(index, files.clear, found).known
        elif files.occluded:
            occluded = self._mask(index, files.occluded, found)
        known = found.known & ~self._mask(index, files.invalid, found) if files.invalid else found.known
        if first.shape[-2:] != found.known.shape:
            raise self._bad(index, f"{files.flow}: flow of {_size(found.known)} pixels, frames of {_size(first)}")
        return Truth(found.flow * known, known, occluded)

    def format(self, index: int) -> str:
        """The formats of the first frame and of the flow. Raises BadSample."""
        files, kind = self._files(index), self._decode.format(self.path(index))
        return f"{kind} with {os.path.splitext(files.flow)[1]}" if files.flow else kind

    def _files(self, index: int) -> Pair:
        return Pair(*self._pairs[index].split("\0"))

    def _picture(self, index: int, name: str, file: str) -> UInt8[Tensor, "3 1 H W"]:
        if not file:
            raise self._bad(index, f"its {name} frame is missing")
        try:
            return self._decode(os.path.join(self.root, file))
        except BadSample as bad:
            raise self._bad(index, bad.reason if name == "first" else f"{file}: {bad.reason}") from bad

    def _flow(self, index: int, file: str, like: Truth | None = None) -> Truth:
        try:
            found = read_flow(os.path.join(self.root, file), self._max_pixels)
        except BadSample as bad:
            raise self._bad(index, f"{file}: {bad.reason}") from bad
        self._require_size(index, file, found.known, like)
        return found

    def _mask(self, index: int, file: str, like: Truth) -> Bool[Tensor, "H W"]:
        mask = self._picture(index, "mask", file)[0, 0] > 0
        self._require_size(index, file, mask, like)
        return mask

    def _require_size(self, index: int, file: str, found: Tensor, like: Truth | None) -> None:
        if like is not None and found.shape != like.known.shape:
            raise self._bad(index, f"{file}: {_size(found)} pixels, where the flow has {_size(like.known)}")

    def _bad(self, index: int, reason: str) -> BadSample:
        return BadSample(printable(self.path(index)), printable(reason))


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]} x {picture.shape[-2]}"
