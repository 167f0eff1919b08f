"""What the model sees of a clip and what it has to imagine, as a picture that moves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from jepakit.errors import ConfigError
from jepakit.pictures.masks import columns, draw
from jepakit.pictures.panels import Layout
from jepakit.pictures.style import canvas
from jepakit.types import Grid, Mask

SUFFIXES = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}
"""What a picture that moves can be written as."""

DPI = 100
"""Dots an inch: it is looked at on a screen."""

MOST = 16
"""Frames, at most: of a longer clip so many, evenly spread."""

PAUSE, REST = 150, 900
"""Milliseconds from one frame to the next, and until it begins again."""


def strip(
    pictures: UInt8[Tensor, "B C T H W"] | Sequence[UInt8[Tensor, "B C T H W"]],
    masks: Sequence[Mask],
    grid: Grid,
    out: Path,
    caption: str = "",
) -> Path:
    """The sheet of masks, frame by frame: each row a clip, for each kind of mask its context and its target blocks.

    Arguments are those of ``masks.masks``. Raises ConfigError for a suffix that nothing which moves can be written as.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{out} is no name for a picture that moves: it ends in one of {', '.join(SUFFIXES)}")
    views = [pictures] if isinstance(pictures, Tensor) else list(pictures)
    layout = Layout(len(views[0]), columns(views, masks), 1, caption)
    width, height = layout.size
    images = []
    for number in numbers(views[0].shape[2]):
        with canvas(height, width, DPI) as figure:
            draw(figure, layout, views, masks, grid, [number])
            figure.canvas.draw()
            images.append(Image.fromarray(np.array(figure.canvas.buffer_rgba())).convert("RGB"))
    out.parent.mkdir(parents=True, exist_ok=True)
    pauses = [PAUSE] * (len(images) - 1) + [REST]
    kind = SUFFIXES[out.suffix.lower()]
    images[0].save(out, kind, save_all=True, append_images=images[1:], duration=pauses, loop=0)
    return out


def numbers(frames: int) -> list[int]:
    """The frames that are shown of a clip of so many."""
    shown = min(frames, MOST)
    return [i * frames // shown for i in range(shown)]
