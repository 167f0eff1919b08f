"""A copy of the backbone that never moves as the one who answers."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.protocols import Backbone
from jepakit.types import Features


class Frozen(nn.Module):
    """The backbone as it is when the run begins: with the weights that the run starts from, else random ones.

    It is always in evaluation mode: nothing is dropped, and no running statistics move.

    Args:
        normalise: layer norm of the answers over channels, without scale or shift.
    """

    def __init__(self, normalise: bool = True):
        super().__init__()
        self.normalise = normalise
        self.teacher: nn.Module | None = None

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Make the copy."""
        self.teacher = copy.deepcopy(backbone).requires_grad_(False).eval()

    @torch.no_grad()
    def targets(self, backbone: Backbone, view: Float[Tensor, "B C T H W"]) -> Features:
        """The copy's features of a whole view."""
        answer = self.teacher(view)
        return tuple(map(self.norm, answer)) if isinstance(answer, tuple) else self.norm(answer)

    def norm(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return F.layer_norm(features, features.shape[-1:]) if self.normalise else features

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Tensor]:
        """Nothing is forbidden: the answers stand still."""
        return {}

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Nothing moves."""

    def train(self, mode: bool = True) -> Any:
        """As any module, but for the copy."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self
