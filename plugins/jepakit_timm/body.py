"""A model of timm as what it gives: one vector, a map of features, or several."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.errors import first_line

Gives = Literal["pooled", "tokens", "pyramid", "both"]
Level = Float[Tensor, "F n d"]
"""Features of F frames: a map of n places, or one vector."""


class Body(nn.Module):
    """Pictures ``F C H W`` become levels of features, finest first; with ``stem`` those within the stem are the first.

    Raises:
        ValueError: for a stem that there is not.
    """

    def __init__(self, model: nn.Module, gives: Gives, layers: tuple[int, ...] | None = None, stem: bool = False):
        super().__init__()
        self.model, self.gives, self.stem = model, gives, stem
        if stem and not isinstance(getattr(model, "stem", None), nn.Module):
            raise ValueError("stem=true is for models of timm that have a stem, such as ConvNeXt")
        self.asked = {"indices": 1, "norm": True} | ({"indices": None} if gives == "pyramid" else {})
        if layers is not None:
            self.asked |= {"indices": list(layers), "stop_early": gives == "pyramid"}

    def forward(self, pictures: Float[Tensor, "F C H W"]) -> tuple[Level, ...]:
        if pictures.is_cuda:  # as tensor cores read them; each convolution hands them on so (CPUs: ARCHITECTURE.md)
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        if self.gives == "pooled":
            return (self.model.forward_head(self.model.forward_features(pictures))[:, None],)
        with self._stem() as early:
            last, maps = self.model.forward_intermediates(pictures, **self.asked)
        levels = tuple(each.flatten(2).transpose(1, 2) for each in (*early, *maps))  # F d h w to F n d
        return (*levels, self.model.forward_head(last)[:, None]) if self.gives == "both" else levels

    @contextlib.contextmanager
    def _stem(self) -> Iterator[list[Tensor]]:
        """What each convolution of the stem gives in a pass, the last with all that follows it in the stem."""
        stem: Any = self.model.stem if self.stem else nn.Sequential()
        within = [each for each in stem.modules() if isinstance(each, nn.Conv2d)]
        early: list[Tensor] = []
        parts = [*within[:-1], stem] if self.stem else []
        hooks = [part.register_forward_hook(lambda _, __, out: early.append(out)) for part in parts]
        try:
            yield early
        finally:
            for hook in hooks:
                hook.remove()


class Found(NamedTuple):
    """Of each level the number of places and the width; and the weights that no level depends on."""

    places: list[int]
    widths: list[int]
    idle: list[str]


def tried(body: Body, channels: int, side: int) -> Found:
    """What a body makes of pictures of ``side`` pixels, from a pass without content, which costs nothing.

    Raises:
        ValueError: where the model does not do what is asked of it.
    """
    trained = {name: each.to("meta") for name, each in body.named_parameters() if each.requires_grad}
    rest = {name: each.to("meta") for name, each in (*body.named_parameters(), *body.named_buffers())}
    pictures = torch.empty(2, channels, side, side, device="meta")
    try:
        with torch.enable_grad():
            levels = torch.func.functional_call(body, rest | trained, (pictures,))
            total = torch.stack([level.sum() for level in levels]).sum()
            gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    except (AttributeError, AssertionError, RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"it does not give {body.gives!r} at {side} pixels: {first_line(error)}") from error
    idle = [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]
    return Found([level.shape[1] for level in levels], [level.shape[2] for level in levels], idle)


def strip(body: Body, idle: list[str]) -> None:
    """Take weights out of a body."""
    for name in idle:
        owner, _, last = name.rpartition(".")
        setattr(body.get_submodule(owner), last, None)
