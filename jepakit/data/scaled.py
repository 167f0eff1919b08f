"""Large photographs decoded at a part of their size: only as many pixels as the crops of the views will have.

A JPEG can be decoded at a half, a quarter or an eighth of its sides in a fraction of the time (jpeg.py). Boxes are
drawn for the full size, with the same draws, and cut where they lie in the smaller picture, to the nearest of its
pixels. What a view then shows is not quite what it would have shown: BENCHMARKS.md says by how much.
"""

from collections.abc import Sequence

import torch

from jepakit.data.jpeg import SCALES
from jepakit.data.views import RandomView, View, draw_box


class Enough:
    """Says for a picture of ``(height, width)`` what part of its sides leaves each view at least the pixels it shows.

    Args:
        views: of the sample.
        rngs: what each of them will be drawn from; they are left as they are.

    ``full`` is the size it was last asked about; None: nothing, since ``forget``.
    """

    def __init__(self, views: Sequence[View], rngs: Sequence[torch.Generator]):
        self._views, self._rngs = views, rngs
        self.full: tuple[int, int] | None = None

    def __call__(self, height: int, width: int) -> int:
        self.full = height, width
        return min(map(self._of, self._views, self._rngs))

    def forget(self) -> None:
        """Another picture comes."""
        self.full = None

    def _of(self, view: View, rng: torch.Generator) -> int:
        if not isinstance(view, RandomView) or self.full is None:
            return 1
        box = draw_box(*self.full, view.scale, view.ratio, rng.clone_state())
        return next((scale for scale in SCALES if min(box.height, box.width) >= scale * view.size), 1)
