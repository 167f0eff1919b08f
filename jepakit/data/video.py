"""Videos are a data set: a folder of them, a list of paths, or folders of frames. No metadata is needed."""

import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from jepakit.data import BadSample, container, lists, mix
from jepakit.data.clips import Sampling
from jepakit.data.decoders import SUFFIXES, Facts
from jepakit.data.folder import Names, describe_others, label, printable, refuse_differing, require_folder, scan
from jepakit.data.isolated import Isolated
from jepakit.data.mix import Found
from jepakit.errors import ConfigError, DataError
from jepakit.protocols import Source

AUTO = ("decord", "pyav", "torchcodec")
"""What ``decoder=auto`` tries, in this order. torchcodec is last: it needs an FFmpeg, and torch in every worker.

Of a damaged file decord may read the same frames at one time and not at another; pyav always answers the same.
"""


class Video:
    """Clips of videos, which are numbered in the order of their sorted paths, or in that of a list.

    ``root`` is a folder of videos (sub-folders are classes, as in data=folder), a list (``.csv``, ``.txt``: a path a
    line, and its label after a space or a comma; paths are relative to the list), or a folder of folders of pictures,
    each of which is a video, its frames in natural order; or several of these (mix.py). clips.py says which frames a
    clip has.

    ``source[index]`` is the clip from the middle of a video. ``several(index, count, rng)`` are clips from anywhere in
    its equal parts, for training; without ``rng`` those that it is judged by. All come from one opening of the file.

    Args:
        root: the folder or list, or several: ``[a.csv, b]``.
        held_out: another one with the same classes, for the scores that are computed while training.
        frames: frames of a clip.
        stride: frames of the video from one frame of a clip to the next.
        fps: frames of a clip that are a second; given, it takes the place of ``stride``.
        clips: clips that training takes of a video at once: they lie in one batch, and each counts as a sample of it.
        decoder: registered name of the decoder; auto: ``decord``, and others for files that it cannot read.
        time_limit: seconds that a decoder may take for what is read of a video at once.
        max_pixels: videos with frames of more pixels are refused.
        min_frames, max_frames: videos of fewer or more frames are refused.
        weights: shares of each epoch that the roots have while training; null: every video once.

    Raises:
        ConfigError: an argument out of its range, or no video decoder of that name.
        DataError: nothing to read there, or it holds splits rather than classes.
    """

    channels: int = 3

    def __init__(
        self,
        root: str | list[str],
        held_out: str | None = None,
        frames: int = 16,
        stride: int = 4,
        fps: float | None = None,
        clips: int = 1,
        decoder: str = "auto",
        time_limit: float = 30.0,
        max_pixels: int = 16_000_000,
        min_frames: int = 2,
        max_frames: int = 1_000_000,
        weights: list[float] | None = None,
    ):
        self.held_out, self.clips = held_out, clips
        self.sampling = Sampling(frames, stride, fps, min_frames, max_frames).check()
        if min(clips, time_limit) <= 0:
            raise ConfigError(f"data.clips={clips} and data.time_limit={time_limit} must be above 0")
        self._same: dict[str, Any] = {"decoder": decoder, "time_limit": time_limit, "max_pixels": max_pixels}
        self._same |= self.sampling._asdict()
        self._decoding = Isolated(decoders(decoder), time_limit, max_pixels)
        several, self.weights = mix.roots(root, weights)
        self._find(several, max_pixels)
        if any(self._framed) and fps is not None:
            raise ConfigError(f"data.fps={fps}: folders of frames have no rate; give data.stride")
        self._roots = mix.describe(several, self.parts, weights)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        """The clip in the middle, uint8 ``3 T H W``, and its labels. Raises BadSample."""
        (picture,), labels = self.several(index, 1)
        return picture, labels

    def sample(self, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, int | float]]:
        """A clip from a place that ``rng`` draws, and its labels. Raises BadSample."""
        (picture,), labels = self.several(index, 1, rng)
        return picture, labels

    def several(
        self, index: int, count: int, rng: torch.Generator | None = None
    ) -> tuple[tuple[Tensor, ...], dict[str, int | float]]:
        """``count`` clips of a video, each uint8 ``3 T H W``, and its labels. Raises BadSample."""
        places = [torch.rand((), generator=rng, dtype=torch.float64).item() for _ in range(count)] if rng else None

        def choose(facts: Facts) -> list[int]:
            if places is None:
                clips = self.sampling.segments(facts.frames, facts.fps, count)
            else:
                given = enumerate(places)
                clips = [self.sampling.numbers(facts.frames, facts.fps, part, count, at) for part, at in given]
            return [number for clip in clips for number in clip]

        frames = self._read(index, choose)
        return frames.split(self.sampling.frames, 1), {"class": int(self._labels[index])} if self.classes else {}

    def path(self, index: int) -> str:
        """The file or folder of sample ``index``."""
        return os.path.join(self.root, self._paths[index])

    def describe(self, index: int) -> str:
        """The file or folder of sample ``index``, printable whatever bytes are in its name."""
        return printable(self.path(index))

    def describe_all(self) -> str:
        """What was found, in one line: ``23 videos without labels``."""
        kind = f"in {len(self.classes['class']):,} classes" if self.classes else "without labels"
        what = "folders of frames" if all(self._framed) else "videos"
        return f"{len(self):,} {what} {kind}{describe_others(self.others)}{self._roots}"

    def format(self, index: int) -> str:
        """Container and codec, as far as the bytes tell without decoding. Raises BadSample."""
        return "folder" if self._is_framed(index) else " ".join(filter(None, self._inspect(index))) or "other"

    def held_out_source(self) -> Source | None:
        """The labelled data for scores while training; that of one root has its classes. Raises DataError."""
        if self.held_out is None:
            return None
        other = Video(self.held_out, **self._same)
        if not other.classes:
            raise DataError(f"data.held_out={self.held_out}: scores need classes, and it has none")
        if self.classes and len(self.parts) == 1:
            refuse_differing(self, other)
        return other

    def _find(self, roots: list[str], max_pixels: int) -> None:
        """Set what is known of the samples: ``root``, ``parts``, ``classes``, ``others``, their paths and labels."""
        self._pictures: Any = None
        each = [self._look(root, max_pixels) for root in roots]
        found = mix.join([one for one, _ in each])
        self._framed = [framed for _, framed in each]
        self.root, self.others, self.parts, self._labels = found.root, found.others, found.parts, found.labels
        self.classes: dict[str, tuple[str, ...]] = {"class": found.names} if found.names else {}
        self._paths = Names(found.paths)

    def _look(self, root: str, max_pixels: int) -> tuple[Found, bool]:
        """The samples of one root, and whether they are folders of frames."""
        given = os.path.expanduser(root) if isinstance(root, str) else root
        if isinstance(given, str) and os.path.isfile(given) and given.lower().endswith(lists.LISTS):
            paths, names, labels = lists.read(given, SUFFIXES)
            return Found(os.path.dirname(given), paths, names, labels, Counter(), (len(paths),)), False
        root = require_folder(root, "data.root", f"a folder of videos or a list ({', '.join(lists.LISTS)})")
        paths, others = scan(root, frozenset(SUFFIXES))
        if framed := not paths:
            paths, others = self._folders(root, others, max_pixels)
        return Found(root, paths, *label(root, paths), others, (len(paths),)), framed

    def _folders(self, root: str, others: Counter[str], max_pixels: int) -> tuple[list[str], Counter[str]]:
        """The folders that hold pictures, and the files that are none."""
        from jepakit.plugins import discover

        self._pictures = discover().get("decoder", "pillow").load()(max_pixels=max_pixels)
        files, left = scan(root, frozenset(self._pictures.suffixes))
        folders = sorted({os.path.dirname(file) for file in files})
        if not folders:
            looked = f"looked for {' '.join(SUFFIXES)}, and for folders of pictures{describe_others(others)}"
            raise DataError(f"{root}: no video in it ({looked})")
        if "" in folders:
            raise DataError(f"{root} holds pictures: data=folder reads them; frames of videos have a folder each")
        return folders, left

    def _is_framed(self, index: int) -> bool:
        return self._framed[mix.Mix(self.parts).part(index)[0]]

    def _read(self, index: int, choose: Callable[[Facts], list[int]]) -> UInt8[Tensor, "3 T H W"]:
        """The frames that ``choose`` names. Raises BadSample."""
        path = self.path(index)
        try:
            if self._is_framed(index):
                return self._stack(path, choose)
            self._inspect(index)
            return torch.from_numpy(self._decoding.clip(path, choose)).permute(3, 0, 1, 2)
        except BadSample as bad:
            raise BadSample(self.describe(index), bad.reason) from bad

    def _inspect(self, index: int) -> container.Container:
        try:
            return container.inspect(self.path(index))
        except (ValueError, OSError) as error:
            raise BadSample(self.describe(index), getattr(error, "strerror", None) or str(error)) from error

    def _stack(self, folder: str, choose: Callable[[Facts], list[int]]) -> Tensor:
        """The frames of a folder of pictures. Raises BadSample."""
        suffixes = self._pictures.suffixes
        try:
            files = sorted((n for n in os.listdir(folder) if n.lower().endswith(suffixes) and n[0] != "."), key=natural)
            numbers = choose(Facts(len(files), 0.0, 0, 0))
        except (ValueError, OSError) as error:
            raise BadSample(folder, getattr(error, "strerror", None) or str(error)) from error
        read = {n: self._pictures(os.path.join(folder, files[n])) for n in np.unique(numbers).tolist()}
        sizes = sorted({f"{picture.shape[-1]} x {picture.shape[-2]}" for picture in read.values()})
        if len(sizes) > 1:
            raise BadSample(folder, f"frames of different sizes: {', '.join(sizes)}")
        return torch.cat([read[n] for n in numbers], 1)


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``frame10`` after ``frame9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def decoders(name: str) -> list[str]:
    """The decoders to try. Raises ConfigError for a name that is not registered, or that decodes no videos."""
    from jepakit.plugins import discover

    found = discover()
    if name == "auto":
        return [each for each in AUTO if ("decoder", each) in found.components]
    if not hasattr(found.get("decoder", name).load(), "open"):
        raise ConfigError(f"data.decoder={name}: it decodes pictures; for videos there are auto, {', '.join(AUTO)}")
    return [name]
