"""What happens to the colours of a view: decided sample by sample in the worker; ``recolour.py`` does it."""

import itertools
import math
from typing import NamedTuple

import torch

TRUNCATE = 4.0
"""Standard deviations from the middle of a blur's kernel to its end, as in scipy."""

JITTER = ("brightness", "contrast", "saturation", "hue")
"""The four of a jitter."""

ORDERS = tuple(itertools.permutations(JITTER))
"""The ways in which they can follow one another."""


class How(NamedTuple):
    """How a view of a sample came about: the columns of ``Batch.condition``. The defaults change nothing.

    The box is in shares of the picture's sides. ``brightness``, ``contrast`` and ``saturation`` are factors, ``hue``
    is in turns, ``blur`` is a standard deviation in pixels of the view, ``mirrored``, ``grey`` and ``solarize`` are 1
    or 0. ``order`` numbers the way in which the jitter's four follow one another (``ORDERS``).
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    mirrored: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    order: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0


COLUMN = {name: number for number, name in enumerate(How._fields)}
"""Where in a row of ``Batch.condition`` a parameter stands."""


class Colour(NamedTuple):
    """What may happen to the colours of a view; the arguments are explained in ``options.ViewOptions``."""

    jitter: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 1.0
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether anything may happen."""
        return self.jitters or max(self.grey, self.blur, self.solarize) > 0

    @property
    def jitters(self) -> bool:
        """Whether there is a jitter."""
        return self.jitter_p > 0 and max(self.jitter) > 0

    @property
    def radius(self) -> int:
        """Pixels from the middle of a blur's kernel to its end: those of the largest blur there can be."""
        return math.ceil(TRUNCATE * self.blur_sigma[1])

    def draw(self, rng: torch.Generator) -> dict[str, float]:
        """What happens to one sample, by column. The same numbers are drawn whatever comes of them."""
        if not self.changes:
            return {}
        jitter, order, grey, blur, sigma, solarize, *rolled = torch.rand(10, generator=rng).tolist()
        found = {"grey": float(grey < self.grey), "solarize": float(solarize < self.solarize)}
        if blur < self.blur:
            found["blur"] = _between(self.blur_sigma, sigma)
        if self.jitters and jitter < self.jitter_p:
            hue = self.jitter[3]
            spans = [*((max(0.0, 1 - width), 1 + width) for width in self.jitter[:3]), (-hue, hue)]
            found |= {name: _between(span, share) for name, span, share in zip(JITTER, spans, rolled, strict=True)}
            found["order"] = float(int(order * len(ORDERS)))
        return found


def _between(span: tuple[float, float], share: float) -> float:
    return span[0] + (span[1] - span[0]) * share
