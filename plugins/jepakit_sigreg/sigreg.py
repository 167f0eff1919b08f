"""SIGReg as what is forbidden: features whose projections are not those of an isotropic Gaussian."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit import seeds
from jepakit.protocols import Backbone
from jepakit.statistics import exact, samples
from jepakit.types import Features
from jepakit_sigreg.statistics import directions, epps_pulley


class Sigreg(nn.Module):
    """Sketched isotropic Gaussian regularisation (LeJEPA, arXiv 2511.08544); answers with the backbone's own features,
    gradients included, where nobody else answers.

    LeJEPA's loss is ``(1 - weight) * distance + weight * statistic``: set ``distance_weight`` to ``1 - weight``.

    Args:
        weight: lambda in the paper.
        slices: random directions; others in each step, the same for all of a step's masks and in every process.
        knots: places from zero to ``reach`` at which characteristic functions are compared.
        of: what is penalised: the features of the context, the predictor's guess, or the answers.
        tokens: what a sample is: the ``mean`` token of a view, ``each`` token at its place, or ``all`` tokens.

    Raises:
        ValueError: for less than one slice or two knots.
    """

    step: Tensor
    statistics = True

    def __init__(
        self,
        weight: float = 0.05,
        slices: int = 1024,
        knots: int = 17,
        reach: float = 3.0,
        of: Literal["seen", "guess", "truth"] = "seen",
        tokens: Literal["mean", "each", "all"] = "mean",
    ):
        super().__init__()
        if slices < 1 or knots < 2:
            raise ValueError(f"slices={slices} knots={knots}: it needs a slice or more, and two knots or more")
        self.weight, self.slices, self.knots, self.reach = weight, slices, knots, reach
        self.of, self.tokens = of, tokens
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.now = 0  # the same number where no device has to be waited for
        self.register_load_state_dict_post_hook(remember)

    def prepare(self, backbone: Backbone, steps: int) -> None:
        """Nothing to prepare."""

    def targets(self, backbone: Backbone, view: Float[Tensor, "B C T H W"]) -> Features:
        """The backbone's own features: where a teacher is there, it is asked first."""
        return backbone(view)

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Float[Tensor, ""]]:
        """``sigreg``: the mean over slices and places, and over the levels of a pyramid."""
        chosen = {"seen": seen, "guess": guess, "truth": truth}[self.of]
        return {"sigreg": self.weight * torch.stack([self.statistic(x) for x in samples(chosen, self.tokens)]).mean()}

    def statistic(self, x: Float[Tensor, "N P D"]) -> Float[Tensor, ""]:
        """The statistic of Epps and Pulley, the mean over this step's slices and over places."""
        drawn = directions(x.shape[-1], self.slices, seeds.generator("sigreg", self.now))
        with exact(x.device):
            return epps_pulley(x @ drawn.to(x.device, x.dtype, non_blocking=True), self.knots, self.reach).mean()

    def after_step(self, backbone: Backbone, step: int) -> None:
        """Other slices from now on."""
        self.now = step + 1
        self.step.fill_(self.now)


def remember(strategy: nn.Module, _: object) -> None:
    """After a restart: the step that was read, where no device has to be waited for."""
    strategy.now = int(strategy.step)
