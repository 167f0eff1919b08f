"""Rates that are stated for one batch, on steps of another: what becomes of them, what is said, what is used."""

import pytest
from jepakit_ema.ema import Ema

from jepakit import train
from jepakit.errors import ConfigError
from jepakit.scaling import Step
from jepakit.schedule import warmup_cosine
from jepakit.train import Trainer
from tests.train import tiny

OFFICIAL = {"data": {"batch_size": 128}, "trainer": {"global_batch": 2048, "accumulate": 1, "scaling": "linear"}}
OPTIM = {"lr": 1e-3, "start_lr": 2e-4, "final_lr": 1e-6, "warmup": 40.0, "weight_decay": [0.04, 0.4]}


def official(batch: int = 128, **trainer: object) -> Step:
    return Step.of({"data": {"batch_size": batch}, "trainer": OFFICIAL["trainer"] | trainer})


@pytest.mark.parametrize("batch, accumulate", [(128, 16), (2048, 1), (128, None), (32, None)])
@pytest.mark.parametrize("rule", ["linear", "sqrt", "none"])
def test_the_stated_batch_is_left_as_it_is(batch, accumulate, rule):
    step = official(batch, accumulate=accumulate, scaling=rule)
    assert step.samples == 2048 == step.batch * step.accumulate
    assert step.ratio == 1.0 and step.scaled(OPTIM) == OPTIM and str(step) == ""


def test_where_no_batch_is_stated_nothing_is_scaled():
    step = official(global_batch=None)
    assert step.ratio == 1.0 and step.scaled(OPTIM) == OPTIM and str(step) == "" and step.samples == 128


@pytest.mark.parametrize("rule, factor", [("linear", 1 / 16), ("sqrt", 1 / 4), ("none", 1)])
@pytest.mark.parametrize("larger", [False, True])
def test_rules_for_another_batch(rule, factor, larger):
    """A sixteenth of the stated batch, and sixteen times as much."""
    step = official(2048 * 16 if larger else 128, scaling=rule)
    factor = 1 / factor if larger else factor
    scaled = step.scaled(OPTIM)
    for name, value in OPTIM.items():
        assert scaled[name] == (pytest.approx(value * factor, rel=1e-12) if name.endswith("lr") else value)
    assert step.ratio == (1 if rule == "none" else 16 if larger else 1 / 16)


def test_sixteen_small_steps_of_a_teacher_are_one_large_one():
    ema, stated = Ema(batch_ratio=official().ratio), Ema()
    ema.steps, stated.steps = 160, 10
    assert ema.momentum(0) == pytest.approx(0.996 ** (1 / 16), rel=1e-15)
    assert ema.momentum(160) == stated.momentum(10) == 1.0
    for step in range(10):
        assert ema.momentum(16 * step) ** 16 == pytest.approx(stated.momentum(step), rel=1e-12)


@pytest.mark.parametrize(
    "batch, trainer, line",
    [
        (
            128,
            {"accumulate": None, "global_batch": None},
            "trainer.accumulate=null .* trainer.global_batch, which is not set",
        ),
        (48, {"accumulate": None}, "trainer.global_batch=2048 is no multiple of data.batch_size=48"),
        (4096, {"accumulate": None}, "trainer.global_batch=2048 is no multiple of data.batch_size=4096"),
    ],
)
def test_batches_that_cannot_be_made_up(batch, trainer, line):
    with pytest.raises(ConfigError, match=line):
        official(batch, **trainer)


@pytest.mark.parametrize(
    "batch, rule, said",
    [
        (
            128,
            "linear",
            "learning rates x 0.0625 (linear), a teacher's momentum ** 0.0625; trainer.accumulate=null keeps",
        ),
        (128, "sqrt", "learning rates x 0.25 (sqrt), a teacher's momentum ** 0.0625; trainer.accumulate=null keeps"),
        (128, "none", "nothing is scaled (trainer.scaling=none)"),
        (4096, "linear", "learning rates x 2 (linear), a teacher's momentum ** 2"),
    ],
)
def test_what_is_said(batch, rule, said):
    line = str(official(batch, scaling=rule))
    assert line.startswith(f"batch: {batch} a step, the settings are stated for 2048: {said}") and "\n" not in line
    assert ("accumulate=null" in line) == (batch < 2048 and rule != "none")


def test_the_trainer_trains_at_the_scaled_rates_and_says_so(tmp_path, capsys):
    made = tiny.config(trainer__steps=3, trainer__global_batch=32)
    assert train.run(made, tmp_path) == 0
    assert f"\n{Step.of(made)}\n" in capsys.readouterr().out
    rates = [made["optim"][name] / 4 for name in ("start_lr", "lr", "final_lr")]
    expected = [warmup_cosine(step, *rates, tiny.EPOCH, 3) for step in range(3)]
    assert [line["lr"] for line in tiny.lines(tmp_path)] == expected
    trainer = Trainer(made, tmp_path)
    trainer.log.close()
    assert trainer.jepa.anti_collapse.strategies["ema"].momentum(0) == pytest.approx(0.996**0.25, rel=1e-15)


def test_accumulating_up_to_the_stated_batch_is_the_stated_run(tmp_path, capsys):
    """To the last bit the run with as many micro-batches that states nothing."""
    runs = {
        "stated": tiny.config(trainer__steps=3, trainer__global_batch=16, trainer__accumulate=None),
        "plain": tiny.config(trainer__steps=3, trainer__accumulate=2),
    }
    for name, made in runs.items():
        (tmp_path / name).mkdir()
        assert train.run(made, tmp_path / name) == 0
    assert "stated for" not in capsys.readouterr().out
    stated, plain = (tiny.saved(made, tmp_path / name)[1] for name, made in runs.items())
    assert tiny.lines(tmp_path / "stated") == tiny.lines(tmp_path / "plain") and tiny.same(stated, plain)
