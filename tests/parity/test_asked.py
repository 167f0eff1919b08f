"""What is not asked for is not worked out, and what is asked for is what it was: features, losses, gradients."""

import pytest
import torch
from jepakit_ema.ema import Ema
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.tokenizer import PatchTokenizer
from torch.utils.flop_counter import FlopCounterMode

from jepakit.build import build
from jepakit.jepa import Backbone
from jepakit.types import Grid, take, take_blocks
from tests.parity.shared import DEPTH, HEADS, WIDTH, close, randn, shaken
from tests.train import tiny

GRID = Grid(2, 3, 4)
MORE = {
    "plain": {},
    "rotary": {"positions": "rope", "heads": 2},
    "pyramid": {"layers": (0, DEPTH - 1)},
    "gated": {"mlp": "swiglu"},
    "again": {"checkpoint_blocks": True},
}


@pytest.mark.parametrize("kind", MORE)
@pytest.mark.parametrize("count", [5, 24, 40])
def test_features_of_some_tokens(kind, count):
    """Also of more than there are, since blocks overlap."""
    made = {"positions": "sincos_3d", "heads": HEADS} | MORE[kind]
    encoder = shaken(VitEncoder(WIDTH, DEPTH, **made).double())
    tokens, asked = randn(3, GRID.size, WIDTH).requires_grad_(), torch.randint(0, GRID.size, (3, count))
    whole, some = encoder(tokens, None, GRID), encoder(tokens, None, GRID, asked)
    pairs = list(zip(whole, some, strict=True)) if isinstance(whole, tuple) else [(whole, some)]
    for one, other in pairs:
        close(other, take(one, asked))
    both = [
        torch.autograd.grad(sum(level.square().sum() for level in each), [tokens, *encoder.parameters()])
        for each in ([take(one, asked) for one, _ in pairs], [other for _, other in pairs])
    ]
    for one, other in zip(*both, strict=True):
        close(one, other)


@pytest.mark.parametrize("normalise", [True, False])
def test_a_teacher_answers_for_the_blocks_alone(normalise):
    backbone = shaken(Backbone(PatchTokenizer(3, WIDTH, patch=4), VitEncoder(WIDTH, DEPTH, HEADS)).double())
    ema = Ema(normalise=normalise)
    ema.prepare(backbone, 10)
    view, blocks = randn(2, 3, 1, 16, 16), torch.randint(0, 16, (2, 3, 4))
    assert ema.picks
    close(ema.targets(backbone, view, blocks), take_blocks(ema.targets(backbone, view), blocks))


def test_a_step_is_the_same_with_less_work():
    """Once as it is, once with a teacher that works all out."""
    made, view = tiny.config(data__size=32, data__side=32), randn(4, 3, 1, 32, 32)
    losses, gradients, work = [], [], []
    for picks in (True, False):
        built = build(made)
        jepa, masks = shaken(built.jepa.double()), built.masker(built.grid, 4, torch.Generator().manual_seed(0))
        torch.manual_seed(0)  # paths are dropped
        jepa.anti_collapse.asked[0].teacher.encoder.picks = picks
        with FlopCounterMode(display=False) as counter:
            total = jepa([view], masks).total
            total.backward()
        losses.append(total.detach())
        gradients.append([p.grad for p in jepa.parameters() if p.requires_grad])
        work.append(counter.get_total_flops())
    close(*losses)
    for one, other in zip(*gradients, strict=True):
        close(one, other)
    assert work[0] < work[1]
