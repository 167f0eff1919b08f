"""Using a trained model is three lines.

encoder = jepakit.load("runs/...")
images = encoder.preprocess(["cat.jpg", "dog.jpg"])    # B C H W; of an encoder of clips B C T H W
features = encoder(images)                             # B N D
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.build import view_shape
from jepakit.data.views import CentreView, Normalise
from jepakit.device import pick_device
from jepakit.errors import ConfigError, first_line
from jepakit.evaluate.features import pool
from jepakit.jepa import Backbone
from jepakit.types import Features, Grid, Weights
from jepakit.weights.fill import at_size, chosen, filled
from jepakit.weights.shown import Shown


def load(
    path: str | Path,
    weights: str = "target",
    size: int | None = None,
    device: str | torch.device = "cpu",
    heads: int | None = None,
    frames: int | None = None,
) -> "Frozen":
    """The frozen encoder of a run folder, or of a file of any format that ``jepakit inspect`` can name.

    Neither the data nor predictor or optimiser are needed. Every key has to fit.

    Args:
        weights: ``target`` (the teacher; of a run that has none, what learned) or ``online`` (what learned).
        size: side of the pictures, in pixels; None: as in training. On another grid of tokens than the trained one
            positions are those of its places scaled to the trained grid, where the encoder has a setting ``native``
            for that; another encoder is left to itself. Where a foreign file does not say the trained size, this is it.
        heads: attention heads, for a foreign file that does not say it.
        frames: of a clip; None: as in training. Places in time are not scaled: a tubelet later is a tubelet later.

    Raises:
        UserError: no such file, weights that it does not hold, keys or shapes that differ, a size that does not fit.
    """
    from jepakit.weights import read

    found = read(path, {} if heads is None else {"heads": heads})
    if heads not in (None, said := found.config["encoder"].get("heads")):
        raise ConfigError(f"heads={heads}: {path} says that there are {said}")
    return freeze(found, str(path), weights, size, frames).to(pick_device(str(device)))


def freeze(
    found: Weights, name: str, which: str = "target", size: int | None = None, frames: int | None = None
) -> "Frozen":
    """The frozen encoder of weights that were read already; ``name`` is what errors call them (see ``load``)."""
    which = chosen(found, which, name)
    assumed, known = found.about.get("assumed", {}), {"size": size, "frames": frames}
    told = {key: known[key] for key in assumed if known[key] is not None}
    left = {key: value for key, value in assumed.items() if key not in told}
    trained = {**found.config, "data": {**found.config["data"], **told}}
    config, scaled = at_size(trained, size, frames)
    backbone = filled(config, found.backbones[which], f"{name}, {which} weights")
    about = {key: value for key, value in found.about.items() if key != "assumed"}
    about |= {"from": name, "weights": which, "positions": scaled, **({"assumed": left} if left else {})}
    return Frozen(backbone, config["data"], about)


class Frozen(nn.Module):
    """A trained backbone in evaluation mode, whose weights take no gradients, with the preprocessing that suits it.

    Attributes:
        data: the settings that pictures are prepared by: ``size``, ``mean``, ``std``, and of clips ``frames``.
        about: where the weights come from: ``from``, ``weights``, ``positions``, and what the file tells of itself.
        grid: of the tokens of a picture of that size, or of a clip of so many frames.
        width: D of the features, which are those before an expander.
    """

    def __init__(self, backbone: Backbone, data: Mapping[str, Any], about: Mapping[str, Any]):
        super().__init__()
        self.backbone, self.data, self.about = backbone.requires_grad_(False), dict(data), dict(about)
        self.grid: Grid = backbone.tokenizer.grid(*view_shape(data)[1:])
        self.width: int = backbone.representation_width
        self.shown = Shown(data)
        self.eval()

    @property
    def size(self) -> int:
        """Side of the pictures that ``preprocess`` makes, in pixels."""
        return self.data["size"]

    @property
    def frames(self) -> int:
        """Frames of the clips that ``preprocess`` makes of videos; 1: it is an encoder of pictures."""
        return self.data.get("frames", 1)

    def train(self, mode: bool = True) -> "Frozen":
        """It stays in evaluation mode, whatever module it becomes a part of."""
        return super().train(False)

    def forward(self, images: Tensor) -> Features:
        """Features ``B N D`` of images ``B C H W`` or clips ``B C T H W`` as ``preprocess`` makes them; from some
        encoders a pyramid. Pictures of other sizes are welcome, as in ``load``, and clips of any number of frames; of
        an encoder of clips a picture is a clip of one frame.

        Raises ConfigError for what is not preprocessed, or does not fit channels, patches and positions.
        """
        clips = self._clips(images)
        try:
            return self.backbone.represent(clips)
        except ValueError as error:
            raise ConfigError(f"{first_line(error)}; encoder.preprocess makes {self._sides()}") from error

    def pooled(self, images: Tensor) -> Float[Tensor, "B D"]:
        """One vector an image, as evaluations see it: the mean over the tokens of the last level, float32."""
        return pool(self(images))

    def preprocess(self, pictures: Any) -> Float[Tensor, "B C *T H W"]:
        """What evaluations see of a picture: short side resized, centre cropped, normalised; on the encoder's device.

        ``B C H W``; of an encoder of clips ``B C T H W``, with T = 1 for pictures.

        Args:
            pictures: a PIL image, the path of a file, a uint8 tensor ``C H W`` or ``B C H W``, or a list of these. For
                an encoder of clips also the path of a video, of which the clip in the middle is taken; a uint8 tensor
                or array ``C T H W`` or ``T H W C``, with or without B before, all of whose frames are taken; and in the
                list lists of pictures, each of which is a clip.

        Raises:
            DataError: a file or picture that cannot be read.
            ConfigError: something else than pictures, other channels than the encoder's, clips of several lengths.
        """
        view, device = CentreView(self.size), next(self.parameters()).device
        unused = torch.Generator()
        pieces = (view.take(self._coloured(each), unused)[0].to(device) for each in self.shown(pictures))
        fitted = [view.fit(piece) for piece in pieces]
        if not fitted:
            raise ConfigError("there is no picture to preprocess")
        if len(lengths := {piece.shape[1] for piece in fitted}) > 1:
            raise ConfigError(f"clips of {' and '.join(map(str, sorted(lengths)))} frames cannot be one batch")
        normalise = Normalise(self.data["mean"], self.data["std"], device)
        clips = normalise(torch.stack(fitted), torch.zeros(len(fitted), dtype=torch.bool))
        return clips if self.frames > 1 else clips.squeeze(2)

    def __repr__(self) -> str:
        about, step = self.about, self.about.get("step")
        said = f"{about['weights']} weights of {about['from']}" + (f", step {step:,}" if isinstance(step, int) else "")
        tokens = " x ".join(map(str, self.grid[self.grid.t == 1 :]))
        pixels = f"{len(self.data['mean'])} x {self._sides()} pixels"
        return f"Frozen({said}: {pixels} -> {tokens} tokens, {self.width} wide; positions {about['positions']})"

    def _sides(self) -> str:
        """Of what ``preprocess`` makes."""
        return " x ".join(map(str, view_shape(self.data)[1 + (self.frames == 1) :]))

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
            raise ConfigError(f"{first_line(error)}; encoder.preprocess makes {self._sides()}") from error
        return clips

    def _coloured(self, picture: Tensor) -> Tensor:
        """``C T H W`` with as many channels as the encoder reads."""
        if picture.shape[0] != (channels := len(self.data["mean"])):
            raise ConfigError(f"a picture of {picture.shape[0]} channels; the encoder reads {channels}")
        return picture
