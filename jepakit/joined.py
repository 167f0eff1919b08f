"""Statistics over the samples of a step, of which no more than a micro-batch fits into memory at a time.

A loss that is a statistic of the batch is not the mean of those of its micro-batches. So features are computed twice:
once to put those of all micro-batches together, which gives the loss of the whole batch and its gradient at each
feature, and once more, a micro-batch at a time, to carry these gradients on to the parameters (Gao et al., arXiv
2101.06983). Loss and gradients are those of the whole batch, at the price of a second forward pass; what is kept in
memory beside a micro-batch is the features alone. What normalises by the batch inside of the model (batch norm) still
sees a micro-batch.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from jepakit.types import Features, Losses, Outcome, by_level

Imagine = Callable[[int, Sequence[Features] | None], list[Outcome]]
"""Micro-batch, and the truth of each question where it is known -> what came of each question, always the same."""
Judge = Callable[[list[Outcome]], Losses]
"""What came of each question, of all samples of a step -> losses."""


def losses(
    model: nn.Module,
    imagine: Imagine,
    judge: Judge,
    count: int,
    weight: float = 1.0,
    begins: Callable[[bool], None] = lambda last: None,
) -> Losses:
    """Losses of ``count`` micro-batches as one batch; adds ``weight`` times their gradients to those of the ``model``.

    ``begins`` is called before each micro-batch that gradients are carried on through, and told whether it is the last.

    Extra losses of a predictor are no statistics of the batch: of them the mean over micro-batches is taken.
    """
    parts, drawn = [], []
    with kept(model):
        for number in range(count):
            parts.append(_cut(imagine(number, None)))
            drawn.append(_noise(model))
    found = judge([_joined(each) for each in zip(*parts, strict=True)])
    (weight * found.total).backward()
    for number, part in enumerate(parts):
        begins(number == count - 1)
        known = _known(part)
        again = imagine(number, known)
        if known and not all(map(torch.equal, _noise(model), drawn[number])):
            again = imagine(number, None)  # whoever answers draws noise too, and without it the others draw other noise
        pairs = [pair for one, other in zip(again, part, strict=True) for pair in _pairs(one, other)]
        reached = [(x, leaf.grad) for x, leaf in pairs if leaf.grad is not None]
        torch.autograd.backward([x for x, _ in reached], [gradient for _, gradient in reached])
    return found


def _noise(model: nn.Module) -> list[Tensor]:
    """How far the streams of random numbers have been read."""
    devices = {p.device for p in model.parameters() if p.is_cuda}
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


@contextlib.contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Running statistics are afterwards what they were: what is computed twice counts once."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)


def _cut(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Without what they came from: leaves that gather gradients where the features had some."""
    return [
        Outcome(*(by_level(_leaf, x) for x in (seen, guess, truth)), {k: _leaf(v) for k, v in extra.items()})
        for seen, guess, truth, extra in outcomes
    ]


def _known(outcomes: Sequence[Outcome]) -> list[Features] | None:
    """The truth of each question, where no gradient has to be carried on by it."""
    levels = [level for each in outcomes for level in (each.truth if isinstance(each.truth, tuple) else [each.truth])]
    return None if any(level.requires_grad for level in levels) else [each.truth for each in outcomes]


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(x.requires_grad)


def _joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcomes of one question in each micro-batch, as one."""
    extra = {name: torch.stack([part.losses[name] for part in parts]).mean() for name in parts[0].losses}
    features = (by_level(lambda *each: torch.cat(each), *levels) for levels in list(zip(*parts, strict=True))[:3])
    return Outcome(*features, extra)


def _pairs(one: Outcome, other: Outcome) -> list[tuple[Tensor, Tensor]]:
    """Every tensor of an outcome with its like."""
    found = []
    for x, y in zip(one[:3], other[:3], strict=True):
        found += zip(x, y, strict=True) if isinstance(x, tuple) else [(x, y)]
    return found + [(one.losses[name], other.losses[name]) for name in other.losses]
