"""How far a guess is from the truth: the mean over everything of an elementwise error."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepakit.errors import ConfigError, nearest
from jepakit.types import Features

_ERRORS: dict[str, Callable[..., Tensor]] = {"smooth_l1": F.smooth_l1_loss, "l2": F.mse_loss, "l1": F.l1_loss}


def distance(name: str, scale: float = 1.0) -> Callable[[Features, Features, Tensor | None], Float[Tensor, ""]]:
    """``smooth_l1`` (I-JEPA as released, beta 1), ``l2`` (I-JEPA's text, VICReg) or ``l1`` (V-JEPA).

    A pyramid's distance is the mean over its levels: of levels of one width, that of all channels side by side
    (V-JEPA 2.1). ``scale`` weighs it against what strategies forbid; ``weight`` (``B M Q``) scales single tokens.
    Raises ConfigError for another name.
    """
    if name not in _ERRORS:
        raise ConfigError(f"unknown distance {name!r}{nearest(name, _ERRORS)}; known: {', '.join(_ERRORS)}")

    def measure(guess: Features, truth: Features, weight: Tensor | None = None) -> Float[Tensor, ""]:
        if not scale:  # nobody asks: guess and truth need not be alike
            return (guess[0] if isinstance(guess, tuple) else guess).new_zeros((), dtype=torch.float32)
        if isinstance(guess, tuple):
            return torch.stack([measure(g, t, weight) for g, t in zip(guess, truth, strict=True)]).mean()
        error = _ERRORS[name](guess.float() if guess.dtype.itemsize < 4 else guess, truth, reduction="none")
        return scale * (error.mean() if weight is None else (error.mean(-1) * weight).mean())

    return measure
