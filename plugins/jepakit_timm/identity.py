"""What was seen, said again: there is nothing to predict between two views but their likeness."""

from typing import Any

from torch import nn

from jepakit.types import Features, Grid, Mask


class Identity(nn.Module):
    """The guess is what was seen (VICReg, LeJEPA); of a pyramid level by level.

    Raises:
        ValueError: for answers of another width than the encoder's; for a mask that shows or asks for a part of a view:
            it does not know what it has not seen; and for a condition.
    """

    whole = True

    def __init__(self, encoder_width: int | None = None, target_width: int | None = None):
        super().__init__()
        if encoder_width != (target_width or encoder_width):
            raise ValueError(
                f"identity says again what was seen, {encoder_width} wide, and the answers are {target_width} wide: "
                "they need a predictor that learns"
            )

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Features:
        if condition is not None:
            raise ValueError("identity takes no condition")
        if mask.context is not None or mask.target is not None:
            raise ValueError(
                "identity says again what was seen: the masker must ask from whole view to whole view (as pair, mean)"
            )
        if mask.context_view == mask.target_view:
            raise ValueError("identity says again what was seen: of a view itself nothing is left to ask")
        if isinstance(seen, tuple):
            return tuple(level.unsqueeze(1) for level in seen)
        return seen.unsqueeze(1)
