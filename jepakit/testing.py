"""The five contracts as checks that anyone's component can be put to: ``check_masker(Checkerboard())``.

Each raises AssertionError that says what is broken, and returns nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepakit.protocols import AntiCollapse, Encoder, Masker, Predictor, Tokenizer
from jepakit.types import Features, Grid, Guess, Mask

IMAGE_GRIDS = (Grid(1, 14, 14), Grid(1, 16, 16), Grid(1, 9, 13))
CLIP_GRIDS = (Grid(8, 14, 14),)


def check_mask(mask: Mask, grid: Grid, batch: int, overlaps: bool = False) -> None:
    """Indices are whole numbers on the grid, no token twice; context and target are not empty, and disjoint."""
    sets: dict[str, Tensor] = {}
    for name, index, dims in (("context", mask.context, 2), ("target", mask.target, 3)):
        if index is None:
            continue
        assert index.dtype == torch.int64, f"{name} holds {index.dtype}, indices are int64"
        assert index.ndim == dims and index.shape[0] == batch, f"{name} is {tuple(index.shape)}, batch {batch}"
        assert index.numel(), f"{name} is empty"
        low, high = int(index.min()), int(index.max())
        assert low >= 0 and high < grid.size, f"{name} reaches from {low} to {high}, the grid has {grid.size} tokens"
        ordered = index.sort(-1).values
        assert (ordered[..., 1:] > ordered[..., :-1]).all(), f"{name} holds a token twice"
        sets[name] = torch.zeros(batch, grid.size, dtype=torch.bool).scatter_(1, index.flatten(1), True)
    if len(sets) == 2 and mask.context_view == mask.target_view and not overlaps:
        both = (sets["context"] & sets["target"]).sum()
        assert not both, f"context and target share {both} tokens, and the masker does not say overlaps = True"
    if mask.weight is not None:
        assert mask.target is not None and mask.weight.shape == mask.target.shape, "weight has not the target's shape"


def check_masker(masker: Masker, grids: Sequence[Grid] = IMAGE_GRIDS, batch: int = 5) -> None:
    """Pure: the same state of the generator gives the same masks; and each is a mask as ``check_mask`` has it."""
    for grid in grids:
        for seed in range(5):
            first, again = (masker(grid, batch, torch.Generator().manual_seed(seed)) for _ in range(2))
            assert isinstance(first, list) and first, "a masker returns a list of one mask or more"
            for one, other in zip(first, again, strict=True):
                check_mask(one, grid, batch, getattr(masker, "overlaps", False))
                same = (torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True))
                assert all(same), "the same generator state gave other masks"


def check_tokenizer(tokenizer: Tokenizer, shape: tuple[int, ...] = (3, 1, 32, 32)) -> None:
    """Tokens fill the grid; embedding some gives what embedding all gives at their places."""
    pixels = torch.randn(2, *shape)
    grid = tokenizer.grid(*shape[1:])
    tokens = tokenizer(pixels)
    assert tokens.shape[:2] == (2, grid.size), f"{tuple(tokens.shape)} tokens, the grid has {grid.size}"
    keep = torch.stack([torch.randperm(grid.size)[: max(1, grid.size // 3)] for _ in range(2)])
    kept = tokenizer(pixels, keep)
    for row in range(2):
        torch.testing.assert_close(kept[row], tokens[row, keep[row]])


def check_encoder(encoder: Encoder, tokens: Tensor | None = None, grid: Grid = Grid(1, 4, 4)) -> None:
    """Features have the promised width, finite values, and a gradient for every parameter."""
    tokens = torch.randn(2, grid.size, encoder.width) if tokens is None else tokens
    features = encoder(tokens, None, grid)
    for level in features if isinstance(features, tuple) else (features,):
        assert torch.isfinite(level).all(), "features are not finite"
    last = features[-1] if isinstance(features, tuple) else features
    assert last.shape[-1] == encoder.width, f"features are {last.shape[-1]} wide, width says {encoder.width}"
    check_gradients(encoder, _total(features))


def check_predictor(predictor: Predictor, seen: Features, grid: Grid = Grid(1, 4, 4), width: int | None = None) -> None:
    """A guess has a vector of the encoder's width for each asked token, and blocks do not see one another."""
    width = width or (seen[-1] if isinstance(seen, tuple) else seen).shape[-1]
    kept, asked = torch.arange(4).expand(2, 4), torch.arange(4, 10).view(1, 2, 3).expand(2, 2, 3)
    seen = seen[:, :4] if isinstance(seen, Tensor) else seen
    guess = predictor(seen, Mask(kept, asked), grid)
    found = guess.features if isinstance(guess, Guess) else guess
    assert isinstance(found, tuple) or found.shape == (2, 2, 3, width), f"the guess is {tuple(found.shape)}"
    alone = predictor(seen, Mask(kept, asked[:, 1:]), grid)
    alone = alone.features if isinstance(alone, Guess) else alone
    if isinstance(found, Tensor):
        torch.testing.assert_close(found[:, 1:], alone, msg="a target block's guess depends on the other blocks")
    if isinstance(predictor, nn.Module):
        check_gradients(predictor, _total(found))


def check_anti_collapse(strategy: AntiCollapse, backbone: nn.Module, view: Tensor) -> None:
    """Prepared, asked, and told of a step, it answers features or None and forbids in scalars."""
    strategy.prepare(backbone, 10)
    truth = strategy.targets(backbone, view)
    seen = backbone(view)
    for name, loss in strategy.penalty(seen, seen, seen if truth is None else truth).items():
        assert loss.ndim == 0 and torch.isfinite(loss), f"penalty {name!r} is no finite scalar"
    strategy.after_step(backbone, 0)
    again = strategy.targets(backbone, view)
    assert (truth is None) == (again is None), "it answers only now and then"


def check_gradients(module: nn.Module, loss: Tensor) -> None:
    """Every trained parameter has a finite gradient."""
    loss.backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"


def _total(features: Features) -> Tensor:
    levels = features if isinstance(features, tuple) else (features,)
    return torch.stack([level.double().pow(2).sum() for level in levels]).sum()
