"""Using a trained model is three lines.

encoder = jepakit.load("runs/...")
images = encoder.preprocess(["cat.jpg", "dog.jpg"])    # B C H W
features = encoder(images)                             # B N D
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from jepakit.build import view_shape
from jepakit.data import BadSample
from jepakit.data.decode import orientation, to_rgb, turn
from jepakit.data.views import CentreView, Normalise
from jepakit.device import pick_device
from jepakit.errors import ConfigError, DataError, first_line
from jepakit.evaluate.features import pool
from jepakit.jepa import Backbone
from jepakit.plugins import discover
from jepakit.types import Features, Grid, Picture, Weights
from jepakit.weights.fill import at_size, chosen, filled


def load(
    path: str | Path,
    weights: str = "target",
    size: int | None = None,
    device: str | torch.device = "cpu",
    heads: int | None = None,
) -> "Frozen":
    """The frozen encoder of a run folder, or of a file of any format that ``jepakit inspect`` can name.

    Neither the data nor predictor or optimiser are needed. Every key has to fit.

    Args:
        weights: ``target`` (the teacher; of a run that has none, what learned) or ``online`` (what learned).
        size: side of the pictures, in pixels; None: as in training. On another grid of tokens than the trained one
            positions are those of its places scaled to the trained grid, where the encoder has a setting ``native``
            for that; another encoder is left to itself.
        heads: attention heads, for a foreign file that does not say it.

    Raises:
        UserError: no such file, weights that it does not hold, keys or shapes that differ, a size that does not fit.
    """
    from jepakit.weights import read

    found = read(path, {} if heads is None else {"heads": heads})
    if heads not in (None, said := found.config["encoder"].get("heads")):
        raise ConfigError(f"heads={heads}: {path} says that there are {said}")
    return freeze(found, str(path), weights, size).to(pick_device(str(device)))


def freeze(found: Weights, name: str, which: str = "target", size: int | None = None) -> "Frozen":
    """The frozen encoder of weights that were read already; ``name`` is what errors call them (see ``load``)."""
    which = chosen(found, which, name)
    config, scaled = at_size(found.config, size)
    backbone = filled(config, found.backbones[which], f"{name}, {which} weights")
    return Frozen(backbone, config["data"], {"from": name, "weights": which, "positions": scaled, **found.about})


class Frozen(nn.Module):
    """A trained backbone in evaluation mode, whose weights take no gradients, with the preprocessing that suits it.

    Attributes:
        data: the settings that pictures are prepared by: ``size``, ``mean``, ``std``.
        about: where the weights come from: ``from``, ``weights``, ``positions``, and what the file tells of itself.
        grid: of the tokens of a picture of that size.
        width: D of the features.
    """

    def __init__(self, backbone: Backbone, data: Mapping[str, Any], about: Mapping[str, Any]):
        super().__init__()
        self.backbone, self.data, self.about = backbone.requires_grad_(False), dict(data), dict(about)
        self.grid: Grid = backbone.tokenizer.grid(*view_shape(data)[1:])
        self.width: int = backbone.width
        self.eval()

    @property
    def size(self) -> int:
        """Side of the pictures that ``preprocess`` makes, in pixels."""
        return self.data["size"]

    def train(self, mode: bool = True) -> "Frozen":
        """It stays in evaluation mode, whatever module it becomes a part of."""
        return super().train(False)

    def forward(self, images: Tensor) -> Features:
        """Features ``B N D`` of images ``B C H W`` or clips ``B C T H W`` as ``preprocess`` makes them; from some
        encoders a pyramid. Pictures of other sizes are welcome, as in ``load``.

        Raises ConfigError for what is not preprocessed, or does not fit channels and patches.
        """
        return self.backbone(self._clips(images))

    def pooled(self, images: Tensor) -> Float[Tensor, "B D"]:
        """One vector an image, as evaluations see it: the mean over the tokens of the last level, float32."""
        return pool(self(images))

    def preprocess(self, pictures: Any) -> Float[Tensor, "B C H W"]:
        """What evaluations see of a picture: short side resized, centre cropped, normalised; on the encoder's device.

        Args:
            pictures: a PIL image, the path of a file, a uint8 tensor ``C H W`` or ``B C H W``, or a list of these.

        Raises:
            DataError: a file or picture that cannot be read.
            ConfigError: something else than pictures, or other channels than the encoder's.
        """
        view, device = CentreView(self.size), next(self.parameters()).device
        unused = torch.Generator()
        pieces = (view.take(self._coloured(each), unused)[0].to(device) for each in decoded(pictures, self.data))
        fitted = [view.fit(piece) for piece in pieces]
        if not fitted:
            raise ConfigError("there is no picture to preprocess")
        normalise = Normalise(self.data["mean"], self.data["std"], device)
        return normalise(torch.stack(fitted), torch.zeros(len(fitted), dtype=torch.bool)).squeeze(2)

    def __repr__(self) -> str:
        about, step = self.about, self.about.get("step")
        said = f"{about['weights']} weights of {about['from']}" + (f", step {step:,}" if isinstance(step, int) else "")
        tokens = " x ".join(map(str, self.grid[self.grid.t == 1 :]))
        sides = f"{len(self.data['mean'])} x {self.size} x {self.size}"
        return f"Frozen({said}: {sides} pixels -> {tokens} tokens, {self.width} wide; positions {about['positions']})"

    def _clips(self, images: Tensor) -> Float[Tensor, "B C T H W"]:
        clips = images.unsqueeze(2) if images.ndim == 4 else images
        if clips.ndim != 5 or not clips.is_floating_point():
            shape = " x ".join(map(str, images.shape))
            kind = str(images.dtype).removeprefix("torch.")
            raise ConfigError(f"images are floats B C H W or B C T H W, not {kind} {shape}; see encoder.preprocess")
        self._coloured(clips[0])
        try:
            self.backbone.grid(clips)
        except ValueError as error:
            raise ConfigError(f"{first_line(error)}; encoder.preprocess makes {self.size} x {self.size}") from error
        return clips

    def _coloured(self, picture: Tensor) -> Tensor:
        """``C T H W`` with as many channels as the encoder reads."""
        if picture.shape[0] != (channels := len(self.data["mean"])):
            raise ConfigError(f"a picture of {picture.shape[0]} channels; the encoder reads {channels}")
        return picture


def decoded(pictures: Any, data: Mapping[str, Any]) -> Iterator[Picture]:
    """Pixels of whatever shows pictures (see ``Frozen.preprocess``); files by the decoder that ``data`` names."""
    if isinstance(pictures, (list, tuple)):
        for each in pictures:
            yield from decoded(each, data)
    elif isinstance(pictures, (str, Path)):
        yield _file(Path(pictures), data)
    elif isinstance(pictures, Image.Image):
        yield _image(pictures)
    elif isinstance(pictures, Tensor) and pictures.dtype == torch.uint8 and pictures.ndim in (3, 4):
        yield from (pictures if pictures.ndim == 4 else pictures[None]).unsqueeze(2)
    else:
        kind = f"{pictures.dtype} of {pictures.ndim} axes" if isinstance(pictures, Tensor) else type(pictures).__name__
        raise ConfigError(f"a picture is a PIL image, a path, or a uint8 tensor C H W or B C H W, not a {kind}")


def _file(path: Path, data: Mapping[str, Any]) -> Picture:
    known = {key: data[key] for key in ("max_pixels",) if key in data}
    decode = discover().get("decoder", data.get("decoder", "pillow")).load()(**known)
    try:
        return decode(str(path))
    except BadSample as error:
        raise DataError(str(error)) from error


def _image(image: Image.Image) -> Picture:
    try:
        upright = turn(to_rgb(image), orientation(image))
    except (ValueError, OSError) as error:
        raise DataError(f"picture: {first_line(error)}") from error
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).unsqueeze(1)
