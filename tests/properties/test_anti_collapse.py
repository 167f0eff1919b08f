"""Strategies without a teacher that moves: who answers, where gradients go, and that lists of them compose."""

import copy

import pytest
import torch
from jepakit_ema.ema import Ema
from jepakit_frozen.frozen import Frozen
from jepakit_frozen.own import Nothing, StopGradient
from jepakit_sigreg.sigreg import Sigreg
from jepakit_vicreg.barlow import Barlow
from jepakit_vicreg.vicreg import Vicreg
from jepakit_vicreg.vicregl import Vicregl
from jepakit_vit.tokenizer import PatchTokenizer
from torch import Tensor, nn

from jepakit import seeds
from jepakit.build import build
from jepakit.compose import Together
from jepakit.config import resolve
from jepakit.jepa import Backbone, Jepa
from jepakit.testing import check_anti_collapse
from tests.contracts.toys import AnyGridEncoder
from tests.parity.shared import SMALL

STRATEGIES = [Vicreg, Vicregl, Barlow, Sigreg, Frozen, StopGradient, Nothing]
FORBIDDING = [Vicreg, Vicregl, Barlow, Sigreg]


def backbone(width: int = 8) -> Backbone:
    torch.manual_seed(0)
    return Backbone(PatchTokenizer(3, width, patch=4), AnyGridEncoder(width))


def jepa(strategies: str) -> tuple[Jepa, dict[str, Tensor]]:
    """A tiny I-JEPA after one backward pass, and the parts of its loss."""
    built = build(resolve([*SMALL, f"anti_collapse=[{strategies}]"]))
    view = torch.randn(3, 3, 1, 24, 24, generator=seeds.generator("view"))
    losses = built.jepa([view], built.masker(built.grid, 3, seeds.generator("masks")))
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in built.jepa.parameters() if p.grad is not None)
    return built.jepa, losses.parts


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_contract(strategy):
    check_anti_collapse(strategy(), backbone(), torch.randn(4, 3, 1, 16, 16))


@pytest.mark.parametrize(
    ("strategies", "parts"),
    [
        ("ema,vicreg", {"variance", "covariance"}),
        ("ema,sigreg", {"sigreg"}),
        ("sigreg,vicreg", {"sigreg", "variance", "covariance"}),
        ("vicreg", {"variance", "covariance"}),
        ("sigreg", {"sigreg"}),
        ("stopgrad,vicreg", {"variance", "covariance"}),
        ("frozen,barlow", {"correlation", "redundancy"}),
        ("vicregl", {"global", "by_feature"}),
        ("none", set()),
    ],
)
def test_lists_compose(strategies, parts):
    model, found = jepa(strategies)
    assert set(found) == {"distance", *parts}
    assert all(
        p.grad is not None for p in (*model.backbone.parameters(), *model.predictor.parameters()) if p.requires_grad
    )
    assert (model.target_backbone is model.backbone) == (not {"ema", "frozen"} & set(strategies.split(",")))


@pytest.mark.parametrize("order", [[Vicreg, Ema], [Sigreg, StopGradient], [Nothing, Frozen], [Ema, Vicregl]])
def test_who_forbids_answers_last(order):
    """Whatever the order of the list, the answers have no gradient."""
    together, eyes = Together({each.__name__: each() for each in order}), backbone()
    together.prepare(eyes, 10)
    assert not together.targets(eyes, torch.randn(2, 3, 1, 8, 8)).requires_grad
    assert together.width(eyes) == eyes.width


@pytest.mark.parametrize("strategy", [*FORBIDDING, Nothing])
def test_alone_it_answers_with_gradient(strategy):
    eyes, view = backbone(), torch.randn(2, 3, 1, 8, 8)
    answer = Together({"it": strategy()}).targets(eyes, view)
    assert answer.requires_grad
    torch.testing.assert_close(answer, eyes(view))


@pytest.mark.parametrize("pair", [[Ema, StopGradient], [Frozen, StopGradient], [Ema, Frozen]])
def test_two_that_answer_are_refused(pair):
    with pytest.raises(ValueError, match="only one can answer"):
        Together({each.__name__: each() for each in pair}).prepare(backbone(), 10)


@pytest.mark.parametrize("strategy", FORBIDDING)
def test_collapsed_features_cost_more_than_spread_ones(strategy):
    x = torch.randn(64, 4, 8, generator=seeds.generator("spread"))
    cost = [sum(strategy().penalty(y, y, y).values()) for y in (2 * x, torch.ones_like(x) + 1e-3 * x)]
    assert cost[1] > 1.5 * cost[0]


@pytest.mark.parametrize("strategy", FORBIDDING)
def test_a_single_direction_costs_more_than_many(strategy):
    x = torch.randn(64, 4, 8, generator=seeds.generator("spread"))
    cost = [sum(strategy().penalty(y, y, y).values()) for y in (2 * x, 2 * x[..., :1].expand_as(x))]
    assert cost[1] > 1.5 * cost[0]


@pytest.mark.parametrize("strategy", [Vicreg, Sigreg])
@pytest.mark.parametrize("on", ["seen", "guess", "truth"])
def test_it_penalises_what_it_says(strategy, on):
    parts = {name: torch.randn(6, 3, 4, requires_grad=True) for name in ("seen", "guess", "truth")}
    sum(strategy(of=on).penalty(**parts).values()).backward()
    assert {name for name, part in parts.items() if part.grad is not None} == {on}


@pytest.mark.parametrize("strategy", [Vicreg(), Barlow(), Sigreg(slices=8)])
def test_levels_of_a_pyramid_count_alike(strategy):
    fine, coarse = torch.randn(6, 4, 5), torch.randn(6, 1, 3)
    both, apart = ((fine, coarse),) * 3, [strategy.penalty(x, x, x) for x in (fine, coarse)]
    for name, found in strategy.penalty(*both).items():
        torch.testing.assert_close(found, (apart[0][name] + apart[1][name]) / 2)


@pytest.mark.parametrize("strategy", FORBIDDING)
def test_statistics_are_not_rounded_under_autocast(strategy):
    made, x = strategy(), torch.randn(16, 4, 8)
    plain = made.penalty(x, x, x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = made.penalty(x, x, x)
    assert rounded == plain


@pytest.mark.parametrize("strategy", [Vicreg, Vicregl, Barlow])
def test_a_single_sample_is_refused(strategy):
    x = torch.randn(1, 4, 8)
    with pytest.raises(ValueError, match="two samples"):
        strategy().penalty(x, x, x)


def test_invariance_of_other_tokens_is_refused():
    seen, guess = torch.randn(4, 3, 5), torch.randn(4, 2, 3, 5)
    with pytest.raises(ValueError, match="use tokens=mean or of=guess"):
        Vicreg(invariance=1.0, tokens="each").penalty(seen, guess, guess)


def test_slices_are_the_steps_and_outlive_a_restart():
    x = torch.randn(6, 1, 8)

    def cost(strategy: Sigreg) -> float:
        return float(strategy.penalty(x, x, x)["sigreg"])

    ours, rank = Sigreg(slices=4), Sigreg(slices=4)
    first = cost(ours)
    assert first == cost(ours) == cost(rank), "other slices within a step, or in another process"
    ours.after_step(backbone(), 0)
    assert cost(ours) != first, "the same slices in the next step"
    resumed = nn.ModuleList([Sigreg(slices=4)])  # as a part of something larger
    resumed.load_state_dict(nn.ModuleList([ours]).state_dict())
    assert cost(resumed[0]) == cost(ours)
    resumed[0].after_step(backbone(), 1)
    assert cost(resumed[0]) != cost(ours)


def test_sigreg_of_a_gaussian_does_not_grow_with_the_batch():
    cost = [
        float(Sigreg(weight=1.0).penalty(*[torch.randn(n, 1, 8, generator=seeds.generator(n))] * 3)["sigreg"])
        for n in (100, 1600)
    ]
    assert 0.5 < cost[0] / cost[1] < 2


@pytest.mark.parametrize("wrong", [{"slices": 0}, {"knots": 1}])
def test_sigreg_without_slices_or_knots_is_refused(wrong):
    with pytest.raises(ValueError, match="two knots or more"):
        Sigreg(**wrong)


def test_a_frozen_teacher_stays_as_it_was():
    eyes, view = backbone(), torch.randn(4, 3, 1, 8, 8)
    eyes.encoder.own = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), eyes.encoder.own)  # 4 tokens
    frozen = Frozen()
    frozen.prepare(eyes, 10)
    before = copy.deepcopy(frozen.teacher.state_dict())
    assert torch.equal(frozen.train().targets(eyes, view), frozen.targets(eyes, view)), "something was dropped"
    frozen.after_step(eyes, 0)
    assert all(torch.equal(x, before[name]) for name, x in frozen.teacher.state_dict().items())
    assert not any(p.requires_grad for p in frozen.parameters())
