"""Pairs of frames are a data set: from videos, from numbered pictures, or from a data set with known optical flow."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from jepakit.data import BadSample, container, layouts, lists, mix
from jepakit.data.decode import Pillow
from jepakit.data.decoders import SUFFIXES, Facts
from jepakit.data.flow import FORMATS, Truth
from jepakit.data.folder import Names, describe_others, printable, require_folder, scan
from jepakit.data.isolated import Isolated
from jepakit.data.stills import Stills
from jepakit.data.video import decoders
from jepakit.errors import ConfigError, DataError
from jepakit.protocols import Source


class Clips:
    """Videos, of which a pair is taken from anywhere.

    Args:
        root: the folder that ``paths`` are relative to.
        paths: of the videos.
        gap: frames from the first of a pair to the second.
        decoding: reads them.
    """

    truths = 0

    def __init__(self, root: str, paths: Sequence[str], gap: int, decoding: Isolated):
        self.root, self._paths, self._gap, self._decoding = root, Names(list(paths)), gap, decoding
        self.kinds = {"videos": len(self._paths)}

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """The file of a video."""
        return os.path.join(self.root, self._paths[index])

    def read(self, index: int, place: float) -> UInt8[Tensor, "3 2 H W"]:
        """The pair at ``place``, from 0 (the first there is) to 1 (the last). Raises BadSample."""

        def choose(facts: Facts) -> list[int]:
            places = facts.frames - self._gap
            if places < 1:
                raise ValueError(f"{facts.frames} frames, and a pair with gap={self._gap} takes {self._gap + 1}")
            first = min(int(place * places), places - 1)
            return [first, first + self._gap]

        self._inspect(index)
        try:
            return torch.from_numpy(self._decoding.clip(self.path(index), choose)).permute(3, 0, 1, 2)
        except BadSample as bad:
            raise BadSample(printable(self.path(index)), bad.reason) from bad

    def truth(self, index: int) -> None:
        """Of videos no motion is known."""

    def format(self, index: int) -> str:
        """Container and codec, as far as the bytes tell without decoding. Raises BadSample."""
        return " ".join(filter(None, self._inspect(index))) or "other"

    def _inspect(self, index: int) -> container.Container:
        try:
            return container.inspect(self.path(index))
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadSample(printable(self.path(index)), reason) from error


class Pairs:
    """Two frames of each sample, uint8 ``3 2 H W``, without labels; ``truth(index)`` is their motion, where known.

    ``root`` is a folder of videos, or a list of them, as data=video has; a folder of numbered pictures; or a data set
    with optical flow, in the layout that it comes in (layouts.py); or several of these (mix.py). A video is one sample:
    in training a pair from anywhere in it, else that in its middle. Of pictures each that has a partner is one.

    Args:
        root: the folder or list, or several: ``[a, b.csv]``.
        held_out: another one, for what is computed while training.
        gap: frames from the first of a pair to the second, in videos and numbered pictures; flow data sets say it.
        layout: what ``root`` is: middlebury, chairs, sintel, kitti, videos or frames; auto: looks by itself.
        rendering: Sintel's frames, clean or final.
        decoder: registered name of the decoder of videos, as in data=video.
        time_limit: seconds that a decoder may take for what is read of a video at once.
        max_pixels: frames, and flow, of more pixels are refused.
        weights: shares of each epoch that the roots have while training; null: every sample once.

    Raises:
        ConfigError: an argument out of its range, or no layout, rendering or video decoder of that name.
        DataError: nothing to read there.
    """

    channels: int = 3

    def __init__(
        self,
        root: str | list[str],
        held_out: str | None = None,
        gap: int = 1,
        layout: str = "auto",
        rendering: str = "clean",
        decoder: str = "auto",
        time_limit: float = 30.0,
        max_pixels: int = 16_000_000,
        weights: list[float] | None = None,
    ):
        layouts.check(layout, rendering)
        if min(gap, time_limit) <= 0:
            raise ConfigError(f"data.gap={gap} and data.time_limit={time_limit} must be above 0")
        self.held_out, self.gap, self.layout, self.rendering = held_out, gap, layout, rendering
        self._same: dict[str, Any] = {"gap": gap, "layout": layout, "rendering": rendering, "decoder": decoder}
        self._same |= {"time_limit": time_limit, "max_pixels": max_pixels}
        self._max_pixels, self._decoding = max_pixels, Isolated(decoders(decoder), time_limit, max_pixels)
        self.classes: dict[str, tuple[str, ...]] = {}
        self.others: Counter[str] = Counter()
        several, self.weights = mix.roots(root, weights)
        self._each = [self._look(each) for each in several]
        self.parts = tuple(map(len, self._each))
        self._roots = mix.describe(several, self.parts, weights)

    def __len__(self) -> int:
        return sum(self.parts)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        """The pair, of a video that in its middle, uint8 ``3 2 H W``; no labels. Raises BadSample."""
        part, number = self._at(index)
        return part.read(number, 0.5), {}

    def sample(self, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, int | float]]:
        """The pair, of a video one from a place that ``rng`` draws. Raises BadSample."""
        part, number = self._at(index)
        return part.read(number, torch.rand((), generator=rng, dtype=torch.float64).item()), {}

    def truth(self, index: int) -> Truth | None:
        """The motion from the first frame to the second; None where nobody says. Raises BadSample."""
        part, number = self._at(index)
        return part.truth(number)

    def describe(self, index: int) -> str:
        """The first frame's file, or the video, printable whatever bytes are in its name."""
        part, number = self._at(index)
        return printable(part.path(number))

    def describe_all(self) -> str:
        """What was found, in one line: ``7 pairs (4 middlebury, 3 chairs), 7 with known flow``."""
        kinds = sum((Counter(part.kinds) for part in self._each), Counter())
        what = ", ".join(f"{count:,} {name}" for name, count in kinds.items())
        truths = sum(part.truths for part in self._each)
        return f"{len(self):,} pairs ({what}), {truths:,} with known flow{describe_others(self.others)}{self._roots}"

    def format(self, index: int) -> str:
        """Formats of frames and flow, or container and codec. Raises BadSample."""
        part, number = self._at(index)
        return part.format(number)

    def held_out_source(self) -> Source | None:
        """The pairs of ``held_out``. Raises DataError."""
        return None if self.held_out is None else Pairs(self.held_out, **self._same)

    def _at(self, index: int) -> tuple[Stills | Clips, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number, samples = mix.Mix(self.parts).part(index)
        return self._each[number], index - samples.start

    def _look(self, root: str) -> Stills | Clips:
        """The pairs of one root. Raises DataError where there are none."""
        given = os.path.expanduser(root) if isinstance(root, str) else root
        listed = isinstance(given, str) and os.path.isfile(given) and given.lower().endswith(lists.LISTS)
        if listed and self.layout in ("auto", "videos"):
            return Clips(os.path.dirname(given), lists.read(given, SUFFIXES).paths, self.gap, self._decoding)
        root = require_folder(root, "data.root", f"a folder or a list of videos ({', '.join(lists.LISTS)})")
        files, others = scan(root, frozenset((*SUFFIXES, *Pillow.suffixes, *FORMATS)))
        part, used = self._find(root, files)
        left = others + Counter(os.path.splitext(file)[1].lower() or "no suffix" for file in files if file not in used)
        if not len(part):
            raise DataError(f"{root}: no pair of frames in it ({self._sought()}{describe_others(left)})")
        self.others += left
        return part

    def _find(self, root: str, files: list[str]) -> tuple[Stills | Clips, set[str]]:
        """The pairs of a folder, and which of its files they need."""
        found = {} if self.layout == "videos" else layouts.find(files, self.layout, self.rendering, self.gap)
        videos = [file for file in files if file.lower().endswith(SUFFIXES)]
        if self.layout == "videos" or (self.layout == "auto" and not found and videos):
            return Clips(root, videos, self.gap, self._decoding), set(videos)
        if self.layout == "auto" and not found:
            found = layouts.find(files, "frames", self.rendering, self.gap)
        used = {file.replace("/", os.sep) for pairs in found.values() for pair in pairs for file in pair}
        return Stills(root, found, self._max_pixels), used

    def _sought(self) -> str:
        """What was looked for."""
        if self.layout != "auto":
            return f"looked for the layout {self.layout} alone"
        each = ", ".join(layouts.FLOWS)
        return f"looked for the layouts {each}, for videos, and for pictures whose numbers differ by gap={self.gap}"
