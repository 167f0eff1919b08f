"""The five contracts as checks that anyone's component can be put to: ``check_masker(Checkerboard())``.

Each raises AssertionError that says what is broken, and returns nothing.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from jepakit.protocols import AntiCollapse, Backbone, Encoder, Masker, Predictor, Source, Tokenizer
from jepakit.types import Evidence, Features, Grid, Guess, Mask, take

IMAGE_GRIDS = (Grid(1, 14, 14), Grid(1, 16, 16), Grid(1, 9, 13))
CLIP_GRIDS = (Grid(8, 14, 14),)
SMALL = Grid(1, 4, 4)


def check_mask(mask: Mask, grid: Grid, batch: int, overlaps: bool = False) -> None:
    """Indices are whole numbers on the grid, no token twice; context and target are not empty, and disjoint. What is
    recalled is the context once more."""
    _check_recall(mask)
    sets: dict[str, Tensor] = {}
    for name, index, dims in (("context", mask.context, 2), ("target", mask.imagined, 3)):
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
    if mask.context_view == mask.target_view and not overlaps:
        assert len(sets) == 2, "context or target is the whole view, and the masker does not say overlaps = True"
        both = (sets["context"] & sets["target"]).sum()
        assert not both, f"context and target share {both} tokens, and the masker does not say overlaps = True"
    if mask.weight is not None:
        assert mask.target is not None and mask.weight.shape == mask.target.shape, "weight has not the target's shape"


def _check_recall(mask: Mask) -> None:
    """The last tokens of each block, as many as are recalled, are all of the context, in its order."""
    if not mask.recall:
        return
    assert mask.context is not None and mask.target is not None, "what is recalled is named by context and target"
    assert mask.context_view == mask.target_view, "what is recalled lies in another view than the context"
    assert mask.recall == mask.context.shape[-1], (
        f"{mask.recall} tokens are recalled, the context has {mask.context.shape[-1]}"
    )
    recalled = mask.target[..., -mask.recall :]
    expected = mask.context.unsqueeze(1).expand(-1, mask.target.shape[1], -1)
    assert torch.equal(recalled, expected), "the last tokens of a target block are not those of the context"


def check_masker(masker: Masker, grids: Sequence[Grid] = IMAGE_GRIDS, batch: int = 5) -> None:
    """Pure: the same state of the generator gives the same masks; and each is a mask as ``check_mask`` has it."""
    for grid in grids:
        for seed in range(5):
            first, again = (masker(grid, batch, torch.Generator().manual_seed(seed)) for _ in range(2))
            assert isinstance(first, list) and first, "a masker returns a list of one mask or more"
            assert len(first) == len(again), f"the same generator state gave {len(first)} masks, then {len(again)}"
            for one, other in zip(first, again, strict=True):
                check_mask(one, grid, batch, getattr(masker, "overlaps", False))
                same = (_equal(a, b) for a, b in zip(one, other, strict=True))
                assert all(same), "the same generator state gave other masks"


def check_tokenizer(tokenizer: Tokenizer, shape: tuple[int, ...] = (3, 1, 32, 32)) -> None:
    """Tokens fill the grid; embedding some gives what embedding all gives at their places."""
    with _still(tokenizer):
        pixels = torch.randn(2, *shape)
        grid = tokenizer.grid(*shape[1:])
        tokens = tokenizer(pixels)
        assert tokens.shape[:2] == (2, grid.size), f"{tuple(tokens.shape)} tokens, the grid has {grid.size}"
        keep = torch.stack([torch.randperm(grid.size)[: max(1, grid.size // 3)] for _ in range(2)])
        kept = tokenizer(pixels, keep)
        for row in range(2):
            _same(kept[row], tokens[row, keep[row]], "a kept token differs from what it is among all tokens")


def check_encoder(encoder: Encoder, tokens: Tensor | None = None, grid: Grid = SMALL) -> None:
    """Features have the promised width and finite values, so has what comes before an expander; no index means all
    tokens in order; one that ``picks`` gives of some tokens what it gives of them among all; every parameter has a
    gradient. ``tokens`` are what the encoder eats, if neither vectors of its own width nor of the form of its
    ``example``."""
    with _still(encoder):
        if tokens is None:
            grid, shape = getattr(encoder, "example", (grid, (encoder.width,)))
            tokens = torch.randn(2, grid.size, *shape)
        features = encoder(tokens, None, grid)
        for level in _levels(features):
            assert torch.isfinite(level).all(), "features are not finite"
        width = _levels(features)[-1].shape[-1]
        assert width == encoder.width, f"features are {width} wide, width says {encoder.width}"
        listed = encoder(tokens, torch.arange(tokens.shape[1]).expand(len(tokens), -1), grid)
        for level, again in zip(_levels(features), _levels(listed), strict=True):
            _same(again, level, "naming all tokens in order gives other features than naming none")
        if getattr(encoder, "picks", False):
            asked = torch.tensor([[2, 0, 2], [1, 1, 3]]).repeat(len(tokens) // 2 + 1, 1)[: len(tokens)]
            for level, some in zip(_levels(features), _levels(encoder(tokens, None, grid, *[asked])), strict=True):
                _same(some, take(level, asked), "asked for some tokens it gives other features of them")
        if hasattr(encoder, "represent"):
            represent, promised = (getattr(encoder, name) for name in ("represent", "representation_width"))
            before = _levels(represent(tokens, None, grid))[-1]
            assert torch.isfinite(before).all(), "the representation is not finite"
            assert before.shape[-1] == promised, f"it is {before.shape[-1]} wide, representation_width says {promised}"
    if isinstance(encoder, nn.Module):
        check_gradients(encoder, _total(features))


def check_predictor(predictor: Predictor, seen: Features, grid: Grid = SMALL, width: int | None = None) -> None:
    """A guess has a vector of the encoder's width for each asked token, and blocks do not see one another.

    A predictor that says ``recalls = True`` is asked for the context as well, one that says ``whole = True`` from whole
    view to whole view; one that says ``infers = True`` is told of other features and of pixels.
    """
    width = width or _levels(seen)[-1].shape[-1]
    if getattr(predictor, "whole", False):
        _check_whole(predictor, seen, grid, width)
        return
    kept, asked = torch.arange(4).expand(2, 4), torch.arange(4, 10).view(1, 2, 3).expand(2, 2, 3)
    recall = 4 if getattr(predictor, "recalls", False) else 0
    if recall:
        asked = torch.cat([asked, kept[:, None].expand(2, 2, 4)], dim=2)
    seen = seen[:, :4] if isinstance(seen, Tensor) else seen
    with _still(predictor):
        found = _features(predictor(seen, Mask(kept, asked, recall=recall), grid))
        expected = (*asked.shape, width)
        assert isinstance(found, tuple) or found.shape == expected, f"the guess is {tuple(found.shape)}"
        alone = _features(predictor(seen, Mask(kept, asked[:, 1:], recall=recall), grid))
        for level, other in zip(_levels(found), _levels(alone), strict=True):
            assert torch.isfinite(level).all(), "the guess is not finite"
            _same(level[:, -other.shape[1] :], other, "a target block's guess depends on the other blocks")
    if isinstance(predictor, nn.Module):
        check_gradients(predictor, _total(found))


def _check_whole(predictor: Predictor, seen: Features, grid: Grid, width: int) -> None:
    told = _evidence(seen, grid) if getattr(predictor, "infers", False) else None
    with _still(predictor):
        outcome = predictor(seen, Mask(None, None, 0, 1), grid, told)
    found, losses = _features(outcome), outcome.losses if isinstance(outcome, Guess) else {}
    assert all(loss.ndim == 0 for loss in losses.values()), "an extra loss is no scalar"
    for level in _levels(found):
        assert level.ndim == 4 and torch.isfinite(level).all(), "the guess is not finite, or not B M Q D"
    assert _levels(found)[-1].shape[-1] == width, f"the guess is {_levels(found)[-1].shape[-1]} wide, not {width}"
    if isinstance(predictor, nn.Module) and any(p.requires_grad for p in predictor.parameters()):
        check_gradients(predictor, torch.stack([_total(found), *losses.values()]).sum())


def _evidence(seen: Features, grid: Grid) -> Evidence:
    """What a latent may be inferred from: the features of other samples, and noise as the pixels of both views."""
    truth = tuple(level.flip(0).unsqueeze(1) for level in _levels(seen))
    pixels = torch.randn(2, len(truth[0]), 3, 1, 8 * grid.h, 8 * grid.w)
    return Evidence(truth if isinstance(seen, tuple) else truth[0], *pixels)


def check_anti_collapse(strategy: AntiCollapse, backbone: Backbone, view: Tensor) -> None:
    """Prepared, asked, and told of a step, it answers features or None and forbids in scalars, each a mean over samples
    unless it says ``statistics``; what it has learned from the step is in its ``state_dict``."""
    strategy, backbone = copy.deepcopy(strategy), copy.deepcopy(backbone)
    strategy.prepare(backbone, 10)
    before, begun = _asked(strategy, backbone, view), copy.deepcopy(strategy)
    if isinstance(backbone, nn.Module):
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.add_(0.1)
    strategy.after_step(backbone, 0)
    after = _asked(strategy, backbone, view)
    assert bool(before[0]) == bool(after[0]), "it answers only now and then"
    if isinstance(strategy, nn.Module) and isinstance(begun, nn.Module):
        begun.load_state_dict(strategy.state_dict())
        for one, other in zip(after, _asked(begun, backbone, view), strict=True):
            for name in one:
                _same(other[name], one[name], "what it keeps from step to step is not all in its state_dict")


def _asked(strategy: AntiCollapse, backbone: Backbone, view: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Its answer, level by level, and its penalties, held to be finite scalars."""
    with _still(backbone):
        truth, seen = strategy.targets(backbone, view), backbone(view)
        penalties = strategy.penalty(seen, seen, seen if truth is None else truth)
    for name, loss in penalties.items():
        assert loss.ndim == 0 and torch.isfinite(loss), f"penalty {name!r} is no finite scalar"
    if not getattr(strategy, "statistics", False):
        _check_mean(strategy, seen, seen if truth is None else truth)
    return {} if truth is None else {str(i): level for i, level in enumerate(_levels(truth))}, penalties


def _check_mean(strategy: AntiCollapse, seen: Features, truth: Features) -> None:
    """What is forbidden to a batch is the mean of what is forbidden to its halves: nothing depends on its company."""
    count = _levels(seen)[0].shape[0] // 2

    def part(x: Features, start: int, stop: int) -> Features:
        return tuple(each[start:stop] for each in x) if isinstance(x, tuple) else x[start:stop]

    def penalty(start: int, stop: int) -> dict[str, Tensor]:
        some, true = part(seen, start, stop), part(truth, start, stop)
        return strategy.penalty(some, some, true)

    if count:
        whole, one, other = penalty(0, 2 * count), penalty(0, count), penalty(count, 2 * count)
        for name, loss in whole.items():
            why = f"penalty {name!r} depends on which samples share a batch: say statistics = True"
            _same((one[name] + other[name]) / 2, loss, why)


def check_source(source: Source, index: int = 0) -> None:
    """A sample is a uint8 picture ``C T H W`` and labels, the same ones each time; labels with classes are in range."""
    assert len(source) > index, f"it has {len(source)} samples"
    (picture, labels), (again, others) = source[index], source[index]
    assert picture.dtype == torch.uint8 and picture.ndim == 4, f"a picture is {picture.dtype} {tuple(picture.shape)}"
    assert torch.equal(picture, again) and labels == others, f"sample {index} differs from one time to the next"
    assert isinstance(source.describe(index), str), "describe() gives no text"
    for name, names in source.classes.items():
        assert 0 <= labels[name] < len(names), f"label {name!r} is {labels[name]}, there are {len(names)} classes"


def check_gradients(module: nn.Module, loss: Tensor) -> None:
    """Every trained parameter has a finite gradient."""
    loss.backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"


def _equal(a: object, b: object) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b


def _same(found: Tensor, expected: Tensor, otherwise: str) -> None:
    torch.testing.assert_close(found, expected, msg=lambda how: f"{otherwise}: {' '.join(how.split())}")


def _levels(features: Features) -> tuple[Tensor, ...]:
    return features if isinstance(features, tuple) else (features,)


def _features(outcome: Features | Guess) -> Features:
    return outcome.features if isinstance(outcome, Guess) else outcome


def _total(features: Features) -> Tensor:
    return torch.stack([level.double().pow(2).sum() for level in _levels(features)]).sum()


@contextlib.contextmanager
def _still(component: object) -> Iterator[None]:
    """Evaluation mode and a fixed seed, both put back: dropout would make any two calls differ."""
    modes = [(m, m.training) for m in component.modules()] if isinstance(component, nn.Module) else []
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for module, _ in modes:
                module.training = False
            yield
    finally:
        for module, mode in modes:
            module.training = mode
