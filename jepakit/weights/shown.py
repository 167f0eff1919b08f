"""Whatever shows pictures or clips, as pixels ``C T H W``; a picture is a clip of one frame."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jepakit.data import BadSample, container
from jepakit.data.clips import Sampling
from jepakit.data.decode import orientation, to_rgb, turn
from jepakit.data.decoders import SUFFIXES
from jepakit.data.isolated import Isolated
from jepakit.data.video import Video, decoders
from jepakit.errors import ConfigError, DataError, first_line
from jepakit.plugins import discover
from jepakit.types import Picture

PICTURES = "a picture is a PIL image, a path, or a uint8 tensor C H W or B C H W"
CLIPS = (
    "a clip is the path of a video, a uint8 tensor or array C T H W or T H W C (or several, B before them), a list of "
    "frames within the list, or a single picture"
)


class Shown:
    """Reads pictures and, for an encoder of clips, clips.

    Args:
        data: the settings that the encoder was trained with: ``frames``, ``stride`` or ``fps`` say which frames of a
            video are taken (the clip in its middle), ``decoder`` by what files are read.
    """

    def __init__(self, data: Mapping[str, Any]):
        self.data, self.channels = dict(data), len(data["mean"])
        self.moves = data.get("frames", 1) > 1
        self._videos: Isolated | None = None

    def __call__(self, shown: Any) -> Iterator[Picture]:
        """The pixels of each. Raises DataError for files that cannot be read, ConfigError for what shows nothing."""
        if isinstance(shown, (list, tuple)):
            for each in shown:
                if self.moves and isinstance(each, (list, tuple)):
                    yield self.frames(each)
                else:
                    yield from self(each)
        elif isinstance(shown, (str, Path)):
            path = Path(shown)
            yield self.video(path) if self.moves and path.suffix.lower() in SUFFIXES else self.file(path)
        elif isinstance(shown, Image.Image):
            yield _image(shown)
        else:
            yield from self.pixels(shown)

    def pixels(self, shown: Any) -> Iterator[Picture]:
        """Those of tensors, and for clips of arrays."""
        found = torch.from_numpy(shown) if self.moves and isinstance(shown, np.ndarray) else shown
        axes = (3, 4, 5) if self.moves else (3, 4)
        if not isinstance(found, Tensor) or found.dtype != torch.uint8 or found.ndim not in axes:
            kind = f"{found.dtype} of {found.ndim} axes" if isinstance(found, Tensor) else type(shown).__name__
            raise ConfigError(f"{CLIPS if self.moves else PICTURES}, not a {kind}")
        if not self.moves or found.ndim == 3:
            yield from (found if found.ndim == 4 else found[None]).unsqueeze(2)
        else:
            yield from map(self.channels_first, found if found.ndim == 5 else found[None])

    def channels_first(self, clip: Tensor) -> Picture:
        """A clip ``C T H W`` or ``T H W C`` as the former. Where it could be both it is the latter: no frame is as
        narrow as a pixel has channels."""
        if clip.shape[-1] == self.channels:
            return clip.permute(3, 0, 1, 2)
        if clip.shape[0] == self.channels:
            return clip
        shape = " x ".join(map(str, clip.shape))
        raise ConfigError(f"a clip {shape} has {self.channels} channels neither first (C T H W) nor last (T H W C)")

    def frames(self, several: Sequence[Any]) -> Picture:
        """One clip of pictures, in their order."""
        found = [picture for each in several for picture in self(each)]
        sizes = sorted({f"{each.shape[-1]} x {each.shape[-2]}" for each in found})
        if len(sizes) != 1 or any(each.shape[1] > 1 for each in found):
            said = (
                f"frames of {', '.join(sizes)}" if len(sizes) > 1 else "videos among its frames" if found else "nothing"
            )
            raise ConfigError(f"a clip is made of pictures of one size, not of {said}")
        return torch.cat(found, 1)

    def file(self, path: Path) -> Picture:
        """A picture, by the decoder of the settings where that reads pictures, else by Pillow."""
        said = {} if self._by_video() else self.data
        known = {key: said[key] for key in ("max_pixels",) if key in said}
        decode = discover().get("decoder", said.get("decoder", "pillow")).load()(**known)
        try:
            return decode(str(path))
        except BadSample as error:
            raise DataError(str(error)) from error

    def video(self, path: Path) -> Picture:
        """The clip in the middle of a video, as evaluations take it."""
        known = {name: each.default for name, each in inspect.signature(Video).parameters.items()}
        said = known | {key: value for key, value in self.data.items() if key in known}
        sampling = Sampling(**{key: said[key] for key in Sampling._fields}).check()
        if self._videos is None:
            name = said["decoder"] if self._by_video() else known["decoder"]
            self._videos = Isolated(decoders(name), said["time_limit"], said["max_pixels"])
        try:
            container.inspect(str(path))
            found = self._videos.clip(str(path), lambda facts: sampling.numbers(facts.frames, facts.fps))
        except BadSample as error:
            raise DataError(str(error)) from error
        except (ValueError, OSError) as error:
            raise DataError(f"{path}: {getattr(error, 'strerror', None) or first_line(error)}") from error
        return torch.from_numpy(found).permute(3, 0, 1, 2)

    def _by_video(self) -> bool:
        """Whether the settings name a decoder of videos."""
        name = self.data.get("decoder", "pillow")
        return name == "auto" or hasattr(discover().get("decoder", name).load(), "open")


def _image(image: Image.Image) -> Picture:
    try:
        upright = turn(to_rgb(image), orientation(image))
    except (ValueError, OSError) as error:
        raise DataError(f"picture: {first_line(error)}") from error
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).unsqueeze(1)
