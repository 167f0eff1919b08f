"""Collapse is seen: with nothing that keeps features apart it is called so, with its cause; else it is not."""

import pytest

from jepakit import train
from jepakit.health.verdict import verdict
from jepakit.health.watch import Watch
from tests.train import tiny


def lines(folder, steps, **strategy):
    """Configuration and log of a run against whose collapse there is one strategy."""
    small = {"data__batch_size": 16, "data__length": 160, "optim__lr": 4e-3, "optim__start_lr": 4e-4}
    made = tiny.config(anti_collapse=strategy, trainer__steps=steps, trainer__log_every=5, **small)
    assert train.run(made, folder) == 0
    return made, tiny.lines(folder)


def test_nothing_against_collapse_is_called_so(tmp_path):
    made, log = lines(tmp_path, 40, none={"name": "none"})
    watch = Watch(made)
    (first, *more) = [said for line in log if (said := watch(line))]
    assert first.startswith("collapsing: ") and not more
    assert "likely cause: nothing keeps features apart (anti_collapse=[none])" in first
    found = verdict(log, made)
    assert found.word == "collapsing" and "all samples have nearly the same features" in found.reason
    assert found.cause in first
    assert log[-1]["loss"] < 0.1 * log[0]["loss"], "a loss that falls says nothing"
    assert log[-1]["sample_cosine"] > 0.99 > 0.9 > log[0]["sample_cosine"]
    assert log[-1]["spectrum/1"] < 0.1 * log[0]["spectrum/1"]
    assert all(line["target_grad"] == 1 for line in log)


@pytest.mark.parametrize(("strategy", "learns"), [("vicreg", 1), ("ema", 0)])
def test_what_keeps_features_apart_is_not_called_a_collapse(strategy, learns, tmp_path):
    made, log = lines(tmp_path, 30, **{strategy: {"name": strategy}})
    watch = Watch(made)
    assert not any(watch(line) for line in log) and verdict(log, made).word != "collapsing"
    assert all(line["target_grad"] == learns for line in log)


def test_a_collapse_is_said_once_while_the_run_goes_on(tmp_path, capsys):
    lines(tmp_path, 40, none={"name": "none"})
    said = (tmp_path / "log.txt").read_text()
    assert said in capsys.readouterr().out
    assert said.count("\ncollapsing: ") == said.count("\nlikely cause: nothing keeps features apart") == 1
    assert said.index("collapsing: ") < said.index("step 40/40")
