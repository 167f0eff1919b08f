"""A model of timm as what it gives: one vector, a map of features, or several."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.errors import first_line

Gives = Literal["pooled", "tokens", "pyramid", "both"]
Level = Float[Tensor, "F n d"]
"""Features of F frames: a map of n places, or one vector."""


class Body(nn.Module):
    """Pictures ``F C H W`` become levels of features, finest first."""

    def __init__(self, model: nn.Module, gives: Gives, layers: tuple[int, ...] | None = None):
        super().__init__()
        self.model, self.gives = model, gives
        self.asked = {"indices": 1, "norm": True} | ({"indices": None} if gives == "pyramid" else {})
        if layers is not None:
            self.asked |= {"indices": list(layers), "stop_early": True}

    def forward(self, pictures: Float[Tensor, "F C H W"]) -> tuple[Level, ...]:
        if self.gives == "pooled":
            return (self.model.forward_head(self.model.forward_features(pictures))[:, None],)
        last, maps = self.model.forward_intermediates(pictures, **self.asked)
        levels = tuple(each.flatten(2).transpose(1, 2) for each in maps)  # F d h w to F n d
        return (*levels, self.model.forward_head(last)[:, None]) if self.gives == "both" else levels


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
