"""A predictor whose latent variable is the flow: what was seen, moved to where it is in the next frame."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.protocols import Backbone
from jepakit.types import Evidence, Features, Grid, Guess, Mask
from jepakit_flow.geometry import AnyFlow, precise, resize, warp
from jepakit_flow.objective import Objective
from jepakit_flow.pwc import Pwc
from jepakit_flow.raft import Raft

STRIDE = 32
"""Pixels along a side of the coarsest maps of most hierarchical encoders: sides of pictures are made multiples of it
where the grid of tokens says nothing of them."""


class FlowPredictor(nn.Module):
    """Infers the flow between two frames from their pyramids, both ways, and guesses the features of the second one by
    warping those of the first (MC-JEPA, section 3).

    Of a pyramid each level is warped by the flow that was found at it, else by the last one. A pooled vector is a map
    of one place, and stays what it is.

    Args:
        estimator: ``pwc``, coarse to fine (MC-JEPA's), or ``raft``, refined again and again at one level.
        levels: those that ``pwc`` looks at, from 0, finest first; null: all. Of ``raft`` the first of them is the one.
        radius: of the correlations.
        factor: of the estimator's filters (MC-JEPA has 2).
        steps: of ``raft``'s refinement.
        l1, l2, ssim, census: weights of the pictures' differences.
        smooth, edge, order: see ``Objective``.
        cycle: weight of coming home after going there and back.
        decay: what the losses of a flow weigh over those of the next finer one.
        occlusion: whether pictures are not compared where going there and back does not lead home.

    Raises:
        ValueError: for levels that there are not; and at the call for a mask that chooses tokens, for features that are
            no maps of the picture, and for answers of another form.
    """

    whole = infers = True
    tiny = {"radius": 1, "factor": 0.1}

    def __init__(
        self,
        encoder_widths: tuple[int, ...],
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        view_shape: tuple[int, ...] | None = None,
        grid: Grid | None = None,
        estimator: Literal["pwc", "raft"] = "pwc",
        levels: tuple[int, ...] | None = None,
        radius: int = 4,
        factor: float = 2.0,
        steps: int = 6,
        l1: float = 0.15,
        l2: float = 0.0,
        ssim: float = 0.85,
        census: float = 0.0,
        smooth: float = 0.01,
        edge: float = 10.0,
        order: Literal[1, 2] = 1,
        cycle: float = 0.0,
        decay: float = 0.8,
        occlusion: bool = True,
    ):
        super().__init__()
        self.count = len(encoder_widths)
        self.looked_at = _chosen(levels, len(encoder_widths))
        self.stride = view_shape[2] // grid.h if view_shape and grid and grid.h > 1 else STRIDE
        widths = [encoder_widths[level] for level in self.looked_at]
        self.estimator: Pwc | Raft = (
            Pwc(widths, radius, factor) if estimator == "pwc" else Raft(widths[:1], radius, factor, steps=steps)
        )
        weights = {"l1": l1, "l2": l2, "ssim": ssim, "census": census, "smooth": smooth, "cycle": cycle}
        self.objective = Objective(weights, edge, order, decay, occlusion)
        self.register_buffer("mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Evidence | None = None) -> Guess:
        if mask.context is not None or mask.target is not None:
            raise ValueError("flow is found between whole frames: the masker must ask from whole view to whole view")
        if not isinstance(condition, Evidence):
            raise ValueError("flow is inferred from both frames: it needs a masker that asks about one view (as next)")
        here, there = _listed(seen), [level.squeeze(1) for level in _listed(condition.truth)]
        if len(here) != self.count:
            raise ValueError(f"features have {len(here)} levels, its encoder was to have {self.count}")
        if [level.shape for level in here] != [level.shape for level in there]:
            raise ValueError("flow moves features of one frame to another: answers must be of the form of what is seen")
        first, second = self.pixels(condition.seen), self.pixels(condition.target)
        size = tuple(first.shape[2:])
        one, other = ([shaped(level, size) for level in levels] for levels in (here, there))
        forward, backward = self.both(one, other)
        losses = self.objective(forward, backward, first, second)
        moved = [warp(level, flow) for level, flow in zip(one, self.spread(backward, one), strict=True)]
        guess = tuple(level.flatten(2).transpose(1, 2).unsqueeze(1) for level in moved)
        return Guess(guess if isinstance(seen, tuple) else guess[0], losses)

    def both(self, one: list[Tensor], other: list[Tensor]) -> tuple[list[AnyFlow], list[AnyFlow]]:
        """Flows from one to the other and back, coarse to fine."""
        there, back = ([pair[i] for i in self.looked_at] for pair in (one, other))
        flows = self.estimator(
            [torch.cat(pair) for pair in zip(there, back, strict=True)],
            [torch.cat(pair) for pair in zip(back, there, strict=True)],
        )
        count = len(one[0])
        return [flow[:count] for flow in flows], [flow[count:] for flow in flows]

    def spread(self, flows: list[AnyFlow], maps: list[Tensor]) -> list[AnyFlow]:
        """The flow that each level is warped by."""
        own = dict(zip(self.looked_at, reversed(flows), strict=True)) if isinstance(self.estimator, Pwc) else {}
        return [resize(own.get(level, flows[-1]), tuple(each.shape[2:])) for level, each in enumerate(maps)]

    def pixels(self, view: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C H W"]:
        """A frame in 0..1."""
        if view.shape[2] != 1:
            raise ValueError(f"flow is found between two frames, each a view; a view has {view.shape[2]} frames")
        return precise(view[:, :, 0]) * self.std + self.mean

    @torch.no_grad()
    def flow(
        self, backbone: Backbone, first: Float[Tensor, "B C 1 H W"], second: Float[Tensor, "B C 1 H W"]
    ) -> Float[Tensor, "B 2 H W"]:
        """How far every pixel of the first goes to the right and down until the second, in pixels. Pictures of any size
        are enlarged until the encoder's coarsest map fits them."""
        size = tuple(first.shape[3:])
        fitting = tuple(-(-side // self.stride) * self.stride for side in size)
        maps = []
        for view in (first, second):
            frame = nn.functional.interpolate(view[:, :, 0], fitting, mode="bilinear", align_corners=False)
            maps.append([shaped(level, fitting) for level in _listed(backbone(frame[:, :, None]))])
        forward, _ = self.both(*maps)
        return resize(forward[-1], size)


def shaped(level: Float[Tensor, "B N D"], size: tuple[int, int]) -> Float[Tensor, "B D h w"]:
    """Tokens row by row as a map of a picture of this size. Raises ValueError where they are none."""
    count, (height, width) = level.shape[1], size
    rows = max(1, round((count * height / width) ** 0.5))
    if count % rows:
        raise ValueError(f"flow needs maps: {count} features are no map of a picture of {height} x {width} pixels")
    return level.transpose(1, 2).unflatten(2, (rows, count // rows))


def _listed(features: Features) -> list[Tensor]:
    return list(features) if isinstance(features, tuple) else [features]


def _chosen(levels: tuple[int, ...] | None, count: int) -> list[int]:
    if levels is None:
        return list(range(count))
    if not levels or list(levels) != sorted(set(levels)) or not 0 <= levels[0] <= levels[-1] < count:
        raise ValueError(f"levels={list(levels)}: the encoder's levels go from 0, the finest, to {count - 1}")
    return list(levels)
