"""Every row of the family is a choice of parts: the core has no line for any one of them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepakit.compose import Together
from jepakit.distance import distance
from jepakit.jepa import Backbone, Jepa
from jepakit.plugins import discover
from jepakit.seeds import generator
from jepakit.types import Grid, Losses, Mask
from tests.contracts import toys

BATCH, STEPS = 4, 3


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_views_may_differ_in_size():
    jepa = join(Backbone(toys.Whole(), toys.PooledEncoder()), toys.SamePredictor(), own=toys.Own())
    for number in range(50):  # which of the views are looked at is drawn
        jepa([clips(number), clips(number, side=12)], [Mask(None, None, 0, 1)])


def shipped(kind: str, name: str) -> Any:
    """The class of a component that comes with jepakit."""
    return discover().get(kind, name).load()


def patches(width: int, tubelet: int = 1) -> nn.Module:
    return shipped("tokenizer", "patch")(channels=3, encoder_width=width, patch=4, tubelet=tubelet)


def join(backbone: nn.Module, predictor: nn.Module, metric: str = "l2", **strategies: nn.Module) -> Jepa:
    together = Together(strategies)
    together.prepare(backbone, STEPS)
    return Jepa(backbone, predictor, together, distance(metric))


def learn(
    branches: Jepa | Sequence[Jepa],
    step: Callable[[int], Sequence[tuple[Sequence[Tensor], Sequence[Mask]]]],
    condition: Any = None,
) -> list[Losses]:
    """A few optimiser steps of one branch, or of several that share what they share. ``step`` gives the views and masks
    of each. Losses are finite, and every trained parameter has moved at the end."""
    branches = [branches] if isinstance(branches, Jepa) else branches
    trained = {id(p): p for branch in branches for p in branch.parameters() if p.requires_grad}
    before = [p.detach().clone() for p in trained.values()]
    optimizer = torch.optim.Adam(trained.values(), lr=0.01)
    history = []
    for number in range(STEPS):
        found = [b(views, masks, condition) for b, (views, masks) in zip(branches, step(number), strict=True)]
        total = torch.stack([losses.total for losses in found]).sum()
        optimizer.zero_grad()
        total.backward()
        assert torch.isfinite(total) and all(torch.isfinite(p.grad).all() for p in trained.values())
        optimizer.step()
        for branch in branches:
            branch.anti_collapse.after_step(branch.backbone, number)
        history += found
    assert all(not torch.equal(old, new) for old, new in zip(before, trained.values(), strict=True))
    return history


def clips(number: int, frames: int = 1, side: int = 16) -> Tensor:
    return torch.randn(BATCH, 3, frames, side, side, generator=generator("clip", number, frames, side))


def test_ijepa():
    vit = shipped("encoder", "vit")(width=16, depth=1, heads=2)
    predictor = shipped("predictor", "vit_predictor")(encoder_width=16, width=8, depth=1, heads=2)
    jepa = join(Backbone(patches(16), vit), predictor, "smooth_l1", ema=shipped("anti_collapse", "ema")(end=0.999))
    masker = shipped("masker", "multiblock")(min_keep=0)
    teacher = [p.clone() for p in jepa.target_backbone.parameters()]
    losses = learn(jepa, lambda n: [([clips(n)], masker(Grid(1, 4, 4), BATCH, generator(n)))])
    assert list(losses[0].parts) == ["distance"] and torch.equal(losses[0].total, losses[0].parts["distance"])
    assert all(p.grad is None and not p.requires_grad for p in jepa.target_backbone.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(teacher, jepa.target_backbone.parameters(), strict=True))


def test_masked_autoencoding():
    """Pixels answer (I-JEPA, Table 7): the predictor is as wide as a patch has numbers, and there is no teacher."""
    strategy = shipped("anti_collapse", "pixels")(view_shape=(3, 1, 16, 16), grid=Grid(1, 4, 4))
    assert strategy.width == 48 and not list(strategy.parameters())
    predictor = shipped("predictor", "vit_predictor")(
        encoder_width=16, width=8, depth=1, heads=2, target_width=strategy.width
    )
    jepa = join(Backbone(patches(16), toys.AnyGridEncoder(16)), predictor, "l2", pixels=strategy)
    masker = shipped("masker", "random")()
    losses = learn(jepa, lambda n: [([clips(n)], masker(Grid(1, 4, 4), BATCH, generator(n)))])
    assert list(losses[0].parts) == ["distance"] and losses[0].trace[0][1].shape == (BATCH, 1, 10, 48)
    assert not losses[0].trace[0][2].requires_grad and jepa.target_backbone is jepa.backbone


def test_a_teacher_that_sees_its_blocks_alone_beside_a_guard():
    """I-JEPA, Table 11: what lies outside of a target block makes no difference to its answer."""
    backbone, ema = Backbone(patches(16), toys.AnyGridEncoder(16)), shipped("anti_collapse", "ema")
    (mask,) = shipped("masker", "multiblock")(targets=2, min_keep=0)(Grid(1, 4, 4), BATCH, generator(0))
    view = clips(0)
    kept = torch.zeros(BATCH, 16).scatter_(1, mask.target[:, 0], 1.0).view(BATCH, 1, 1, 4, 4)
    hidden = view * kept.repeat_interleave(4, -1).repeat_interleave(4, -2)
    for setting, blind in (("input", True), ("output", False)):
        jepa = join(backbone, toys.KindPredictor(16), guard=toys.Guard(), ema=ema(mask=setting))
        whole, part = (jepa([each], [mask]).trace[0][2] for each in (view, hidden))
        assert whole.shape == (BATCH, 2, mask.target.shape[2], 16) and not whole.requires_grad
        assert torch.equal(whole[:, 0], part[:, 0]) == blind and not torch.equal(whole[:, 1], part[:, 1])
        learn(jepa, lambda n: [([clips(n)], [mask])])


def test_vjepa():
    """Tubelets of two frames; two masks a step, each with its own context, its own mask token, one teacher's answer."""
    backbone = Backbone(patches(16, tubelet=2), toys.AnyGridEncoder(16))
    jepa = join(backbone, toys.KindPredictor(16), "l1", ema=shipped("anti_collapse", "ema")())
    grid = backbone.grid(clips(0, frames=8))
    assert grid == Grid(4, 4, 4)
    asked = []
    jepa.target_backbone.register_forward_hook(lambda *_: asked.append(1))
    losses = learn(jepa, lambda n: [([clips(n, frames=8)], toys.TwoTubes()(grid, BATCH, generator(n)))])
    assert len(asked) == STEPS
    seen = [mask[0].shape[1] for mask in losses[0].trace]
    assert seen == [4 * 14, 4 * 8] and losses[0].trace[1][1].shape == (BATCH, 1, 4 * 8, 16)
    means = torch.stack([(guess - truth).abs().mean() for _, guess, truth in losses[0].trace]).mean()
    torch.testing.assert_close(losses[0].total, means)


def test_a_mask_token_that_is_not_asked_for_does_not_learn():
    jepa = join(Backbone(patches(16, tubelet=2), toys.AnyGridEncoder(16)), toys.KindPredictor(16), own=toys.Own())
    masks = toys.TwoTubes()(Grid(2, 4, 4), BATCH, generator(0))
    jepa([clips(0, frames=4)], masks[1:]).total.backward()
    assert not jepa.predictor.mask_token.grad[0].any() and jepa.predictor.mask_token.grad[1].any()


def test_vicreg():
    """Two views of two sizes, each encoded once and each the other's answer, with gradients on both sides."""
    encoder = toys.PooledEncoder()
    jepa = join(Backbone(toys.Whole(), encoder), toys.SamePredictor(), "l2", own=toys.Own(weight=25.0))
    masks = toys.Pair()(Grid(1, 1, 1), BATCH, generator(0))
    losses = learn(jepa, lambda n: [([clips(n), clips(n, side=12)], masks)])
    assert encoder.calls == 2 * STEPS
    assert list(losses[0].parts) == ["distance", "variance", "covariance"]
    torch.testing.assert_close(losses[0].total, sum(losses[0].parts.values()))
    (_, guess, truth), _ = losses[0].trace
    assert guess.shape == truth.shape == (BATCH, 1, 1, 16) and guess.requires_grad and truth.requires_grad
    assert jepa.target_backbone is jepa.backbone


def test_gradients_reach_the_answers_only_where_the_strategy_lets_them():
    def gradient(strategy: nn.Module) -> Tensor:
        torch.manual_seed(0)
        jepa = join(Backbone(toys.Whole(), toys.PooledEncoder()), toys.SamePredictor(), own=strategy)
        views = [clips(0), clips(1).requires_grad_()]
        jepa(views, [Mask(None, None, 0, 1)]).total.backward()
        return views[1].grad

    class Detached(toys.Own):
        def targets(self, backbone, view):
            return backbone(view).detach()

    assert gradient(toys.Own()).any() and gradient(Detached()) is None


def test_lejepa():
    """Four views of two sizes, each drawn to the mean of all."""
    encoder = toys.PooledEncoder()
    jepa = join(Backbone(toys.Whole(), encoder), toys.SamePredictor(), "l2", own=toys.Own())
    masks = [Mask(None, None, view, (0, 1, 2, 3)) for view in range(4)]

    def step(number: int) -> list:
        return [([clips(number + k, side=16 if k < 2 else 8) for k in range(4)], masks)]

    losses = learn(jepa, step)
    assert encoder.calls == 4 * STEPS
    guesses = [guess for _, guess, _ in losses[0].trace]
    for _, _, truth in losses[0].trace:
        torch.testing.assert_close(truth, torch.stack(guesses).mean(0))


def test_cjepa():
    """I-JEPA with a guard: the teacher answers, the guard forbids, and the guard's gradient reaches the encoder."""
    backbone = Backbone(patches(16), toys.AnyGridEncoder(16))
    jepa = join(backbone, toys.KindPredictor(16), guard=toys.Guard(), ema=shipped("anti_collapse", "ema")())
    masker = shipped("masker", "multiblock")(min_keep=0)
    losses = learn(jepa, lambda n: [([clips(n)], masker(Grid(1, 4, 4), BATCH, generator(n)))], None)
    assert list(losses[0].parts) == ["distance", "variance", "covariance"]
    assert not losses[0].trace[0][2].requires_grad and jepa.target_backbone is jepa.anti_collapse.teacher
    (reached,) = torch.autograd.grad(
        jepa([clips(0)], masker(Grid(1, 4, 4), BATCH, generator(0))).parts["variance"], [backbone.encoder.own.weight]
    )
    assert reached.any()


def test_mcjepa_motion():
    """A pyramid of two frames becomes that of the second one; what the flow costs comes along as named losses."""
    encoder = toys.PyramidEncoder()
    jepa = join(Backbone(toys.Whole(), encoder), toys.FlowPredictor(8), "l2", own=toys.Own(weight=0.01))

    def step(number: int) -> list:
        pair = clips(number, frames=2)
        return [([pair, pair[:, :, 1:]], [Mask(None, None, 0, 1)])]

    losses = learn(jepa, step)
    assert list(losses[0].parts) == ["distance", "smooth", "cycle", "variance", "covariance"]
    ((seen, guess, truth),) = losses[0].trace
    assert [level.shape[1] for level in seen] == [2 * 256, 2 * 64, 2 * 16]
    assert [level.shape for level in guess] == [level.shape for level in truth]
    levels = [(a - b).pow(2).mean() for a, b in zip(guess, truth, strict=True)]
    torch.testing.assert_close(losses[0].parts["distance"], torch.stack(levels).mean())


def test_a_predictor_with_a_condition():
    jepa = join(Backbone(toys.Whole(), toys.PooledEncoder()), toys.ActionPredictor(16), own=toys.Own())
    actions = torch.randn(BATCH, 2, requires_grad=True)
    learn(jepa, lambda n: [([clips(n), clips(n + 1)], [Mask(None, None, 0, 1)])], actions)
    assert actions.grad is not None and actions.grad.any()


def test_single_tokens_may_weigh_more():
    """V-JEPA 2.1 weighs the context tokens that it also answers for."""
    jepa = join(Backbone(patches(16), toys.AnyGridEncoder(16)), toys.KindPredictor(16), "l1", own=toys.Own())
    (mask,) = toys.Halves()(Grid(1, 4, 4), BATCH, generator(0))
    weight = torch.zeros(mask.target.shape)
    weight[:, :, 0] = 2.0
    losses = jepa([clips(0)], [mask._replace(weight=weight)])
    ((_, guess, truth),) = losses.trace
    torch.testing.assert_close(losses.parts["distance"], 2 * (guess - truth)[:, :, 0].abs().mean() / weight.shape[2])


def test_several_branches_over_one_backbone():
    """MC-JEPA's way: content and motion share an encoder and sum their losses; each alone reaches it too."""
    backbone = Backbone(toys.Whole(), toys.PyramidEncoder())

    class Last(toys.SamePredictor):
        def forward(self, seen, mask, grid, condition=None):
            return tuple(level.unsqueeze(1) for level in seen)

    content = join(backbone, Last(), "l2", own=toys.Own())
    motion = join(backbone, toys.FlowPredictor(8), "l2", own=toys.Own(weight=0.01))

    def step(number: int) -> list:
        pair = clips(number, frames=2)
        pictures = [clips(number), clips(number + 1)]
        return [
            (pictures, toys.Pair()(Grid(1, 1, 1), BATCH, generator(0))),
            ([pair, pair[:, :, 1:]], [Mask(None, None, 0, 1)]),
        ]

    shared = list(backbone.parameters())
    alone = []
    for branch, (views, masks) in zip((content, motion), step(0), strict=True):
        alone.append(torch.autograd.grad(branch(views, masks).total, shared))
        assert all(gradient.any() for gradient in alone[-1])
    both = torch.stack([b(*given).total for b, given in zip((content, motion), step(0), strict=True)]).sum()
    for together, one, other in zip(torch.autograd.grad(both, shared), *alone, strict=True):
        torch.testing.assert_close(together, one + other)
    learn([content, motion], step)
