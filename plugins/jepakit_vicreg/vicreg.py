"""VICReg's variance and covariance terms as what is forbidden; its invariance term is the figure's distance."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.protocols import Backbone
from jepakit.statistics import samples
from jepakit.types import Features
from jepakit_vicreg.statistics import covariance, redundancy, spread

SCALES = {"released": (1.0, 2.0), "paper": (2.0, 2.0)}
"""By what the variance and the covariance term of one view are multiplied: equation 6 sums both terms over the two
views, the released code averages the first and sums the second. The mean over views is the mean over masks here."""


class Vicreg(nn.Module):
    """Variances up, covariances down (VICReg, section 4.1); answers with the backbone's own features, gradients
    included, where nobody else answers.

    Weights are relative to a distance weighted by 25, as in the paper: ``distance=l2``, ``distance_weight=25``.

    Args:
        variance, covariance: weights of the two terms.
        invariance: weight of a squared distance from what is penalised to the truth, beside the figure's own (C-JEPA
            adds all of VICReg to a JEPA's loss).
        of: what is penalised: the features of the context, the predictor's guess, or the answers.
        tokens: what a sample is: the ``mean`` token of a view, ``each`` token at its place, or ``all`` tokens.
        scaling: of the terms, as ``released`` or as in the ``paper``, where variance counts twice as much.
        levels: of a pyramid the weight of each level, whose terms then have names of their own (MC-JEPA); one of weight
            0 is free. Null: the mean over levels.

    Raises:
        ValueError: at the call, for features that have not as many levels.
    """

    statistics = True

    def __init__(
        self,
        variance: float = 25.0,
        covariance: float = 1.0,
        invariance: float = 0.0,
        of: Literal["seen", "guess", "truth"] = "seen",
        tokens: Literal["mean", "each", "all"] = "mean",
        scaling: Literal["released", "paper"] = "released",
        levels: tuple[float, ...] | None = None,
    ):
        super().__init__()
        self.variance, self.covariance = (w * s for w, s in zip((variance, covariance), SCALES[scaling], strict=True))
        self.invariance, self.of, self.tokens, self.levels = invariance, of, tokens, levels

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Nothing to prepare."""

    def targets(self, backbone: Backbone, view: Float[Tensor, "B C T H W"]) -> Features:
        """The backbone's own features: where a teacher is there, it is asked first."""
        return backbone(view)

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Float[Tensor, ""]]:
        """``variance``, ``covariance``, and ``invariance`` if it has a weight; of a pyramid means over its levels, or
        with ``levels`` those of each: ``variance_0``."""
        levels = samples({"seen": seen, "guess": guess, "truth": truth}[self.of], self.tokens)
        answers = samples(truth, self.tokens) if self.invariance else [None] * len(levels)
        if self.levels is None:
            each = [self.terms(*pair) for pair in zip(levels, answers, strict=True)]
            return {name: torch.stack([terms[name] for terms in each]).mean() for name in each[0]}
        if len(levels) != len(self.levels):
            raise ValueError(f"levels has {len(self.levels)} weights, the features have {len(levels)} levels")
        chosen = ((n, w, *pair) for n, (w, *pair) in enumerate(zip(self.levels, levels, answers, strict=True)) if w)
        return {f"{name}_{n}": w * term for n, w, *pair in chosen for name, term in self.terms(*pair).items()}

    def terms(self, one: Float[Tensor, "N P D"], truth: Float[Tensor, "..."] | None) -> dict[str, Float[Tensor, ""]]:
        """Those of one level."""
        matrix = covariance(one)
        found = {
            "variance": self.variance * spread(matrix),
            "covariance": self.covariance * redundancy(matrix),
        }
        return found if truth is None else found | {"invariance": self.invariance * self.gap(one, truth)}

    def gap(self, one: Float[Tensor, "N P D"], other: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """The mean squared distance. Raises ValueError where the two are not of the same tokens."""
        if one.shape != other.shape:
            raise ValueError(
                f"invariance between {self.of} and truth needs the same tokens; use tokens=mean or of=guess"
            )
        return F.mse_loss(one, other)

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Nothing moves slowly."""
