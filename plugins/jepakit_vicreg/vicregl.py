"""VICRegL: VICReg on pooled vectors, and on pairs of local features that match in content or in place."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.protocols import Backbone
from jepakit.statistics import samples
from jepakit.types import Features, Grid
from jepakit_vicreg.statistics import covariance, redundancy, spread


class Vicregl(nn.Module):
    """The whole loss of VICRegL (arXiv 2210.01571), its invariance terms included: ``distance_weight=0``.

    Of a pyramid the first level is the map of local features and the last one, pooled, the global vector; tokens are
    both, map and, as their mean, vector. Answers with the backbone's own features where nobody else answers.

    Args:
        alpha: weight of the global loss, that of the local one being ``1 - alpha``.
        matches: how many pairs are kept, the best ones, searched from the truth and from the guess (where a small view
            is asked about a large one, the guess is the small one's).
        invariance, variance, covariance: weights of the terms, each of the latter two a mean over both views.

    Raises:
        ValueError: for clips.
    """

    statistics, conditioned = True, True

    def __init__(
        self,
        alpha: float = 0.75,
        matches: tuple[int, int] = (20, 4),
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        grid: Grid | None = None,
    ):
        super().__init__()
        if grid is not None and grid.t > 1:
            raise ValueError(f"vicregl matches places of pictures, the grid is {grid.t} x {grid.h} x {grid.w}")
        self.alpha, self.matches = alpha, matches
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Nothing to prepare."""

    def targets(self, backbone: Backbone, view: Float[Tensor, "B C T H W"]) -> Features:
        """The backbone's own features: where a teacher is there, it is asked first."""
        return backbone(view)

    def penalty(
        self,
        seen: Features,
        guess: Features,
        truth: Features,
        how: tuple[Float[Tensor, "B P"], Float[Tensor, "B P"]] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """``global``, ``by_feature``, and ``by_place`` where it is told ``how`` the views of guess and truth came about
        (rows of ``Batch.condition``: left, top, right and bottom of the crop, whether it was mirrored, ...)."""
        one, other = local(guess), local(truth)
        found = {
            "global": self.alpha * self.loss(pooled(guess), pooled(truth)),
            "by_feature": (1 - self.alpha) * self.matched(one, other, one, other),
        }
        if how is not None:
            here, there = places(how[0], one.shape[1]), places(how[1], other.shape[1])
            found["by_place"] = (1 - self.alpha) * self.matched(one, other, here, there)
        return found

    def matched(
        self,
        one: Float[Tensor, "B N D"],
        other: Float[Tensor, "B K D"],
        here: Float[Tensor, "B N E"],
        there: Float[Tensor, "B K E"],
    ) -> Float[Tensor, ""]:
        """VICReg of the pairs that are nearest by ``here`` and ``there``, searched from both sides."""
        forth = self.loss(*nearest(other, one, there, here, self.matches[0]))
        back = self.loss(*nearest(one, other, here, there, self.matches[1]))
        return (forth + back) / 2

    def loss(self, one: Float[Tensor, "N P D"], other: Float[Tensor, "N P D"]) -> Float[Tensor, ""]:
        """VICReg of pairs, statistics over N at each of P places."""
        matrices = covariance(one), covariance(other)
        variances = torch.stack([spread(matrix) for matrix in matrices]).mean()
        covariances = torch.stack([redundancy(matrix) for matrix in matrices]).mean()
        return self.invariance * F.mse_loss(one, other) + self.variance * variances + self.covariance * covariances

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Nothing moves slowly."""


def local(features: Features) -> Float[Tensor, "B N D"]:
    """The map: the finest level."""
    return samples(features, "each")[0]


def pooled(features: Features) -> Float[Tensor, "B 1 D"]:
    """The global vector: the mean of the coarsest level."""
    return samples(features, "mean")[-1]


def places(how: Float[Tensor, "B P"], count: int) -> Float[Tensor, "B N 2"]:
    """Where the middles of a square map's tokens lie in the picture, as shares of its sides, row by row.

    Raises ValueError for a map that is not square.
    """
    side = math.isqrt(count)
    if side**2 != count:
        raise ValueError(f"matching by place needs a square map of local features, this one has {count}")
    left, top, right, bottom, mirrored = how[:, :5, None].unbind(1)  # B 1 each
    steps = (torch.arange(side, device=how.device, dtype=how.dtype) + 0.5) / side
    steps_across = torch.where(mirrored > 0.5, steps.flip(0), steps)
    across, down = left + (right - left) * steps_across, top + (bottom - top) * steps  # B side
    return torch.stack(torch.broadcast_tensors(across[:, None], down[:, :, None]), -1).flatten(1, 2)


def nearest(
    one: Float[Tensor, "B N D"],
    other: Float[Tensor, "B K D"],
    here: Float[Tensor, "B N E"],
    there: Float[Tensor, "B K E"],
    count: int,
) -> tuple[Float[Tensor, "B Q D"], Float[Tensor, "B Q D"]]:
    """The ``count`` tokens of ``one`` that lie nearest to a token of ``other``, and these; the best pair first."""
    with torch.no_grad():
        distance, partner = torch.cdist(here, there).min(2)
        chosen = distance.topk(min(count, distance.shape[1]), largest=False).indices
        partner = partner.gather(1, chosen)
    return tuple(x.gather(1, at[..., None].expand(-1, -1, x.shape[2])) for x, at in ((one, chosen), (other, partner)))
