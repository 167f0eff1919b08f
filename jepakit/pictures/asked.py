"""What a run's predictor says of pictures that it was not trained on, and what it should have said."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from jepakit.branches import branches
from jepakit.build import ask, refuse, seen_shape
from jepakit.data.views import Normalise
from jepakit.errors import ConfigError
from jepakit.evaluate.features import levels_of, undisturbed
from jepakit.jepa import Answers, Jepa, Once
from jepakit.pictures.entry import masker_of
from jepakit.seeds import generator
from jepakit.types import Features, Grid, Mask, take_blocks, to_device

TOKENS, LEAST, MOST = 8192, 16, 128
"""Tokens that are looked at, and pictures or clips at least and at most."""


class Asked(NamedTuple):
    """A question about some pictures and its answers, float32 on the CPU.

    ``start`` numbers the first of them among all; ``context`` was shown, ``target`` was asked for; ``guess`` and
    ``truth`` are the tokens there. ``halves`` are guesses from one half of the context and from the other, with
    the context that each saw.
    """

    start: int
    context: Int[Tensor, "B K"]
    target: Int[Tensor, "B M Q"]
    guess: Float[Tensor, "B M Q D"]
    truth: Float[Tensor, "B M Q D"]
    halves: tuple[tuple[Int[Tensor, "B _"], Float[Tensor, "B M Q D"]], ...] = ()


class Answered(NamedTuple):
    """All that was asked about B pictures: ``bank`` holds the true token of every place of every picture."""

    pictures: UInt8[Tensor, "B C T H W"]
    grid: Grid
    bank: Float[Tensor, "B N D"]
    asked: tuple[Asked, ...]


class Oracle(NamedTuple):
    """A branch whose predictor can be asked: its figure, and its configuration as if there were no other."""

    jepa: Jepa
    config: Mapping[str, Any]
    grid: Grid
    device: torch.device

    @property
    def predictor(self) -> str:
        return self.config["predictor"]["name"]

    def pixels(self, pictures: UInt8[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        """Normalised, where the model is."""
        data = self.config["data"]
        normalise = Normalise(list(data["mean"]), list(data["std"]), self.device)
        return normalise(pictures.to(self.device), torch.zeros(len(pictures), dtype=torch.bool))

    def room(self) -> int:
        """How many pictures are looked at."""
        return min(max(TOKENS // self.grid.size, LEAST), MOST)


def oracle(config: Mapping[str, Any], figures: Mapping[str, Jepa], device: torch.device) -> Oracle:
    """The first branch whose predictor fills in chosen tokens of what it is shown; ``figures`` are those of a run.

    Raises ConfigError, with the reason, where no branch has one.
    """
    reasons = []
    for name, each in branches(config).items():
        figure = figures[name].to(device)
        grid = figure.backbone.grid(torch.empty(1, *seen_shape(each), device="meta"))
        if any(_chooses(mask) for mask in _drawn(each, grid, 1, 0)):
            return Oracle(figure, each, grid, device)
        hides = f"masker {each['masker']['name']!r} hides none"
        who = f"that predictor {each['predictor']['name']!r} would be asked for"
        reasons.append(f"branch {name}: " * bool(name) + f"{hides} {who}")
    raise ConfigError(
        f"predictions are those of a predictor that fills in hidden tokens of a picture; {'; '.join(reasons)}"
    )


def answered(who: Oracle, pictures: UInt8[Tensor, "B C T H W"], halves: int) -> Answered:
    """Ask about all of the pictures, a batch at a time as in training, one mask each; of the first ``halves`` of them
    also with halves of the context."""
    asked, bank = [], []
    with undisturbed(who.jepa):
        for some in pictures.split(int(who.config["data"]["batch_size"])):
            start, pixels = sum(map(len, bank)), who.pixels(some)
            mask = next(each for each in _drawn(who.config, who.grid, len(some), start) if _chooses(each))
            question = Mask(mask.context, mask.imagined, mask.context_view, mask.target_view, mask.kind)
            true = _truth(who, pixels)
            asked.append(_ask(who, pixels, question, true, start, start < halves))
            bank.append(_last(true)[:, 0])
    return Answered(pictures, who.grid, torch.cat(bank), tuple(asked))


def true_tokens(who: Oracle, pictures: UInt8[Tensor, "B C T H W"]) -> Float[Tensor, "B N D"]:
    """What there is to know of every place of the pictures."""
    with undisturbed(who.jepa):
        return torch.cat([_last(_truth(who, who.pixels(part)))[:, 0] for part in pictures.split(LEAST)])


def _chooses(mask: Mask) -> bool:
    return mask.context is not None and mask.target is not None and isinstance(mask.target_view, int)


def _drawn(config: Mapping[str, Any], grid: Grid, count: int, number: int) -> list[Mask]:
    """Masks of a batch of ``count``; contexts are cut to the shortest of it."""
    who = f"masker {config['masker']['name']!r}"
    return ask(who, masker_of(config, grid), grid, count, generator(config["seed"], "predictions", number))


def _ask(who: Oracle, pixels: Tensor, mask: Mask, true: Features, start: int, halved: bool) -> Asked:
    context, target = mask.context, mask.target
    assert context is not None and target is not None, "the mask chooses tokens"
    (guess, truth), halves = _guess(who, pixels, mask, true), []
    if halved and context.shape[1] > 1:
        chance = torch.rand(context.shape, generator=generator(who.config["seed"], "halves", start))
        order, middle = chance.argsort(1), context.shape[1] // 2
        for half in (order[:, :middle], order[:, middle:]):
            seen = context.gather(1, half.sort(1).values)
            halves.append((seen, _guess(who, pixels, mask._replace(context=seen), true)[0]))
    return Asked(start, context, target, guess, truth, tuple(halves))


def _guess(who: Oracle, pixels: Tensor, mask: Mask, true: Features) -> tuple[Tensor, Tensor]:
    """A question's guess and truth, ``B M Q D``; of a pyramid the last level."""
    assert isinstance(mask.target_view, int), "several views have no pixels of their own"
    views = [pixels] * (1 + max(mask.context_view, mask.target_view))  # a centred view stands for each
    [mask] = to_device([mask], who.device)
    hidden = getattr(who.jepa.anti_collapse, "masks_input", False)  # then what is true depends on what is asked for
    known = None if hidden else [_blocks(true, mask)]
    [outcome] = refuse(f"predictor {who.predictor!r}", who.jepa.imagine, views, [mask], None, known)
    return _last(outcome.guess), _last(outcome.truth)


def _truth(who: Oracle, pixels: Tensor) -> Features:
    """All tokens of whole views as one block, ``B 1 N D``."""
    every = torch.arange(who.grid.size, device=pixels.device).expand(len(pixels), 1, -1)
    return Answers(who.jepa.anti_collapse, Once(who.jepa.backbone), [pixels])(Mask(None, every))


def _blocks(true: Features, mask: Mask) -> Features:
    if isinstance(true, tuple):
        return take_blocks(tuple(level[:, 0] for level in true), mask.target)
    return take_blocks(true[:, 0], mask.target)


def _last(features: Features) -> Tensor:
    return levels_of(features)[-1].float().cpu()
