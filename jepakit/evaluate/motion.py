"""Who estimates flow: the branch of a run that infers motion, and what it has to beat."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from jepakit.branches import branches
from jepakit.data.views import Normalise, resize
from jepakit.device import autocast
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate.features import undisturbed
from jepakit.jepa import Branched, Jepa, figures_of

Estimator = Callable[[UInt8[Tensor, "C 2 H W"]], Float[Tensor, "2 H W"]]
"""From a pair of frames to how far each pixel of the first goes to the right and down until the second."""

LACKING = "no rows of classical methods: they need OpenCV, pip install 'jepakit[flow]'"


class Looking(NamedTuple):
    """How a model looks at a pair: ``size`` is the short side that frames are brought to before (None: as they are);
    the flow is told in pixels of the pair as it was. ``weights`` is target or online, ``precision`` fp32 or bf16."""

    device: torch.device | str = "cpu"
    precision: str = "fp32"
    size: int | None = None
    weights: str = "target"


class Motion:
    """A figure whose predictor infers motion, as an estimator. It leaves the model's mode as it was.

    Args:
        figure: of the branch.
        config: the branch's, as if there were no other.
    """

    def __init__(self, figure: Jepa, config: Mapping[str, Any], how: Looking):
        self.figure, self.config, self.how = figure.to(how.device), config, how
        data = config["data"]
        self._normalise = Normalise(list(data["mean"]), list(data["std"]), torch.device(how.device))

    def __call__(self, frames: UInt8[Tensor, "C 2 H W"]) -> Float[Tensor, "2 H W"]:
        """Raises ConfigError where the predictor refuses the pair, DataError for a flow that is not finite."""
        height, width = frames.shape[-2:]
        pixels = frames if self.how.size is None else resize(frames, [self.how.size])
        found = self._flow(pixels)
        if self.how.size is not None:
            scale = torch.tensor([width / pixels.shape[-1], height / pixels.shape[-2]]).view(1, 2, 1, 1)
            found = interpolate(found, (height, width), mode="bilinear", align_corners=False) * scale
        return found[0]

    def _flow(self, frames: UInt8[Tensor, "C 2 h w"]) -> Float[Tensor, "1 2 h w"]:
        from jepakit.build import refuse

        device, name = torch.device(self.how.device), self.config["predictor"]["name"]
        pixels = self._normalise(frames[None].to(device), torch.zeros(1, dtype=torch.bool))
        target = self.how.weights == "target"
        backbone = self.figure.target_backbone if target else self.figure.backbone
        with undisturbed(self.figure), autocast(device, self.how.precision):
            flow = self.figure.predictor.flow
            found = refuse(f"predictor {name!r}", flow, backbone, pixels[:, :, :1], pixels[:, :, 1:]).float().cpu()
        if found.shape != (1, 2, *frames.shape[-2:]):
            told, size = tuple(found.shape), tuple(frames.shape[-2:])
            raise ConfigError(f"predictor {name!r}: its flow is {told} for frames of {size}, not {(1, 2, *size)}")
        if not torch.isfinite(found).all():
            raise DataError(f"predictor {name!r}: its flow is not finite: no score")
        return found


class Models(NamedTuple):
    """What is compared: the trained model and one as it was before training."""

    trained: Motion
    untrained: Motion
    step: int


def infers_motion(figure: Jepa) -> bool:
    """Whether its predictor tells optical flow."""
    return callable(getattr(figure.predictor, "flow", None))


def moving_branch(config: Mapping[str, Any], model: Jepa | Branched) -> tuple[str, Jepa]:
    """Name and figure of the first branch that infers motion. Raises ConfigError where none does."""
    for name, figure in figures_of(model).items():
        if infers_motion(figure):
            return name, figure
    listed = ", ".join(dict.fromkeys(repr(each["predictor"]["name"]) for each in branches(config).values()))
    raise ConfigError(f"protocol=flow needs a predictor that infers motion (one with flow); this run has {listed}")


def load(run: Path, config: Mapping[str, Any], how: Looking) -> Models:
    """The run's model at its newest checkpoint, and one freshly initialised from the run's seed."""
    from jepakit.checkpoint import load_newest_model

    model, step = load_newest_model(run, config)
    return compared(config, model, how, step)


def compared(config: Mapping[str, Any], model: Any, how: Looking, step: int) -> Models:
    """A model, and one freshly initialised from the run's seed."""
    from jepakit.build import build

    (name, trained), (_, fresh) = (moving_branch(config, each) for each in (model, build(config).jepa))
    own = branches(config)[name]
    return Models(Motion(trained, own, how), Motion(fresh, own, how), step)


def controls() -> dict[str, Estimator]:
    """What needs no learning, by the names of their rows; classical methods where OpenCV is there."""
    found: dict[str, Estimator] = {"zero flow": nothing_moves}
    try:
        import cv2
    except ImportError:
        return found

    start: Any = None  # from no motion

    def dis(frames: UInt8[Tensor, "C 2 H W"]) -> Float[Tensor, "2 H W"]:
        method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return _classical(frames, lambda first, second: method.calc(first, second, start))

    def farneback(frames: UInt8[Tensor, "C 2 H W"]) -> Float[Tensor, "2 H W"]:
        usual: dict[str, Any] = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5}
        usual |= {"poly_sigma": 1.2, "flags": 0}
        return _classical(frames, lambda first, second: cv2.calcOpticalFlowFarneback(first, second, start, **usual))

    return found | {"DIS (medium)": dis, "Farneback": farneback}


def nothing_moves(frames: UInt8[Tensor, "C 2 H W"]) -> Float[Tensor, "2 H W"]:
    """Zero: its error is the mean speed."""
    return torch.zeros(2, *frames.shape[-2:])


def grey(frame: UInt8[Tensor, "C H W"]) -> UInt8[np.ndarray, "H W"]:
    """In 8 bits, by the weights of ITU-R BT.601; of channels that are no colours the first one."""
    if len(frame) != 3:
        return frame[0].contiguous().numpy()
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (frame.float() * weights).sum(0).round().to(torch.uint8).numpy()


def _classical(
    frames: UInt8[Tensor, "C 2 H W"], method: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Float[Tensor, "2 H W"]:
    import cv2

    try:
        return torch.from_numpy(method(grey(frames[:, 0]), grey(frames[:, 1]))).permute(2, 0, 1)
    except cv2.error as error:
        raise DataError(f"OpenCV refuses frames of {tuple(frames.shape[-2:])} pixels: {error.err}") from error
