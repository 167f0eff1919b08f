"""Videos are a data set: a folder of them, a list of paths, or folders of frames. No metadata is needed."""

import os
import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepakit.data import BadSample, container, lists
from jepakit.data.clips import Sampling
from jepakit.data.decoders import SUFFIXES, Facts
from jepakit.data.folder import Names, describe_others, label, printable, refuse_differing, require_folder, scan
from jepakit.data.isolated import Isolated
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
    each of which is a video, its frames in natural order. clips.py says which frames a clip has.

    ``sample(index, rng)`` is a clip from anywhere, for training; ``source[index]`` the one from the middle. With
    several ``clips``, samples ``i * clips`` to ``i * clips + clips - 1`` are those of video i, one after another.

    Args:
        root: the folder or list.
        held_out: another one with the same classes, for the scores that are computed while training.
        frames: frames of a clip.
        stride: frames of the video from one frame of a clip to the next.
        fps: frames of a clip that are a second; given, it takes the place of ``stride``.
        clips: clips of each video.
        decoder: registered name of the decoder; auto: ``decord``, and others for files that it cannot read.
        time_limit: seconds that a decoder may take for a clip.
        max_pixels: videos with frames of more pixels are refused.
        min_frames, max_frames: videos of fewer or more frames are refused.

    Raises:
        ConfigError: an argument out of its range, or no video decoder of that name.
        DataError: nothing to read there, or it holds splits rather than classes.
    """

    channels: int = 3

    def __init__(
        self,
        root: str,
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
    ):
        self.held_out = held_out
        self.sampling = Sampling(frames, stride, fps, clips, min_frames, max_frames).check()
        if time_limit <= 0:
            raise ConfigError(f"data.time_limit={time_limit} must be above 0")
        self._same: dict[str, Any] = {"decoder": decoder, "time_limit": time_limit, "max_pixels": max_pixels}
        self._same |= self.sampling._asdict()
        self._decoding = Isolated(decoders(decoder), time_limit, max_pixels)
        self._find(root, max_pixels)
        if self._pictures and fps is not None:
            raise ConfigError(f"data.fps={fps}: folders of frames have no rate; give data.stride")

    def __len__(self) -> int:
        return len(self._paths) * self.sampling.clips

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]:
        """The clip in the middle, uint8 ``3 T H W``, and its labels. Raises BadSample."""
        return self._sample(index, None)

    def sample(self, index: int, rng: torch.Generator) -> tuple[Tensor, dict[str, int | float]]:
        """A clip from a place that ``rng`` draws, and its labels. Raises BadSample."""
        return self._sample(index, torch.rand((), generator=rng, dtype=torch.float64).item())

    def path(self, index: int) -> str:
        """The file or folder of sample ``index``."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return os.path.join(self.root, self._paths[index // self.sampling.clips])

    def describe(self, index: int) -> str:
        """The file or folder of sample ``index``, printable whatever bytes are in its name."""
        return printable(self.path(index))

    def describe_all(self) -> str:
        """What was found, in one line: ``23 videos without labels``."""
        kind = f"in {len(self.classes['class']):,} classes" if self.classes else "without labels"
        what = "folders of frames" if self._pictures else "videos"
        return f"{len(self._paths):,} {what} {kind}{describe_others(self.others)}"

    def format(self, index: int) -> str:
        """Container and codec, as far as the bytes tell without decoding. Raises BadSample."""
        return "folder" if self._pictures else " ".join(filter(None, self._inspect(index))) or "other"

    def held_out_source(self) -> Source | None:
        """The labelled data for scores while training. Raises DataError if its classes are not those of ``root``."""
        if self.held_out is None:
            return None
        other = Video(self.held_out, **self._same)
        if not other.classes:
            raise DataError(f"data.held_out={self.held_out}: scores need classes, and it has none")
        if self.classes:
            refuse_differing(self, other)
        return other

    def _find(self, root: str, max_pixels: int) -> None:
        """Set ``root``, ``classes``, ``others`` and the private lists of paths and labels."""
        self._pictures: Any = None
        given = os.path.expanduser(root) if isinstance(root, str) else root
        if isinstance(given, str) and os.path.isfile(given) and given.lower().endswith(lists.LISTS):
            listed = lists.read(given, SUFFIXES)
            self.root, self.others, paths = os.path.dirname(given), Counter(), listed.paths
            names, self._labels = listed.names, listed.labels
        else:
            self.root = require_folder(root, "data.root", f"a folder of videos or a list ({', '.join(lists.LISTS)})")
            paths, self.others = scan(self.root, frozenset(SUFFIXES))
            if not paths:
                paths = self._folders(max_pixels)
            names, self._labels = label(self.root, paths)
        self.classes: dict[str, tuple[str, ...]] = {"class": names} if names else {}
        self._paths = Names(paths)

    def _folders(self, max_pixels: int) -> list[str]:
        """The folders that hold pictures."""
        from jepakit.plugins import discover

        self._pictures = discover().get("decoder", "pillow").load()(max_pixels=max_pixels)
        files, others = scan(self.root, frozenset(self._pictures.suffixes))
        folders = sorted({os.path.dirname(file) for file in files})
        if not folders:
            looked = f"looked for {' '.join(SUFFIXES)}, and for folders of pictures{describe_others(self.others)}"
            raise DataError(f"{self.root}: no video in it ({looked})")
        if "" in folders:
            raise DataError(f"{self.root} holds pictures: data=folder reads them; frames of videos have a folder each")
        self.others = others
        return folders

    def _sample(self, index: int, place: float | None) -> tuple[Tensor, dict[str, int | float]]:
        video, part = divmod(index, self.sampling.clips)
        path = self.path(index)

        def choose(facts: Facts) -> list[int]:
            return self.sampling.numbers(facts.frames, facts.fps, part, place)

        try:
            if self._pictures:
                picture = self._stack(path, choose)
            else:
                self._inspect(index)
                picture = torch.from_numpy(self._decoding.clip(path, choose)).permute(3, 0, 1, 2)
        except BadSample as bad:
            raise BadSample(self.describe(index), bad.reason) from bad
        return picture, {"class": int(self._labels[video])} if self.classes else {}

    def _inspect(self, index: int) -> container.Container:
        try:
            return container.inspect(self.path(index))
        except (ValueError, OSError) as error:
            raise BadSample(self.describe(index), getattr(error, "strerror", None) or str(error)) from error

    def _stack(self, folder: str, choose: Any) -> Tensor:
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
