"""The predictor, the answers and the distances against the plain formulas."""

import pytest
import torch
from jepakit_ema.ema import Ema
from jepakit_vit.encoder import VitEncoder
from jepakit_vit.predictor import VitPredictor
from jepakit_vit.tokenizer import PatchTokenizer

from jepakit.distance import distance
from jepakit.errors import ConfigError
from jepakit.jepa import Backbone
from jepakit.types import Grid, Mask
from tests.parity import plain
from tests.parity.shared import (
    PREDICTOR_DEPTH,
    PREDICTOR_HEADS,
    PREDICTOR_WIDTH,
    WIDTH,
    close,
    randn,
    shaken,
    some,
)

BATCH, BLOCKS, KEPT, ASKED = 2, 3, 7, 4
GRID = Grid(1, 5, 6)


@pytest.fixture
def predictor() -> VitPredictor:
    return shaken(VitPredictor(WIDTH, PREDICTOR_WIDTH, PREDICTOR_DEPTH, PREDICTOR_HEADS, mask_tokens=2).double())


@pytest.fixture
def mask() -> Mask:
    blocks = some(BATCH * BLOCKS, GRID.size, ASKED, seed=1).unflatten(0, (BATCH, BLOCKS))
    return Mask(some(BATCH, GRID.size, KEPT), blocks)


def test_a_guess_is_what_the_formulas_say_block_by_block(predictor, mask):
    seen = randn(BATCH, KEPT, WIDTH)
    weights = {f"predictor.{name}": value for name, value in predictor.state_dict().items()}
    expected = [
        [
            plain.predict(seen[b], mask.context[b], block, weights, GRID[1:], PREDICTOR_DEPTH, PREDICTOR_HEADS)
            for block in mask.target[b]
        ]
        for b in range(BATCH)
    ]
    close(predictor(seen, mask, GRID), torch.stack([torch.stack(row) for row in expected]))


def test_each_block_is_predicted_on_its_own(predictor, mask):
    seen = randn(BATCH, KEPT, WIDTH)
    together = predictor(seen, mask, GRID)
    for m in range(BLOCKS):
        close(together[:, m : m + 1], predictor(seen, mask._replace(target=mask.target[:, m : m + 1]), GRID))
    moved = mask.target.clone()
    moved[:, 0] = moved[:, 0].roll(1, 0)
    others = predictor(seen, mask._replace(target=moved), GRID)
    assert torch.equal(others[:, 1:], together[:, 1:]) and not torch.equal(others[:, 0], together[:, 0])


def test_the_whole_view_may_be_asked_for_and_seen(predictor):
    seen, every = randn(BATCH, GRID.size, WIDTH), torch.arange(GRID.size).expand(BATCH, -1)
    expected = predictor(seen, Mask(every, every[:, None]), GRID)
    close(predictor(seen, Mask(None, None), GRID), expected)


def test_a_kind_of_mask_has_a_token_of_its_own(predictor, mask):
    seen = randn(BATCH, KEPT, WIDTH)
    assert not torch.equal(predictor(seen, mask, GRID), predictor(seen, mask._replace(kind=1), GRID))
    with pytest.raises(ValueError, match="mask kind 2 needs mask_tokens=3, there are 2"):
        predictor(seen, mask._replace(kind=2), GRID)


def test_answers_are_the_teachers_normed_without_scale():
    backbone = shaken(Backbone(PatchTokenizer(3, 12, patch=4), VitEncoder(12, 1, 2)).double())
    ema, view = Ema(), randn(2, 3, 1, 8, 12)
    ema.prepare(backbone, steps=4)
    expected = plain.norm(backbone(view).detach(), eps=1e-5)
    answer = ema.targets(backbone, view)
    close(answer, expected)
    assert not answer.requires_grad and not any(p.requires_grad for p in ema.parameters())
    shaken(backbone, seed=1)
    close(ema.targets(backbone, view), expected)


@pytest.mark.parametrize("name", ["smooth_l1", "l2", "l1"])
def test_distances(name):
    guess, truth, weight = 2 * randn(2, 3, 4, 5), randn(2, 3, 4, 5, seed=1), randn(2, 3, 4, seed=2).abs()
    plainly = {"smooth_l1": plain.smooth_l1, "l2": lambda g, t: (g - t) ** 2, "l1": lambda g, t: (g - t).abs()}
    errors = plainly[name](guess, truth)
    assert (errors > 0.5).any() and (errors < 0.5).any()  # both sides of the bend
    close(distance(name)(guess, truth, None)["distance"], errors.sum() / errors.numel())
    close(distance(name)(guess, truth, weight)["distance"], (errors * weight[..., None]).sum() / errors.numel())
    pyramid = distance(name)((guess, guess[..., :2]), (truth, truth[..., :2]), None)["distance"]
    close(pyramid, (errors.mean() + errors[..., :2].mean()) / 2)


def test_levels_of_a_pyramid_are_weighed_and_named():
    guess = randn(2, 1, 4, 5), randn(2, 1, 3, 2), randn(2, 1, 1, 6)
    truth = randn(2, 1, 4, 5, seed=1), randn(2, 1, 3, 2, seed=1), randn(2, 1, 9, 6, seed=1)
    found = distance("l2", 3.0, [0.5, 2.0, 0.0])(guess, truth, None)
    assert list(found) == ["distance_0", "distance_1"], "the last is not looked at: the two are not alike"
    close(found["distance_0"], 1.5 * (guess[0] - truth[0]).square().mean())
    close(found["distance_1"], 6 * (guess[1] - truth[1]).square().mean())
    assert distance("l2", 1.0, [0.0, 0.0, 0.0])(guess, truth, None) == {"distance": torch.tensor(0.0)}
    with pytest.raises(ConfigError, match="distance_levels has 2 weights, the predictor gives 3 levels"):
        distance("l2", 1.0, [1.0, 1.0])(guess, truth, None)
    with pytest.raises(ConfigError, match="distance_levels has 2 weights, the predictor gives 1 levels"):
        distance("l2", 1.0, [1.0, 1.0])(guess[0], truth[0], None)


def test_a_guess_of_16_bits_is_compared_in_float32():
    guess, truth = randn(1, 1, 2, 64).bfloat16(), randn(1, 1, 2, 64, seed=1).float()
    found = distance("smooth_l1")(guess, truth, None)["distance"]
    assert found.dtype == torch.float32
    expected = plain.smooth_l1(guess.double(), truth.double()).mean()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_another_distance_is_refused():
    with pytest.raises(ConfigError, match="smooth_l2.*smooth_l1"):
        distance("smooth_l2")
