"""The backbone's own features as what there is to know: without gradient, or with it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.protocols import Backbone
from jepakit.types import Features


class StopGradient(nn.Module):
    """The backbone answers, and no gradient comes back that way: a teacher that follows without delay (SimSiam)."""

    width: int | None = None
    """D of the answers once it is prepared, which shows that it is there to answer."""

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Answer before those that only forbid."""
        self.width = backbone.width

    @torch.no_grad()
    def targets(self, backbone: Backbone, view: Float[Tensor, "B C T H W"]) -> Features:
        """The features of a whole view, made without what a gradient would need."""
        return backbone(view)

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Tensor]:
        """Nothing is forbidden."""
        return {}

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Nothing moves slowly."""


class Nothing(nn.Module):
    """The backbone answers, gradients included, and nothing is forbidden: features collapse, as a control should.

    It answers only where nobody else does.
    """

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Nothing to prepare."""

    def targets(self, backbone: Backbone, view: Float[Tensor, "B C T H W"]) -> Features:
        """The features of a whole view."""
        return backbone(view)

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Tensor]:
        """Nothing is forbidden."""
        return {}

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Nothing moves slowly."""
