"""Schedules and the optimiser's groups against plain formulas and the released code's way of counting."""

import pytest
from jepakit_ema.ema import Ema
from torch import nn

from jepakit.optim import adamw, set_schedules
from jepakit.schedule import cosine, warmup_cosine, warmup_linear
from tests.parity import plain
from tests.parity.shared import prepared, small

OPTIM = {"lr": 1e-3, "start_lr": 2e-4, "final_lr": 1e-6, "weight_decay": [0.04, 0.4], "stretch": 1.0, "warmup": 2.0}
OPTIM |= {"decay": "cosine"}


@pytest.mark.parametrize("warmup, total", [(40, 300), (1, 7), (5, 6)])
def test_schedules_follow_the_formulas(warmup, total):
    for step in range(total):
        rate = warmup_cosine(step, 2e-4, 1e-3, 1e-6, warmup, total)
        assert rate == pytest.approx(plain.learning_rate(step, 2e-4, 1e-3, 1e-6, warmup, total), rel=1e-12)
        for ends in ([0.04, 0.4], [0.4, 0.04]):
            assert cosine(step, ends, total) == pytest.approx(plain.weight_decay(step, *ends, total), rel=1e-12)


def test_the_first_step_runs_at_the_schedules_second_value():
    assert warmup_cosine(0, 2e-4, 1e-3, 1e-6, 40, 300) == pytest.approx(2e-4 + (1e-3 - 2e-4) / 40, rel=1e-12)
    assert warmup_cosine(38, 2e-4, 1e-3, 1e-6, 40, 300) == pytest.approx(1e-3 - (1e-3 - 2e-4) / 40, rel=1e-12)
    assert warmup_cosine(39, 2e-4, 1e-3, 1e-6, 40, 300) == pytest.approx(1e-3, rel=1e-12)
    assert warmup_cosine(299, 2e-4, 1e-3, 1e-6, 40, 300) == pytest.approx(1e-6, rel=1e-12)
    assert cosine(0, [0.04, 0.4], 300) > 0.04
    assert cosine(299, [0.04, 0.4], 300) == pytest.approx(0.4, rel=1e-12)


def test_the_teachers_momentum_begins_at_its_first_value_and_is_linear():
    ema = prepared(Ema(0.996, 1.0), steps=300)
    assert ema.momentum(0) == 0.996 and ema.momentum(300) == 1.0
    for step in range(300):
        assert ema.momentum(step) == pytest.approx(plain.momentum(step, 0.996, 1.0, 300), rel=1e-15)


def test_a_stretched_schedule_is_cut_off():
    """As V-JEPA's, by 1.25: its momentum begins at .998 and ends at .9996."""
    assert prepared(Ema(0.998, 1.0, stretch=1.25), steps=300).momentum(300) == pytest.approx(0.9996, rel=1e-9)
    optimizer = adamw(nn.Linear(2, 2), OPTIM | {"betas": [0.9, 0.999], "eps": 1e-8})
    last = set_schedules(optimizer, OPTIM | {"stretch": 1.25}, 299, 300, epoch_steps=20.0)
    assert last["lr"] == plain.learning_rate(299, 2e-4, 1e-3, 1e-6, 40, 375) > 1e-5
    assert last["weight_decay"] == pytest.approx(plain.weight_decay(299, 0.04, 0.4, 375), rel=1e-12)


def test_a_cooldown_is_a_straight_line_that_is_cut_off_as_well():
    """As V-JEPA 2's, by 1.25: it ends a fifth of the way above its last value."""
    optimizer = adamw(nn.Linear(2, 2), OPTIM | {"betas": [0.9, 0.999], "eps": 1e-8})
    options = OPTIM | {"decay": "linear", "stretch": 1.25, "warmup": 0.0, "lr": 5.25e-4}
    for step in range(400):
        left = max(0.0, 1 - (step + 1) / 500)
        found = set_schedules(optimizer, options, step, 400, epoch_steps=10.0)["lr"]
        assert found == pytest.approx(1e-6 + (5.25e-4 - 1e-6) * left, rel=1e-12)
    assert found == pytest.approx(1.058e-4, rel=1e-9)
    assert warmup_linear(600, 0.0, 5.25e-4, 1e-6, 0, 500) == 1e-6
    assert warmup_linear(1, 0.0, 1.0, 0.0, 4, 500) == 0.5


def test_a_momentum_past_its_schedule_stays_at_the_end():
    ema = prepared(Ema(0.9, 1.0, stretch=0.5), steps=10)
    assert [ema.momentum(step) for step in (5, 6, 10, 50)] == [1.0] * 4


def test_biases_and_vectors_have_no_weight_decay():
    built, config = small()
    optimizer = adamw(built.jepa, config["optim"])
    names = {id(p): name for name, p in built.jepa.named_parameters()}
    decays = {names[id(p)]: group["decays"] for group in optimizer.param_groups for p in group["params"]}
    trained = {name for name, p in built.jepa.named_parameters() if p.requires_grad}
    assert decays.keys() == trained and not any("teacher" in name for name in trained)
    for name, decay in decays.items():
        assert decay == (name.endswith("weight") and ".norm" not in name or name.endswith("mask_token")), name
    set_schedules(optimizer, OPTIM, 3, 300, epoch_steps=20.0)
    for group in optimizer.param_groups:
        assert group["lr"] == warmup_cosine(3, 2e-4, 1e-3, 1e-6, 40, 300)
        assert group["weight_decay"] == (cosine(3, [0.04, 0.4], 300) if group["decays"] else 0.0)
        assert group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8


def test_a_model_of_vectors_alone_has_one_group():
    (group,) = adamw(nn.LayerNorm(4), OPTIM | {"betas": [0.9, 0.999], "eps": 1e-8}).param_groups
    assert not group["decays"] and len(group["params"]) == 2
