"""The legend: the letters and the few things that every part of jepakit speaks of.

    B batch   V views   C channels   T H W pixels   N tokens   K kept (context)   Q queried (target)
    M target blocks of one mask, each predicted on its own   D width   L layers

An image is a clip with T = 1. A token is a vector, or, for encoders that eat whole pictures, the picture itself:
hence ``*D`` where tokens enter an encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Features = Tensor | tuple[Tensor, ...]
"""Tokens ``B N D``, or a pyramid of them, finest level first."""


class Grid(NamedTuple):
    """A clip cut into tokens: ``t`` tubelets of ``h`` by ``w`` patches, numbered time first, then row, then column."""

    t: int
    h: int
    w: int

    @property
    def size(self) -> int:
        """N, the number of tokens."""
        return self.t * self.h * self.w


class Mask(NamedTuple):
    """One question asked of the predictor: given these tokens, imagine those.

    ``context`` are the tokens that the encoder may see, ``target`` the M blocks of tokens that the predictor has to
    imagine, each block on its own. ``None`` stands for the whole view. Several masks of a step may share one
    ``context`` tensor: it is then encoded once. ``kind`` numbers the way the mask was drawn (V-JEPA has a mask token
    for each kind); ``weight`` scales the error of single target tokens. The last ``recall`` tokens of each target block
    are those of the context, in its order: the predictor answers for them from their own places, not from a mask token
    (V-JEPA 2.1).
    """

    context: Int[Tensor, "B K"] | None
    target: Int[Tensor, "B M Q"] | None
    context_view: int = 0
    target_view: int | tuple[int, ...] = 0
    kind: int = 0
    weight: Float[Tensor, "B M Q"] | None = None
    recall: int = 0

    @property
    def target_views(self) -> tuple[int, ...]:
        """``target_view`` as several, which it may be one of."""
        return (self.target_view,) if isinstance(self.target_view, int) else self.target_view

    @property
    def imagined(self) -> Int[Tensor, "*B Q"] | None:
        """The target without what is recalled."""
        return self.target if self.target is None else self.target[..., : self.target.shape[-1] - self.recall]


def to_device(masks: Sequence[Mask], device: torch.device | str) -> list[Mask]:
    """A step's masks on ``device``; those that share a context go on sharing it."""
    return _each(masks, lambda tensor: tensor.to(device, non_blocking=True))


def rows(masks: Sequence[Mask], which: slice | Int[Tensor, "n"]) -> list[Mask]:
    """The masks of some samples; those that share a context go on sharing it."""
    return _each(masks, lambda tensor: tensor[which])


def _each(masks: Sequence[Mask], change: Callable[[Tensor], Tensor]) -> list[Mask]:
    changed: dict[int, Tensor] = {}

    def once(tensor: Tensor) -> Tensor:
        if id(tensor) not in changed:
            changed[id(tensor)] = change(tensor)
        return changed[id(tensor)]

    tensors = ({k: once(v) for k, v in mask._asdict().items() if isinstance(v, Tensor)} for mask in masks)
    return [mask._replace(**found) for mask, found in zip(masks, tensors, strict=True)]


class Guess(NamedTuple):
    """What a predictor may return instead of plain features: features, and extra losses with a name each."""

    features: Features
    losses: Mapping[str, Float[Tensor, ""]] = {}


class Evidence(NamedTuple):
    """What a predictor may infer its latent variable from, where it says ``infers = True``: both ends of a question.

    ``truth`` are the features that it has to imagine, ``B M Q D`` or a pyramid of them; ``seen`` and ``target`` are the
    pixels of the context's and of the target's view, normalised.
    """

    truth: Features
    seen: Float[Tensor, "B C T H W"]
    target: Float[Tensor, "B C T H W"]


class Outcome(NamedTuple):
    """What came of a question: what was seen, imagined and true of it, and the predictor's extra losses."""

    seen: Features
    guess: Features
    truth: Features
    losses: dict[str, Float[Tensor, ""]]


class Losses(NamedTuple):
    """A step's outcome: ``total`` is minimised, ``parts`` are what it is the sum of, by name.

    ``trace`` holds ``(seen, guess, truth)`` of every mask, for those who watch the run's health, ``asked`` the masks.
    """

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]
    trace: tuple[tuple[Features, Features, Features], ...] = ()
    asked: tuple[Mask, ...] = ()

    @classmethod
    def of(cls, found: list[dict[str, Tensor]], trace: list, asked: Sequence[Mask] = ()) -> "Losses":
        """The mean over a step's masks of each named loss that they ``found``."""
        names = dict.fromkeys(name for each in found for name in each)
        parts = {name: torch.stack([each[name] for each in found if name in each]).mean() for name in names}
        return cls(torch.stack(list(parts.values())).sum(), parts, tuple(trace), tuple(asked))


@dataclass(frozen=True)
class Batch:
    """A step's samples.

    ``views[v]`` is ``B C T H W``, normalised; views may differ in size. ``labels`` are named (``class``, ``count``,
    ...), empty where there are none. ``index`` numbers the samples in their source. ``condition`` is what the
    predictor may know about how the views came about. ``replaced`` lists the samples that could not be read.
    """

    views: tuple[Float[Tensor, "B C _ _ _"], ...]
    labels: dict[str, Tensor]
    index: Int[Tensor, "B"]
    condition: Any = None
    replaced: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Weights:
    """A model on its way from one file to another: its tensors by the names that they have in ``Jepa``'s parts.

    ``backbones`` holds ``target`` (the teacher) and ``online`` (what learns), or one of them where a file has but one:
    each the state of a ``Backbone``, ``tokenizer. ...`` and ``encoder. ...``. ``predictor`` is empty where there is
    none. ``optimizer`` holds AdamW's moments as ``<parameter of the Jepa>/exp_avg``, ``/exp_avg_sq`` and ``/step``.
    ``config`` holds what is needed to build the parts again: the nodes ``tokenizer``, ``encoder`` and ``predictor``
    of a configuration, and of ``data`` at least ``size``, ``mean`` and ``std``. ``about`` says what else the file
    tells of itself (format, epoch, ...), as plain data. ``extra`` holds tensors that no part here has a place for, and
    that a format wants to write back as they were, as ``<part>/<its name>``.
    """

    config: dict[str, Any]
    backbones: dict[str, dict[str, Tensor]]
    predictor: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)


Picture = UInt8[Tensor, "C T H W"]
"""What a source hands out: a decoded image or clip."""


def take(x: Float[Tensor, "B N *D"], index: Int[Tensor, "B K"] | None) -> Float[Tensor, "B K *D"]:
    """Pick tokens by index, row by row; ``None`` picks all.

    Raises:
        IndexError: on a CPU, for a token that there is not; a GPU stops by an assertion of its own.
    """
    if index is None:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x.gather(1, index.reshape(*index.shape, *(1 for _ in x.shape[2:])).expand(*index.shape, *x.shape[2:]))
    count = x.shape[1]
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise IndexError(f"tokens {int(index.min())} to {int(index.max())} are asked for, of 0 to {count - 1}")
    rows = index + count * torch.arange(len(x)).unsqueeze(1)  # of all samples: they are copied whole
    return x.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, index.shape)


def by_level(change: Callable[..., Tensor], *features: Features) -> Features:
    """``change`` of features of one form, of pyramids level by level."""
    if isinstance(features[0], tuple):
        return tuple(change(*levels) for levels in zip(*features, strict=True))
    return change(*features)


def take_blocks(x: Features, index: Int[Tensor, "B M Q"] | None) -> Features:
    """Pick blocks of tokens: ``B N D`` becomes ``B M Q D``; a pyramid is picked from level by level."""
    if isinstance(x, tuple):
        return tuple(level for each in x if isinstance(level := take_blocks(each, index), Tensor))
    if index is None:
        return x.unsqueeze(1)
    return take(x, index.flatten(1)).unflatten(1, index.shape[1:])


def imagined(x: Features, mask: Mask) -> Features:
    """Blocks ``B M Q D``, a guess or its truth, without what is recalled."""
    if isinstance(x, tuple):
        return tuple(level for each in x if isinstance(level := imagined(each, mask), Tensor))
    return x[:, :, : x.shape[2] - mask.recall]


def mean(several: Sequence[Features]) -> Features:
    """The mean of several features of one shape, pyramids level by level."""
    if isinstance(several[0], tuple):
        return tuple(torch.stack(level).mean(0) for level in zip(*several, strict=True))
    return torch.stack([each for each in several if isinstance(each, Tensor)]).mean(0)
