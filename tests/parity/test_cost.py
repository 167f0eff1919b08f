"""A step's work and memory, counted and compared with what the formulas say: they follow the kept tokens."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jepakit.build import Built, build_backbone, make
from jepakit.compose import Together
from jepakit.config import resolve
from jepakit.distance import distance
from jepakit.jepa import Jepa
from jepakit.seeds import generator
from jepakit.types import Grid, Mask, to_device
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


def block(sequences: int, length: int, width: int, asked: int) -> int:
    """Operations of a block, forward: keys and values of all tokens; of those that are asked for queries, what is made
    of them, and the MLP's two layers of four times the width; scores and the sums that they weigh."""
    of_all, of_asked = 2, 2 + 2 * 4
    products = linear(sequences * length, width, of_all * width) + linear(sequences * asked, width, of_asked * width)
    return products + 2 * 2 * sequences * asked * length * width


def transformer(sequences: int, length: int, width: int, depth: int, asked: int | None = None) -> int:
    """Operations of ``depth`` blocks, of which the last one may be asked for some of the tokens alone."""
    last = block(sequences, length, width, asked or length)
    return (depth - 1) * block(sequences, length, width, length) + last


class Net(NamedTuple):
    """What the operations of a model's steps depend on: sizes of encoder and predictor, numbers in a patch, patches."""

    width: int
    depth: int
    narrow: int
    shallow: int
    pixels: int
    tokens: int


NET = Net(WIDTH, DEPTH, PREDICTOR_WIDTH, PREDICTOR_DEPTH, PIXELS, TOKENS)


def context_encoder(net: Net, kept: int, batch: int = BATCH, asked: int | None = None) -> int:
    """Operations of embedding and encoding so many tokens of each sample, forward."""
    return linear(batch * kept, net.pixels, net.width) + transformer(batch, kept, net.width, net.depth, asked)


def predictor(net: Net, kept: int, blocks: int, asked: int, batch: int = BATCH) -> int:
    embed = linear(batch * kept, net.width, net.narrow)
    filled = transformer(batch * blocks, kept + asked, net.narrow, net.shallow, asked)
    return embed + filled + linear(batch * blocks * asked, net.narrow, net.width)


def whole(net: Net, asked: list[tuple[int, int, int]], batch: int = BATCH) -> int:
    """A step whose masks have so many context tokens, blocks, and tokens in each. Backward costs twice what forward
    does, and once where no one asks for the gradient of the input. A teacher is asked by one mask for its blocks, by
    several for all tokens."""
    answers = [blocks * size for _, blocks, size in asked]
    step = context_encoder(net, net.tokens, batch, answers[0] if len(answers) == 1 else None)  # the teacher
    for kept, blocks, size in asked:
        step += 3 * context_encoder(net, kept, batch) - linear(batch * kept, net.pixels, net.width)
        step += 3 * predictor(net, kept, blocks, size, batch)
    return step


def analytic(kept: int) -> int:
    return whole(NET, [(kept, BLOCKS, ASKED)])


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


LARGE = Net(width=1024, depth=24, narrow=384, shallow=12, pixels=3 * 2 * 16 * 16, tokens=8 * 14 * 14)
"""V-JEPA's ViT-L/16 and its predictor, on clips of 16 frames of 224 pixels (arXiv 2404.08471)."""


@pytest.fixture(scope="module")
def large() -> tuple[Jepa, Grid, list[Mask]]:
    """The recipe vjepa_vitl16 with weights that take no memory, its grid, and masks of a step."""
    config = resolve(["recipe=vjepa_vitl16", "data.root=/clips"])
    with torch.device("meta"):
        backbone, grid = build_backbone(config)
        anti_collapse = Together({"ema": make("anti_collapse", config["anti_collapse"]["ema"])})
        anti_collapse.prepare(backbone, 1)
        answering = make("predictor", config["predictor"], encoder_width=backbone.width)
    masks = make("masker", config["masker"])(grid, BATCH, generator(0))
    jepa = Jepa(backbone, answering, anti_collapse, distance(config["distance"]))
    return jepa, grid, to_device(masks, torch.device("meta"))


def test_of_a_clip_only_the_kept_tubes_are_paid_for(large):
    """Both kinds of masks that V-JEPA draws, at its real size: context encoder, and the step with all that is in it."""
    jepa, grid, asked = large
    clips = torch.empty(BATCH, 3, 16, 224, 224, device="meta")
    assert grid.size == LARGE.tokens and len(asked) == 2
    for mask in asked:
        kept = mask.context.shape[1]
        encoded = counted(partial(jepa.backbone, clips, mask.context))
        assert kept < LARGE.tokens / 2 and encoded == pytest.approx(context_encoder(LARGE, kept), rel=TOLERANCE)
    step = counted(lambda: jepa([clips], asked).total.backward())
    sizes = [(mask.context.shape[1], *mask.target.shape[1:]) for mask in asked]
    assert step == pytest.approx(whole(LARGE, sizes), rel=TOLERANCE)
