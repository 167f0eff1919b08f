"""The figure that every paper of the family shares."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepakit.distance import Distance
from jepakit.types import Evidence, Features, Grid, Guess, Losses, Mask, Outcome, imagined, mean, take_blocks


class Jepa(nn.Module):
    """A joint-embedding predictive architecture: one branch of it, over a backbone that branches may share.

        view --> tokenizer --> tokens
                                 |
          context tokens         +--> encoder ------> seen
                                 |                      +--> predictor --> guess --+
          all tokens of the      +--> anti_collapse.targets --> truth --> take ----+--> distance
          target view                                                              |
          seen, guess, truth ------> anti_collapse.penalty --------------> guard --+--> total

    Args:
        backbone: tokenizer followed by encoder.
        predictor, anti_collapse: see ``jepakit.protocols``.
        distance: see ``jepakit.distance``.
    """

    anti_collapse: Any  # nn.Module types its children as Tensor | Module

    def __init__(self, backbone: "Backbone", predictor: nn.Module, anti_collapse: nn.Module, distance: Distance):
        super().__init__()
        self.backbone, self.predictor, self.anti_collapse = backbone, predictor, anti_collapse
        self.distance = distance

    def forward(
        self, views: Sequence[Float[Tensor, "B C _ _ _"]], masks: Sequence[Mask], condition: Any = None
    ) -> Losses:
        return self.judge(self.imagine(views, masks, condition), masks, condition)

    def imagine(
        self,
        views: Sequence[Float[Tensor, "B C _ _ _"]],
        masks: Sequence[Mask],
        condition: Any = None,
        known: Sequence[Features] | None = None,
    ) -> list[Outcome]:
        """What came of each question; ``known`` is the truth of each where it need not be asked for again."""
        look = Once(self.backbone)
        answer = Answers(self.anti_collapse, look, views, masks)
        outcomes = []
        for number, mask in enumerate(masks):
            truth = known[number] if known else answer(mask)  # B M Q D, what there is to know
            view = views[mask.context_view]
            seen = look(view, mask.context)  # B K D, what the encoder may see
            told = self.told(condition, mask, truth, views)
            guess, losses = read(self.predictor(seen, mask, look.grid(view), told))  # B M Q D, imagined
            outcomes.append(Outcome(seen, guess, truth, losses))
        return outcomes

    def told(self, condition: Any, mask: Mask, truth: Features, views: Sequence[Tensor]) -> Any:
        """The predictor's condition: nothing, what is known of the views, or what it infers its latent from."""
        if not getattr(self.predictor, "infers", False):
            return condition if getattr(self.predictor, "conditioned", False) else None
        if not isinstance(mask.target_view, int):
            return None  # of a mean of several views there are no pixels
        return Evidence(truth, views[mask.context_view], views[mask.target_view])

    def judge(self, outcomes: Sequence[Outcome], masks: Sequence[Mask], condition: Any = None) -> Losses:
        """How far each guess is from the truth, and what is forbidden."""
        found, trace = [], []
        for (seen, guess, truth, losses), mask in zip(outcomes, masks, strict=True):
            guard = self.anti_collapse.penalty(seen, guess, truth, how(condition, mask))
            found.append({**self.distance(guess, truth, mask.weight), **losses, **guard})
            trace.append((seen, imagined(guess, mask), imagined(truth, mask)))
        return Losses.of(found, trace, masks)

    @property
    def target_backbone(self) -> nn.Module:
        """The backbone that answers: the teacher where there is one. It is what evaluations read by default."""
        return getattr(self.anti_collapse, "teacher", None) or self.backbone

    def after_step(self, step: int) -> None:
        """What moves slowly moves, after optimiser step ``step`` (from 0)."""
        self.anti_collapse.after_step(self.backbone, step)


class Branched(nn.Module):
    """Several figures over one backbone. What they share has the names that it has in one; what a branch has for itself
    lies under ``own.<branch>``.

    Args:
        figures: by branch, with the same backbone.
        own: which of ``predictor`` and ``anti_collapse`` each branch has for itself.
    """

    predictor: Any
    anti_collapse: Any

    def __init__(self, figures: Mapping[str, Jepa], own: Mapping[str, Sequence[str]]):
        super().__init__()
        self.figures = dict(figures)  # no child: each part is one, once
        self.backbone = next(iter(figures.values())).backbone
        held = {id(getattr(figures[name], part)) for name, parts in own.items() for part in parts}
        for part in ("predictor", "anti_collapse"):
            shared = (getattr(figure, part) for figure in figures.values())
            self.add_module(part, next((each for each in shared if id(each) not in held), None))
        self.own = nn.ModuleDict()
        for name, parts in own.items():
            if parts:
                self.own[name] = nn.ModuleDict({part: getattr(figures[name], part) for part in parts})

    @property
    def target_backbone(self) -> nn.Module:
        """That of the first branch."""
        return next(iter(self.figures.values())).target_backbone

    def after_step(self, step: int) -> None:
        """What moves slowly moves once, whoever shares it."""
        for strategy in dict.fromkeys(figure.anti_collapse for figure in self.figures.values()):
            strategy.after_step(self.backbone, step)


def figures_of(model: Jepa | Branched) -> dict[str, Jepa]:
    """The figure of each branch of a run's model; of a run without branches its only one, without a name."""
    return dict(model.figures) if isinstance(model, Branched) else {"": model}


class Once:
    """A backbone for the length of one step: what was encoded is not encoded again, with gradients or without."""

    def __init__(self, backbone: "Backbone"):
        self.backbone = backbone
        self._known: dict[tuple[int, int | None, bool], Features] = {}

    def __call__(self, pixels: Float[Tensor, "B C T H W"], keep: Int[Tensor, "B K"] | None = None) -> Features:
        what = (id(pixels), None if keep is None else id(keep), torch.is_grad_enabled())
        if what not in self._known:
            self._known[what] = self.backbone(pixels, keep)
        return self._known[what]

    @property
    def width(self) -> int:
        """D of the features."""
        return self.backbone.width

    def grid(self, pixels: Float[Tensor, "B C T H W"]) -> Grid:
        """The grid of tokens that a clip is cut into."""
        return self.backbone.grid(pixels)


class Answers:
    """What there is to know, for the length of a step: a view is answered once, and every mask takes its blocks of it.

    A strategy that says ``masks_input`` is asked for the blocks themselves: it never sees the rest of the view. One
    that says ``picks`` is, where one of the ``masks`` alone asks for a view: it need not work out the rest.
    """

    def __init__(
        self, strategy: Any, look: Once, views: Sequence[Float[Tensor, "B C _ _ _"]], masks: Sequence[Mask] = ()
    ):
        self.strategy, self.look, self.views = strategy, look, views
        self.asked = Counter(view for mask in masks for view in mask.target_views)
        self._known: dict[int, Features] = {}

    def __call__(self, mask: Mask) -> Features:
        """``B M Q D``; of several target views the mean (LeJEPA)."""
        found = [self.of(view, mask.target) for view in mask.target_views]
        return mean(found) if len(found) > 1 else found[0]

    def of(self, view: int, target: Int[Tensor, "B M Q"] | None) -> Features:
        """The answer of one view, at the target."""
        alone = self.asked[view] == 1 and getattr(self.strategy, "picks", False)
        if target is not None and (alone or getattr(self.strategy, "masks_input", False)):
            return self.strategy.targets(self.look, self.views[view], target)
        if view not in self._known:
            self._known[view] = self.strategy.targets(self.look, self.views[view])
        return take_blocks(self._known[view], target)


class Backbone(nn.Module):
    """A tokenizer followed by an encoder. A teacher copies both: the official patch embedding lives in its encoder."""

    tokenizer: Any  # nn.Module types its children as Tensor | Module
    encoder: Any

    def __init__(self, tokenizer: nn.Module, encoder: nn.Module):
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder

    @property
    def width(self) -> int:
        """D of the features."""
        return self.encoder.width

    def grid(self, pixels: Float[Tensor, "B C T H W"]) -> Grid:
        """The grid of tokens that a clip is cut into."""
        return self.tokenizer.grid(*pixels.shape[2:])

    @property
    def picks(self) -> bool:
        """Whether it may be asked for some of the tokens, and does not work out the others."""
        return getattr(self.encoder, "picks", False)

    def forward(
        self,
        pixels: Float[Tensor, "B C T H W"],
        keep: Int[Tensor, "B K"] | None = None,
        asked: Int[Tensor, "B A"] | None = None,
    ) -> Features:
        """The features of the tokens that are kept; where it ``picks``, of those of them that are ``asked`` for."""
        told = () if asked is None else (asked,)
        return self.encoder(self.tokenizer(pixels, keep), keep, self.grid(pixels), *told)

    def represent(self, pixels: Float[Tensor, "B C T H W"]) -> Features:
        """What evaluations read: the features, of an encoder with an expander those before it."""
        encode = getattr(self.encoder, "represent", self.encoder)
        return encode(self.tokenizer(pixels), None, self.grid(pixels))

    @property
    def representation_width(self) -> int:
        """D of what evaluations read."""
        return getattr(self.encoder, "representation_width", self.width)


def how(condition: Any, mask: Mask) -> tuple[Any, Any] | None:
    """How the two views of a question came about; None where nobody says, where several views are asked for, and where
    tokens are chosen: a view's parameters are no longer those of what is seen and imagined."""
    chosen = mask.context is not None or mask.target is not None
    if condition is None or chosen or not isinstance(mask.target_view, int):
        return None
    return condition[mask.context_view], condition[mask.target_view]


def read(outcome: Features | Guess) -> tuple[Features, dict[str, Tensor]]:
    """A predictor's features and its extra losses, if it has any."""
    return (outcome.features, dict(outcome.losses)) if isinstance(outcome, Guess) else (outcome, {})
