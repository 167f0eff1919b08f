"""Barlow Twins: the correlation of guess and truth, channel with channel, should be the identity."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.protocols import Backbone
from jepakit.statistics import moments, samples
from jepakit.types import Features
from jepakit_vicreg.statistics import off_diagonal

EPS = 1e-5
"""Added to a variance: that of the batch norm which the released code normalises with."""


class Barlow(nn.Module):
    """The loss of Barlow Twins (arXiv 2103.03230, equation 1), its invariance term included: ``distance_weight=0``.

    Answers with the backbone's own features, gradients included, where nobody else answers.

    Args:
        weight: of the whole loss (the released code has a scale of 0.024 for its optimiser).
        redundancy: weight of the terms off the diagonal.
        tokens: what a sample is: the ``mean`` token of a view, ``each`` token at its place, or ``all`` tokens.
    """

    statistics = True

    def __init__(self, weight: float = 1.0, redundancy: float = 0.005, tokens: Literal["mean", "each", "all"] = "mean"):
        super().__init__()
        self.weight, self.redundancy, self.tokens = weight, redundancy, tokens

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Nothing to prepare."""

    def targets(self, backbone: Backbone, view: Float[Tensor, "B C T H W"]) -> Features:
        """The backbone's own features: where a teacher is there, it is asked first."""
        return backbone(view)

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Float[Tensor, ""]]:
        """``correlation``, the diagonal's distance from one, and ``redundancy``, what is off it; of a pyramid the means
        over its levels."""
        pairs = zip(samples(guess, self.tokens), samples(truth, self.tokens), strict=True)
        matrices = [correlation(*pair) for pair in pairs]
        on = torch.stack([(matrix.diagonal(dim1=-2, dim2=-1) - 1).square().sum(-1).mean() for matrix in matrices])
        off = torch.stack([off_diagonal(matrix).square().sum((-2, -1)).mean() for matrix in matrices])
        return {"correlation": self.weight * on.mean(), "redundancy": self.weight * self.redundancy * off.mean()}

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Nothing moves slowly."""


def correlation(one: Float[Tensor, "N P D"], other: Float[Tensor, "N P D"]) -> Float[Tensor, "P D D"]:
    """Of each channel of ``one`` with each of ``other``, over the samples."""
    count, _, products = moments(torch.cat([one, other], -1))
    products, width = products / count, one.shape[-1]
    deviation = (products.diagonal(dim1=-2, dim2=-1) + EPS).sqrt()
    return products[:, :width, width:] / (deviation[:, :width, None] * deviation[:, None, width:])
