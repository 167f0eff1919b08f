"""Recurrent refinement: one level, all pairs of its places, and the same small step again and again."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit_flow.correlation import everywhere, look, pyramid
from jepakit_flow.geometry import AnyFlow, Flow, positions, precise
from jepakit_flow.layers import still
from jepakit_flow.pwc import unit

HIDDEN, MOTION = 96, 80
"""Width of the state, and of what is known of the motion, at factor 1 (RAFT's small model)."""
VOLUMES = 4
"""Levels of the correlation (RAFT, section 3.2)."""


class Raft(nn.Module):
    """The estimator of RAFT (arXiv 2003.12039) in small: a gated unit of 3 x 3, and flows that are enlarged bilinearly.

    Args:
        widths: of the levels, finest first; the first is looked at.
        radius: of what is looked up around a place.
        factor: of the number of filters.
        steps: of refinement.
    """

    def __init__(self, widths: Sequence[int], radius: int = 4, factor: float = 1.0, steps: int = 6):
        super().__init__()
        self.radius, self.steps = radius, steps
        hidden, motion = (max(4, round(factor * each)) for each in (HIDDEN, MOTION))
        self.begin = nn.Conv2d(widths[0], 2 * hidden, 3, padding=1)
        self.motion = nn.Conv2d(VOLUMES * (2 * radius + 1) ** 2 + 2, motion, 3, padding=1)
        self.gates = nn.Conv2d(2 * hidden + motion + 2, 2 * hidden, 3, padding=1)
        self.change = nn.Conv2d(2 * hidden + motion + 2, hidden, 3, padding=1)
        self.last = nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(), still(hidden))

    def forward(
        self, one: Sequence[Float[Tensor, "B _ _ _"]], other: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[AnyFlow]:
        """The flow from one to the other in pixels of the level, after each step of refinement."""
        seen, there = one[0], other[0]
        volumes = pyramid(everywhere(unit(seen), unit(there)), VOLUMES)
        state, context = self.begin(seen).chunk(2, 1)
        state, context = state.tanh(), context.relu()
        flow = precise(seen).new_zeros(len(seen), 2, *seen.shape[2:])
        found = []
        for _ in range(self.steps):
            flow = flow.detach()  # each step answers for itself (RAFT, section 3.3)
            state = self.step(volumes, state, context, flow)
            flow = flow + precise(self.last(state))
            found.append(flow)
        return found

    def step(
        self,
        volumes: list[Float[Tensor, "N 1 _ _"]],
        state: Float[Tensor, "B S H W"],
        context: Float[Tensor, "B S H W"],
        flow: Flow,
    ) -> Float[Tensor, "B S H W"]:
        """The gated unit: what the state becomes by what is found where the flow points."""
        near = look(volumes, positions(flow), self.radius)
        missing = self.motion.in_channels - 2 - near.shape[1]  # of small maps there are fewer levels
        motion = self.motion(torch.cat([F.pad(near, [0, 0, 0, 0, 0, missing]), flow], 1)).relu()
        told = torch.cat([context, motion, flow], 1)
        keep, reset = self.gates(torch.cat([state, told], 1)).sigmoid().chunk(2, 1)
        change = self.change(torch.cat([reset * state, told], 1)).tanh()
        return (1 - keep) * state + keep * change
