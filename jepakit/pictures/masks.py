"""What the model sees and what it has to imagine."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from jepakit.pictures.panels import (
    SMOOTH,
    TINT,
    Layout,
    blend,
    cells,
    first_frame,
    frame,
    outline,
    slices,
    spread_out,
    time_slice,
    veil,
)
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
    numbers = [first_frame(piece, views[0].shape[2], grid) for piece in slices(grid)]
    layout = Layout(len(views[0]), columns(views, masks), len(numbers), caption)
    width, height = layout.size
    with sheet(height, out, width) as figure:
        draw(figure, layout, views, masks, grid, numbers)
    return out


def columns(views: Sequence[Tensor], masks: Sequence[Mask]) -> list[str]:
    """What stands above the columns of a sheet."""
    heads = ["picture" if views[0].shape[2] == 1 else "clip"] if len(views) == 1 else []
    for number, _ in enumerate(masks):
        which = f" {number + 1}" if len(masks) > 1 else ""
        heads += [f"context{which}", f"targets{which}"]
    return heads


def draw(
    figure: Figure,
    layout: Layout,
    views: Sequence[UInt8[Tensor, "B C T H W"]],
    masks: Sequence[Mask],
    grid: Grid,
    numbers: Sequence[int],
) -> None:
    """Fill a sheet with these frames of the clips, side by side."""
    for row, axes in enumerate(layout.axes(figure)):
        if len(views) == 1:
            _picture(axes.pop(0), views[0][row], numbers)
        for number, mask in enumerate(masks):
            _context(axes[2 * number], views[mask.context_view][row], mask, row, grid, numbers)
            view = mask.target_views[0]
            _targets(axes[2 * number + 1], views[view][row], mask, row, grid, numbers)


def _picture(axes: list[Axes], picture: Tensor, numbers: Sequence[int]) -> None:
    for axis, number in zip(axes, numbers, strict=True):
        axis.imshow(frame(picture, number), interpolation=SMOOTH)


def _context(axes: list[Axes], picture: Tensor, mask: Mask, row: int, grid: Grid, numbers: Sequence[int]) -> None:
    meant = cells(None if mask.context is None else mask.context[row], grid)
    for axis, number in zip(axes, numbers, strict=True):
        image, piece = frame(picture, number), time_slice(number, picture.shape[1], grid)
        axis.imshow(veil(image, ~spread_out(meant[piece], image)), interpolation=SMOOTH)


def _targets(axes: list[Axes], picture: Tensor, mask: Mask, row: int, grid: Grid, numbers: Sequence[int]) -> None:
    blocks = [cells(block, grid) for block in ([None] if mask.imagined is None else mask.imagined[row])]
    for axis, number in zip(axes, numbers, strict=True):
        bright = image = frame(picture, number)
        piece = time_slice(number, picture.shape[1], grid)
        rest = ~spread_out(sum(block[piece] for block in blocks) > 0, image)
        image = veil(image, rest)
        for which, block in enumerate(blocks):
            image = blend(image, spread_out(block[piece], bright), TINT, colour(which))
            outline(axis, block[piece], bright, colour(which))
        axis.imshow(image, interpolation=SMOOTH)
