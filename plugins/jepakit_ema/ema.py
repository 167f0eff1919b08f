"""The exponential moving average of the backbone as the one who answers."""

import copy
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.protocols import Backbone
from jepakit.types import Features, by_level


class Ema(nn.Module):
    """A teacher that follows the backbone with momentum ``start``, growing linearly to ``end``.

    Args:
        start, end: momentum at the first and after the last step.
        stretch: length of the momentum's schedule over length of the run (the released ``ipe_scale``).
        normalise: layer norm of the answers over channels, without scale or shift.
        mask: whether what is not asked for is hidden from the teacher's ``input``, or its ``output`` is taken at the
            target, so that it has seen the whole view (the paper's choice; Table 11 compares both).
        batch_ratio: samples a step over those that the momentum is stated for; it is taken to this power.
    """

    def __init__(
        self,
        start: float = 0.996,
        end: float = 1.0,
        stretch: float = 1.0,
        normalise: bool = True,
        mask: Literal["output", "input"] = "output",
        batch_ratio: float = 1.0,
    ):
        super().__init__()
        self.start, self.end, self.stretch, self.normalise = start, end, stretch, normalise
        self.masks_input, self.batch_ratio = mask == "input", batch_ratio
        self.teacher: nn.Module | None = None
        self.steps = 1

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Make the teacher, and learn how long the schedule is."""
        self.steps = steps
        self.teacher = copy.deepcopy(backbone).requires_grad_(False)

    @torch.no_grad()
    def targets(
        self, backbone: Backbone, view: Float[Tensor, "B C T H W"], blocks: Int[Tensor, "B M Q"] | None = None
    ) -> Features:
        """The teacher's features of a whole view, ``B N D``, or of its blocks, ``B M Q D``: each of them alone where
        what is not asked for is hidden from the teacher."""
        if blocks is None:
            return by_level(self.norm, self.teacher(view))
        if self.masks_input:
            alone = self.teacher(view.repeat_interleave(blocks.shape[1], 0), blocks.flatten(0, 1))
            return self.norm(alone).unflatten(0, blocks.shape[:2])
        answer = self.teacher(view, None, blocks.flatten(1))
        return by_level(lambda level: self.norm(level).unflatten(1, blocks.shape[1:]), answer)

    @property
    def picks(self) -> bool:
        """Whether the teacher need not work out what is not asked for."""
        return getattr(self.teacher, "picks", False)

    def norm(self, features: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return F.layer_norm(features, features.shape[-1:]) if self.normalise else features

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Tensor]:
        """Nothing is forbidden: a slow teacher is all that keeps the features apart."""
        return {}

    def momentum(self, step: int) -> float:
        """The share of itself that the teacher keeps after step ``step`` (from 0); past its schedule, ``end``."""
        stated = self.start + (self.end - self.start) * min(1.0, step / (self.steps * self.stretch))
        return stated**self.batch_ratio

    @torch.no_grad()
    def after_step(self, backbone: Backbone, step: int) -> None:
        """Move the teacher. Multiply, then add: the released code's order of operations."""
        momentum = self.momentum(step)
        slow, fast = list(self.teacher.parameters()), list(backbone.parameters())
        torch._foreach_mul_(slow, momentum)
        torch._foreach_add_(slow, fast, alpha=1.0 - momentum)
