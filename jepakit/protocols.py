"""The five contracts on one page. A component is any class that keeps one; there is nothing to inherit.

Components take plain constructor arguments, and these are their configuration: name, type and default are read off
the signature. Arguments named in ``hookspecs.SUPPLIED`` are filled in when the model is built and are no
configuration. State that must survive a restart is a buffer. Nothing in a component calls ``.item()``, logs, or asks
for its rank.
A component may have a class attribute ``tiny``, constructor arguments that make it small: ``tiny = {"width": 24,
"depth": 1}``. ``jepakit plugins --matrix`` and its tests build it so, for 32 pixels and 4 samples.
``jepakit.testing`` holds each contract as a check that anyone's component can be put to.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jepakit.types import Features, Grid, Guess, Mask, Weights


@runtime_checkable
class Tokenizer(Protocol):
    """Cuts a clip into tokens and embeds them. What is not kept is not embedded."""

    def __call__(
        self, pixels: Float[Tensor, "B C T H W"], keep: Int[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B K *D"]: ...

    def grid(self, t: int, h: int, w: int) -> Grid:
        """The grid of tokens of a clip of ``t`` frames of ``h`` by ``w`` pixels. Raises ValueError if none fits."""
        ...


@runtime_checkable
class Masker(Protocol):
    """Chooses what is seen and what is imagined. Pure: the same ``rng`` state gives the same masks.

    It knows the grid, never the pixels. Context and target are not empty; they are disjoint unless the class says
    ``overlaps = True``, but for what a mask recalls. One with a schedule has an argument ``step`` after these, and is
    told the optimiser step. Raises ValueError where the grid leaves no room.
    """

    def __call__(self, grid: Grid, batch_size: int, rng: torch.Generator) -> list[Mask]: ...


@runtime_checkable
class Encoder(Protocol):
    """Turns the tokens it is given into features. ``index`` says where on the grid they lie (None: all of them).

    One with an expander has ``represent``, which is called alike and gives what comes before it, and the width of that
    as ``representation_width``: evaluations read the representation, losses the embedding. One whose tokens are no
    vectors of its width shows by ``example``, a grid and the shape of a token, what it eats. One that says ``picks =
    True`` takes a fourth argument, ``asked: B A``, and answers for these of its tokens alone. Methods of its modules
    that may be played from a recording (``jepakit.cudagraphs``) are named in ``replays``, a tuple.
    """

    width: int
    """D of the features; of a pyramid that of its last level, and ``widths`` are those of all."""

    def __call__(self, tokens: Float[Tensor, "B K *D"], index: Int[Tensor, "B K"] | None, grid: Grid) -> Features: ...


@runtime_checkable
class Predictor(Protocol):
    """Imagines the features of the target blocks from those of the context: ``B M Q D``, or a ``Guess``.

    One that says ``recalls = True`` also answers for the context (``Mask.recall``); others refuse such masks. One that
    says ``whole = True`` is asked from whole view to whole view, and refuses other masks.

    ``condition`` is LeCun's z: actions, or for each view the parameters of its augmentation (``Batch.condition``), told
    to a predictor that says ``conditioned = True``. One that says ``infers = True`` finds z by itself, and is told what
    from, ``types.Evidence``, but where it is asked for the mean of several views. To all others it is None.

    One that infers motion has ``flow(backbone, first, second)``, ``B C 1 H W`` each, which gives ``B 2 H W``: how far
    every pixel of the first goes to the right and down until the second. Any size will do. Evaluations call it.
    """

    def __call__(
        self, seen: Features, mask: Mask, grid: Grid, condition: Any = None
    ) -> Float[Tensor, "B M Q D"] | Guess: ...


@runtime_checkable
class AntiCollapse(Protocol):
    """Who answers, what is forbidden, what moves slowly. Of several strategies one answers, any number forbid."""

    def prepare(self, backbone: "Backbone", steps: int) -> None:
        """Called once, before training: make a teacher, learn how many optimiser steps there will be."""
        ...

    def targets(self, backbone: "Backbone", view: Float[Tensor, "B C T H W"]) -> Features | None:
        """What there is to know about a view, ``B N D``; None from a strategy that leaves the answer to another.

        Answers of another width than the backbone's are announced by an attribute ``width``. A strategy with the
        attribute ``masks_input = True`` is given the target ``B M Q`` as a third argument, and answers ``B M Q D``; one
        that says ``picks = True`` may be, and gives the same answer with less work.
        """
        ...

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Float[Tensor, ""]]:
        """Named losses that keep the features from collapsing; empty where nothing is forbidden.

        Where they are statistics over the samples of a step (``jepakit.statistics``) the strategy has an attribute
        ``statistics = True``: it is then shown the samples of all micro-batches at once. With ``conditioned = True`` it
        is given a fourth argument ``how``, the conditions of the context's and of the target's view, or None.
        """
        ...

    def after_step(self, backbone: "Backbone", step: int) -> None:
        """Called after optimiser step ``step`` (from 0)."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A tokenizer followed by an encoder: what a teacher copies and an evaluation reads.

    An evaluation calls ``represent(pixels)`` where there is one (see ``Encoder``), else the backbone itself.
    """

    width: int

    def __call__(self, pixels: Float[Tensor, "B C T H W"], keep: Int[Tensor, "B K"] | None = None) -> Features: ...

    def grid(self, pixels: Float[Tensor, "B C T H W"]) -> Grid: ...


class Content(NamedTuple):
    """What lies in a file or folder with weights, read without running anything that it holds.

    ``tensors`` go by their path in the file, nested dictionaries joined by ``/``: ``target_encoder/module.norm.bias``;
    where shapes are all that was asked for, matrices and vectors are on the device ``meta``. ``values`` is everything
    else of it that is plain data, by such a path; ``config`` is the ``config.json`` that lies beside it, or None.
    ``given`` is what the person who asks adds, because the file does not say it (``heads``,
    ``size``, ``frames``).
    """

    path: Path
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    given: Mapping[str, Any] = {}


@runtime_checkable
class Format(Protocol):
    """How someone keeps weights. ``title`` is its name for people. ``parts`` says what it can hold at once: of
    ``target``, ``online``, ``predictor`` and ``optimizer``, or ``backbone``, which is one of the first two; nothing
    where it can only be read. ``suffixes`` are those of the file that it writes, none where it writes a folder."""

    title: str
    parts: tuple[str, ...]
    suffixes: tuple[str, ...]

    def recognise(self, content: Content) -> bool:
        """Whether it is of this format, by its names and shapes alone."""
        ...

    def summary(self, content: Content) -> dict[str, dict[str, Tensor]]:
        """The tensors by part (``target``, ``online``, ``predictor``, ``optimizer``, or what else there is)."""
        ...

    def read(self, content: Content) -> Weights:
        """All of it. Raises ValueError, naming the keys, for what is missing, left over or of a wrong shape."""
        ...

    def write(self, weights: Weights, which: str, out: Path) -> None:
        """Write what it can hold, of several backbones the one called ``which``, into ``out``, which is not there yet.

        Raises ValueError for weights that it has no way to write down, before anything is written.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """A data source: numbered samples, each ``(picture, labels)``; ``picture`` is uint8 ``C T H W`` of any size.

    Raises ``jepakit.data.BadSample`` where a sample cannot be read. ``classes`` names the values of each label. A
    source with clips to choose from may have ``sample(index, rng) -> (picture, labels)``: training calls it with the
    sample's own generator; ``source[index]`` is the one fixed answer. It may have ``several(index, count, rng=None) ->
    (clips, labels)``: clips of one sample, read at once; with an attribute ``clips`` training takes so many. ``parts``
    (lengths) and ``weights`` make a mixture of it. It may have ``maps`` (by name the classes, None for numbers) and
    ``map(index, name, frame=0)``: ``H W`` of the picture's own size, int64 with -1 or float32 with nan where unknown.
    """

    classes: dict[str, tuple[str, ...]]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | float]]: ...

    def describe(self, index: int) -> str:
        """Where sample ``index`` comes from: a path, or what was generated."""
        ...
