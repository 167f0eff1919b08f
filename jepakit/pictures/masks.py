"""What the model sees and what it has to imagine."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from matplotlib.axes import Axes
from torch import Tensor

from jepakit.pictures.panels import SMOOTH, TINT, Layout, blend, cells, frame, outline, slices, spread_out, veil
from jepakit.pictures.style import colour, sheet
from jepakit.types import Grid, Mask


def masks(
    pictures: UInt8[Tensor, "B C T H W"] | Sequence[UInt8[Tensor, "B C T H W"]],
    masks: Sequence[Mask],
    grid: Grid,
    out: Path,
    caption: str = "",
) -> Path:
    """A sheet: each row a picture, and for each mask its context (the rest greyed) and its target blocks (tinted).

    Args:
        pictures: one view of each sample, or one batch for each view that the masks name.
        grid: of the tokens, the same for every view; of a clip the first, middle and last time slice are shown.
        caption: a line below.
    """
    views = [pictures] if isinstance(pictures, Tensor) else list(pictures)
    heads = ["picture"] if len(views) == 1 else []
    for number, _ in enumerate(masks):
        which = f" {number + 1}" if len(masks) > 1 else ""
        heads += [f"context{which}", f"targets{which}"]
    layout = Layout(len(views[0]), heads, len(slices(grid)), caption)
    width, height = layout.size
    with sheet(height, out, width) as figure:
        for row, axes in enumerate(layout.axes(figure)):
            if len(views) == 1:
                _picture(axes.pop(0), views[0][row], grid)
            for number, mask in enumerate(masks):
                _context(axes[2 * number], views[mask.context_view][row], mask, row, grid)
                view = mask.target_view if isinstance(mask.target_view, int) else mask.target_view[0]
                _targets(axes[2 * number + 1], views[view][row], mask, row, grid)
    return out


def _picture(axes: list[Axes], picture: Tensor, grid: Grid) -> None:
    for axis, piece in zip(axes, slices(grid), strict=True):
        axis.imshow(frame(picture, piece, grid), interpolation=SMOOTH)


def _context(axes: list[Axes], picture: Tensor, mask: Mask, row: int, grid: Grid) -> None:
    meant = cells(None if mask.context is None else mask.context[row], grid)
    for axis, piece in zip(axes, slices(grid), strict=True):
        image = frame(picture, piece, grid)
        axis.imshow(veil(image, ~spread_out(meant[piece], image)), interpolation=SMOOTH)


def _targets(axes: list[Axes], picture: Tensor, mask: Mask, row: int, grid: Grid) -> None:
    blocks = [cells(block, grid) for block in ([None] if mask.target is None else mask.target[row])]
    for axis, piece in zip(axes, slices(grid), strict=True):
        bright = image = frame(picture, piece, grid)
        rest = ~spread_out(sum(block[piece] for block in blocks) > 0, image)
        image = veil(image, rest)
        for number, block in enumerate(blocks):
            image = blend(image, spread_out(block[piece], bright), TINT, colour(number))
            outline(axis, block[piece], bright, colour(number))
        axis.imshow(image, interpolation=SMOOTH)
