"""How far a guess is from the truth: the mean over everything of an elementwise error."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepakit.errors import ConfigError, nearest
from jepakit.types import Features

_ERRORS: dict[str, Callable[..., Tensor]] = {"smooth_l1": F.smooth_l1_loss, "l2": F.mse_loss, "l1": F.l1_loss}

Distance = Callable[[Features, Features, Tensor | None], dict[str, Float[Tensor, ""]]]
"""``(guess, truth, weight) -> named scalars``."""


def distance(name: str, scale: float = 1.0, levels: Sequence[float] | None = None) -> Distance:
    """``smooth_l1`` (I-JEPA as released, beta 1), ``l2`` (I-JEPA's text, VICReg) or ``l1`` (V-JEPA).

    A pyramid's distance is the mean over its levels: of levels of one width, that of all channels side by side
    (V-JEPA 2.1). With ``levels``, a weight for each, it is their weighted sum (MC-JEPA): each is a loss with a name of
    its own, and one of weight 0 is not looked at. ``scale`` weighs it against what strategies forbid; ``weight``
    (``B M Q``) scales single tokens. Raises ConfigError for another name, and at the call for another number of levels.
    """
    if name not in _ERRORS:
        raise ConfigError(f"unknown distance {name!r}{nearest(name, _ERRORS)}; known: {', '.join(_ERRORS)}")

    def measure(guess: Features, truth: Features, weight: Tensor | None) -> Float[Tensor, ""]:
        if isinstance(guess, tuple):
            return torch.stack([measure(g, t, weight) for g, t in zip(guess, truth, strict=True)]).mean()
        error = _ERRORS[name](guess.float() if guess.dtype.itemsize < 4 else guess, truth, reduction="none")
        return error.mean() if weight is None else (error.mean(-1) * weight).mean()

    def named(guess: Features, truth: Features, weight: Tensor | None = None) -> dict[str, Float[Tensor, ""]]:
        asked = scale and (levels is None or any(levels))
        if not asked:  # guess and truth need not be alike
            return {"distance": (guess[0] if isinstance(guess, tuple) else guess).new_zeros((), dtype=torch.float32)}
        if levels is None:
            return {"distance": scale * measure(guess, truth, weight)}
        if not isinstance(guess, tuple) or not isinstance(truth, tuple) or not len(guess) == len(truth) == len(levels):
            given = len(guess) if isinstance(guess, tuple) else 1
            raise ConfigError(f"distance_levels has {len(levels)} weights, the predictor gives {given} levels")
        each = enumerate(zip(levels, guess, truth, strict=True))
        return {f"distance_{n}": scale * share * measure(g, t, weight) for n, (share, g, t) in each if share}

    return named
