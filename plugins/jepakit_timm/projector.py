"""Layers that one side alone has: what is seen of one view guesses what is seen of another."""

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from jepakit.types import Features, Grid, Mask
from jepakit_timm.expander import Expander


class Projector(nn.Module):
    """An MLP on each token (SimSiam, arXiv 2011.10566; BYOL, arXiv 2006.07733), the last layer plain and with a bias.

    Args:
        hidden: widths of the layers before the last, any number of them.
        norm: between any two, ``bn`` over all tokens of a batch or ``ln`` over the channels of each.

    Raises:
        ValueError: for a pyramid, whose levels differ in width; for a mask that shows or asks for a part of a view; and
            for a condition.
    """

    whole, tiny = True, {"hidden": (16,)}

    def __init__(
        self,
        encoder_width: int,
        target_width: int | None = None,
        hidden: tuple[int, ...] = (512,),
        norm: Literal["bn", "ln"] = "bn",
    ):
        super().__init__()
        self.layers = Expander(encoder_width, (*hidden, target_width or encoder_width), norm, bias=True)

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Float[Tensor, "B 1 N D"]:
        if condition is not None:
            raise ValueError("projector takes no condition")
        if mask.context is not None or mask.target is not None:
            raise ValueError(
                "projector guesses each token from itself: the masker must ask from whole view to whole view "
                "(as pair, mean)"
            )
        if isinstance(seen, tuple):
            raise ValueError(f"projector reads tokens of one width, the encoder gives a pyramid of {len(seen)} levels")
        return self.layers(seen).unsqueeze(1)
