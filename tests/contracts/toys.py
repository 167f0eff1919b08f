"""The family's ideas at their smallest, enough to see that the contracts carry them. Also a plugin, by its file."""

import copy
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepakit import hookimpl
from jepakit.types import Features, Grid, Guess, Mask, take

PLACES = 1024


class Whole(nn.Module):
    """The picture itself is the one token (VICReg, LeJEPA, MC-JEPA)."""

    def grid(self, t: int, h: int, w: int) -> Grid:
        return Grid(1, 1, 1)

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        return take(pixels.unsqueeze(1), keep)


class AnyGridEncoder(nn.Module):
    """Learned positions for any grid, and every token sees the mean of all: what a ViT is for this purpose."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.width = width
        self.places = nn.Embedding(PLACES, width)
        self.mix, self.own = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, index: Tensor | None, grid: Grid) -> Tensor:
        index = torch.arange(grid.size, device=tokens.device) if index is None else index
        x = tokens + self.places(index)
        return self.own(torch.tanh(x)) + self.mix(x.mean(1, keepdim=True))


class PooledEncoder(nn.Module):
    """Any picture becomes one vector, followed by an expander."""

    def __init__(self, channels: int = 3, width: int = 16):
        super().__init__()
        self.width, self.calls = width, 0
        self.stem = nn.Conv2d(channels, width, 3, 2)
        self.expander = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor, index: Tensor | None, grid: Grid) -> Tensor:
        self.calls += 1
        frames = tokens.flatten(0, 1).mean(2)  # B C H W
        return self.expander(self.stem(frames).relu().mean((-2, -1))).unsqueeze(1)  # B 1 D


class PyramidEncoder(nn.Module):
    """Three levels of every frame, the finest being the pixels: ``B (T H W) D`` each."""

    def __init__(self, channels: int = 3, width: int = 8):
        super().__init__()
        self.width = width
        self.fine, self.coarse = nn.Conv2d(channels, width, 2, 2), nn.Conv2d(width, width, 2, 2)

    def forward(self, tokens: Tensor, index: Tensor | None, grid: Grid) -> tuple[Tensor, ...]:
        batch, _, _, frames = tokens.shape[:4]
        pixels = tokens[:, 0].transpose(1, 2).flatten(0, 1)  # (B T) C H W
        half = self.fine(pixels).relu()
        levels = (pixels, half, self.coarse(half))
        return tuple(x.flatten(2).mT.unflatten(0, (batch, frames)).flatten(1, 2) for x in levels)


class KindPredictor(nn.Module):
    """A mask token for each kind of mask, and places on any grid (V-JEPA)."""

    def __init__(self, encoder_width: int, kinds: int = 2):
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(kinds, encoder_width))
        self.places = nn.Embedding(PLACES, encoder_width)
        self.out = nn.Linear(2 * encoder_width, encoder_width)

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Tensor:
        asked = self.mask_token[mask.kind] + self.places(mask.target)  # B M Q D
        return self.out(torch.cat([asked, seen.mean(1)[:, None, None].expand_as(asked)], -1))


class SamePredictor(nn.Module):
    """The guess is what was seen (VICReg)."""

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Tensor:
        return seen.unsqueeze(1)


class ActionPredictor(nn.Module):
    """What was seen, moved by an action: the condition."""

    conditioned = True

    def __init__(self, encoder_width: int, actions: int = 2):
        super().__init__()
        self.move = nn.Linear(actions, encoder_width)

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Tensor:
        return (seen + self.move(condition).unsqueeze(1)).unsqueeze(1)


class FlowPredictor(nn.Module):
    """Infers from a pair of frames how the first becomes the second, and says at what cost (MC-JEPA's motion)."""

    def __init__(self, encoder_width: int):
        super().__init__()
        self.flow = nn.Linear(2 * encoder_width, 1)

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Guess:
        first, second = ([level.unflatten(1, (2, -1))[:, i] for level in seen] for i in range(2))
        amount = self.flow(torch.cat([first[-1], second[-1]], -1)).mean(1, keepdim=True)  # B 1 1
        warped = tuple((a + amount * (b - a)).unsqueeze(1) for a, b in zip(first, second, strict=True))  # B 1 N D
        return Guess(warped, {"smooth": amount.diff(dim=0).pow(2).mean(), "cycle": (1 - amount).pow(2).mean()})


class Guard(nn.Module):
    """Variance and covariance of what was seen; leaves the answer to another (C-JEPA)."""

    statistics = True

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def prepare(self, backbone: Any, steps: int) -> None:
        """Nothing to prepare."""

    def targets(self, backbone: Any, view: Tensor) -> Features | None:
        return None

    def penalty(self, seen: Features, guess: Features, truth: Features) -> dict[str, Tensor]:
        x = (seen[-1] if isinstance(seen, tuple) else seen).flatten(0, 1)
        x = x - x.mean(0)
        covariance = x.T @ x / len(x)
        off = covariance - covariance.diag().diag()
        spread = (covariance.diag() + 1e-4).sqrt()
        return {"variance": self.weight * (1 - spread).relu().mean(), "covariance": self.weight * off.pow(2).mean()}

    def after_step(self, backbone: Any, step: int) -> None:
        """Nothing moves slowly."""


class Own(Guard):
    """The backbone answers for itself, gradients included (VICReg, LeJEPA)."""

    def targets(self, backbone: Any, view: Tensor) -> Features | None:
        return backbone(view)


class Still(Guard):
    """A teacher that never moves."""

    def prepare(self, backbone: Any, steps: int) -> None:
        self.teacher = copy.deepcopy(backbone).requires_grad_(False)

    @torch.no_grad()
    def targets(self, backbone: Any, view: Tensor) -> Features | None:
        return self.teacher(view)


class TwoTubes:
    """Two kinds of mask for each clip, full depth, each with a context of its own (V-JEPA)."""

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        if grid.t < 2:
            raise ValueError(f"tubes need more than one frame of tokens, the grid is {grid.t} x {grid.h} x {grid.w}")
        return [self.mask(grid, batch_size, rng, kind, hidden) for kind, hidden in enumerate((2, grid.h * grid.w // 2))]

    def mask(self, grid: Grid, batch_size: int, rng: Generator, kind: int, hidden: int) -> Mask:
        order = torch.rand(batch_size, grid.h * grid.w, generator=rng).argsort(1)
        depth = torch.arange(grid.t)[:, None] * (grid.h * grid.w)

        def tube(places: Tensor) -> Tensor:
            return (places.sort(1).values[:, None] + depth).flatten(1)

        return Mask(tube(order[:, hidden:]), tube(order[:, :hidden]).unsqueeze(1), kind=kind)


class Halves:
    """The first half of any grid is seen, the other is asked for, as one block."""

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        index = torch.arange(grid.size).expand(batch_size, -1)
        return [Mask(index[:, : grid.size // 2], index[:, None, grid.size // 2 :])]


class Pair:
    """From each of two views to the other."""

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        return [Mask(None, None, 0, 1), Mask(None, None, 1, 0)]


class Overlapping(Halves):
    """Breaks the contract: it asks for what is seen, and does not say so."""

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        (mask,) = super().__call__(grid, batch_size, rng)
        return [mask._replace(target=mask.context.unsqueeze(1))]


class Moody(Halves):
    """Finds no room once in a while."""

    def __call__(self, grid: Grid, batch_size: int, rng: Generator) -> list[Mask]:
        if torch.rand(1, generator=rng).item() < 0.2:
            raise ValueError("no room today")
        return super().__call__(grid, batch_size, rng)


class Flat(SamePredictor):
    """Breaks the contract: a guess without blocks."""

    def forward(self, seen: Features, mask: Mask, grid: Grid, condition: Any = None) -> Tensor:
        return seen


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.tokenizer("uncut", Whole)
    for name, encoder in (("any_grid", AnyGridEncoder), ("pooled", PooledEncoder), ("pyramid", PyramidEncoder)):
        registrar.encoder(name, encoder)
    for name, predictor in (("kinds", KindPredictor), ("same", SamePredictor), ("flat", Flat)):
        registrar.predictor(name, predictor)
    for name, strategy in (("guard", Guard), ("own", Own), ("still", Still)):
        registrar.anti_collapse(name, strategy)
    for name, masker in (("two_tubes", TwoTubes), ("halves", Halves), ("couple", Pair), ("moody", Moody)):
        registrar.masker(name, masker)
    registrar.masker("overlapping", Overlapping)
