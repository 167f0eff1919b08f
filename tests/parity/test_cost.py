"""A step's work and memory, counted and compared with what the formulas say: they follow the kept tokens."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jepakit.build import Built
from jepakit.types import Mask
from tests.parity.shared import (
    DEPTH,
    PATCH,
    PREDICTOR_DEPTH,
    PREDICTOR_WIDTH,
    WIDTH,
    randn,
    small,
    some,
)

BATCH, BLOCKS, ASKED, SIDE = 2, 4, 8, 8
"""Samples, target blocks, tokens of each, tokens on a side of the picture."""
TOKENS, PIXELS = SIDE * SIDE, 3 * PATCH * PATCH
TOLERANCE = 1e-3
KEPT = [4, 16, 32, 48]


@pytest.fixture(scope="module")
def built() -> Built:
    return small()[0]


def questions(kept: int) -> Mask:
    blocks = some(BATCH * BLOCKS, TOKENS, ASKED, seed=1).unflatten(0, (BATCH, BLOCKS))
    return Mask(some(BATCH, TOKENS, kept), blocks)


def counted(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products. Attention is made to run as plain products, forward and back."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def step(built: Built, kept: int) -> int:
    pictures, mask = randn(BATCH, 3, 1, SIDE * PATCH, SIDE * PATCH), questions(kept)
    return counted(lambda: built.jepa([pictures], [mask]).total.backward())


def linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def transformer(sequences: int, length: int, width: int, depth: int) -> int:
    """Operations of ``depth`` blocks, forward: queries, keys, values, what is made of them, and the MLP's two layers
    of four times the width; scores and the sums that they weigh."""
    products = linear(sequences * length, width, 3 * width + width + 2 * 4 * width)
    attention = 2 * 2 * sequences * length * length * width
    return depth * (products + attention)


def analytic(kept: int) -> int:
    """A step: backward costs twice what forward does, and once where no one asks for the gradient of the input."""
    context = 2 * linear(BATCH * kept, PIXELS, WIDTH) + 3 * transformer(BATCH, kept, WIDTH, DEPTH)
    teacher = linear(BATCH * TOKENS, PIXELS, WIDTH) + transformer(BATCH, TOKENS, WIDTH, DEPTH)
    embed = linear(BATCH * kept, WIDTH, PREDICTOR_WIDTH)
    blocks = transformer(BATCH * BLOCKS, kept + ASKED, PREDICTOR_WIDTH, PREDICTOR_DEPTH)
    answer = linear(BATCH * BLOCKS * ASKED, PREDICTOR_WIDTH, WIDTH)
    return context + teacher + 3 * (embed + blocks + answer)


@pytest.mark.parametrize("kept", KEPT)
def test_the_operations_of_a_step_are_those_of_the_formulas(built, kept):
    assert step(built, kept) == pytest.approx(analytic(kept), rel=TOLERANCE)


def test_what_a_step_costs_more_for_more_context_is_the_context(built):
    found = [step(built, kept) for kept in KEPT]
    extra = [analytic(kept) - analytic(KEPT[0]) for kept in KEPT]
    assert [each - found[0] for each in found] == pytest.approx(extra, rel=TOLERANCE)


def test_only_kept_patches_are_embedded(built):
    tokenizer, pictures = built.jepa.backbone.tokenizer, randn(BATCH, 3, 1, SIDE * PATCH, SIDE * PATCH)
    for kept in KEPT:
        assert counted(partial(tokenizer, pictures, questions(kept).context)) == linear(BATCH * kept, PIXELS, WIDTH)


def saved(built: Built, work: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in built.jepa.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other one is given its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = work()
    assert held is not None
    return sum(storage.nbytes() for storage in kept.values())


def test_memory_of_the_encoder_follows_the_kept_tokens(built):
    pictures = randn(BATCH, 3, 1, SIDE * PATCH, SIDE * PATCH)
    backbone = built.jepa.backbone
    found = {kept: saved(built, partial(backbone, pictures, questions(kept).context)) for kept in KEPT}
    for kept, size in found.items():
        assert size / found[32] == pytest.approx(kept / 32, rel=TOLERANCE)


def test_memory_of_a_step_follows_the_kept_tokens_and_none_is_the_teachers(built):
    pictures = randn(BATCH, 3, 1, SIDE * PATCH, SIDE * PATCH)
    teacher = saved(built, partial(built.jepa.anti_collapse.targets, built.jepa.backbone, pictures))
    assert teacher == 0
    found = [saved(built, partial(built.jepa, [pictures], [questions(kept)])) for kept in KEPT]
    slopes = [(b - a) / (q - p) for a, b, p, q in zip(found, found[1:], KEPT, KEPT[1:], strict=False)]
    assert min(slopes) > 0 and slopes == pytest.approx([slopes[0]] * len(slopes), rel=TOLERANCE)
