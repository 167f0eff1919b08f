"""Anti-collapse strategies compose: one answers, any number forbid."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.protocols import Backbone
from jepakit.types import Features


class Together(nn.Module):
    """Several strategies as one. Who shows that it is there to answer does so, else the first strategy that can.

    Raises:
        ValueError: where two strategies are there to answer, or none answers.
    """

    def __init__(self, strategies: Mapping[str, nn.Module]):
        super().__init__()
        self.strategies = nn.ModuleDict(strategies)

    @property
    def teacher(self) -> nn.Module | None:
        """The backbone that answers, if it is not the one that learns."""
        return next((t for s in self.strategies.values() if (t := getattr(s, "teacher", None)) is not None), None)

    def prepare(self, backbone: Backbone, steps: int) -> None:
        for strategy in self.strategies.values():
            strategy.prepare(backbone, steps)
        answering = [name for name, strategy in self.strategies.items() if answers(strategy)]
        if len(answering) > 1:
            raise ValueError(f"{' and '.join(answering)} each say what the target features are, only one can answer")

    @property
    def asked(self) -> list[Any]:
        """The strategies in the order in which they are asked: the one that is there to answer first, since a strategy
        that forbids may answer when it is alone."""
        return sorted(self.strategies.values(), key=lambda strategy: not answers(strategy))

    @property
    def masks_input(self) -> bool:
        """Whether the one who answers sees the target blocks alone, in place of the whole view."""
        return getattr(self.asked[0], "masks_input", False) if self.strategies else False

    @property
    def picks(self) -> bool:
        """Whether the one who answers need not work out what is not asked for."""
        return getattr(self.asked[0], "picks", False) if self.strategies else False

    def width(self, backbone: Backbone) -> int:
        """D of the answers: what a strategy says, else the backbone's."""
        return next((s.width for s in self.asked if getattr(s, "width", None)), backbone.width)

    def targets(
        self, backbone: Backbone, view: Float[Tensor, "B C T H W"], blocks: Int[Tensor, "B M Q"] | None = None
    ) -> Features:
        """The first answer there is."""
        for strategy in self.asked:
            answer = strategy.targets(backbone, view) if blocks is None else strategy.targets(backbone, view, blocks)
            if answer is not None:
                return answer
        raise ValueError("none of the strategies says what the target features are; add one that answers")

    @property
    def statistics(self) -> bool:
        """Whether anything that is forbidden is a statistic over the samples of a step."""
        return any(getattr(strategy, "statistics", False) for strategy in self.strategies.values())

    def penalty(
        self, seen: Features, guess: Features, truth: Features, how: tuple[Any, Any] | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Everything that is forbidden; who says ``conditioned`` is told ``how`` the two views came about."""
        found = {}
        for strategy in self.strategies.values():
            told = {"how": how} if getattr(strategy, "conditioned", False) else {}
            found |= strategy.penalty(seen, guess, truth, **told)
        return found

    def after_step(self, backbone: Backbone, step: int) -> None:
        for strategy in self.strategies.values():
            strategy.after_step(backbone, step)


def answers(strategy: Any) -> bool:
    """Whether a strategy is there to answer, which it shows by a teacher or by the width of its answers."""
    return getattr(strategy, "teacher", None) is not None or getattr(strategy, "width", None) is not None
