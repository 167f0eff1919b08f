"""Where the parts of a step begin and end in the trainer's own code: nothing of a step is written a second time."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from jepakit.bench.split import Part
from jepakit.jepa import figures_of


@contextlib.contextmanager
def attached(trainer: Any, part: Part) -> Iterator[None]:
    """Every part of the trainer's steps is told to ``part``, for as long as this lasts; waiting for data is not one of
    them: the loop that takes the batches knows of it."""
    figures = list(figures_of(trainer.jepa).values())
    with contextlib.ExitStack() as stack:
        for branch in trainer.branches:
            stack.enter_context(_call(branch, "masks", part, "masks"))
        for figure in figures:
            stack.enter_context(_call(figure, "judge", part, "loss"))
        for strategy in dict.fromkeys(figure.anti_collapse for figure in figures):
            stack.enter_context(_call(strategy, "targets", part, "target"))
        for module, name in {figure.backbone: "context" for figure in figures}.items():
            stack.enter_context(_forward(module, part, name))
        for module in dict.fromkeys(figure.predictor for figure in figures):
            stack.enter_context(_forward(module, part, "predictor"))
        stack.enter_context(_call(torch.autograd, "backward", part, "backward"))
        stack.enter_context(_call(trainer.optimizer, "step", part, "optimiser"))
        stack.enter_context(_call(trainer.optimizer, "zero_grad", part, "optimiser"))
        stack.enter_context(_call(trainer.jepa, "after_step", part, "ema"))
        yield


@contextlib.contextmanager
def _call(owner: Any, name: str, part: Part, label: str) -> Iterator[None]:
    """Calls of ``owner.name`` are the part ``label``."""
    own, call = name in vars(owner), getattr(owner, name)
    setattr(owner, name, _within(call, part, label))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, call)
        else:
            delattr(owner, name)


def _within(call: Callable[..., Any], part: Part, label: str) -> Callable[..., Any]:
    def within(*args: Any, **kwargs: Any) -> Any:
        with part(label):
            return call(*args, **kwargs)

    return within


@contextlib.contextmanager
def _forward(module: nn.Module, part: Part, label: str) -> Iterator[None]:
    """Forward passes of a module are the part ``label``. A module is called by itself, not by an attribute."""
    open_: list[Any] = []

    def before(*_: Any) -> None:
        open_.append(part(label))
        open_[-1].__enter__()

    def after(*_: Any) -> None:
        open_.pop().__exit__(None, None, None)

    with module.register_forward_pre_hook(before, prepend=True), module.register_forward_hook(after, always_call=True):
        yield
