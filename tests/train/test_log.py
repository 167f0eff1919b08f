"""Where a run's numbers go, and what it says."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jepakit import train
from jepakit.build import build
from jepakit.errors import ConfigError, TrainingError
from jepakit.log import Log
from jepakit.schedule import cosine, warmup_cosine
from tests.train import tiny


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    made = tiny.config(trainer__steps=7, trainer__log_every=3)
    assert train.run(made, tmp_path) == 0
    out = capsys.readouterr().out
    steps = [line for line in out.splitlines() if line.startswith("step ")]
    form = r"step {}/7  \d+ img/s  left \d+:\d\d:\d\d  loss \d\.\d{{4}}  lr \d\.\d\de-0\d  std .*  rank .*  cosine .*"
    assert len(steps) == 3 and all(re.fullmatch(form.format(n), s) for n, s in zip((3, 6, 7), steps, strict=True))
    assert "\x1b" not in out and "\r" not in out
    assert (tmp_path / "log.txt").read_text() == out


def test_what_is_announced(tmp_path, capsys):
    made = tiny.config(trainer__steps=2)
    train.run(made, tmp_path)
    said = capsys.readouterr().out
    jepa = build(made).jepa
    backbone, predictor = (sum(p.numel() for p in part.parameters()) for part in (jepa.backbone, jepa.predictor))
    assert f"encoder {backbone:,}, predictor {predictor:,}, trained in all {backbone + predictor:,}" in said
    assert "\ndata: 40 generated pictures of 16 x 16 pixels in 9 classes; tokens 1 x 4 x 4\n" in said
    assert "\n8 samples a step, 2 steps (0.4 epochs)\n" in said
    assert re.search(r"peak memory \d+\.\d\d GiB", said)


def test_the_log_is_json_and_follows_the_schedules(undisturbed):
    made = tiny.config()
    log, optim = undisturbed()[0], made["optim"]
    for line in log:
        step = line["step"] - 1
        rates = optim["start_lr"], optim["lr"], optim["final_lr"]
        assert line["lr"] == warmup_cosine(step, *rates, tiny.EPOCH, tiny.STEPS)
        assert line["weight_decay"] == cosine(step, optim["weight_decay"], tiny.STEPS)
        assert line["epoch"] == line["step"] / tiny.EPOCH
        assert {"loss", "grad_norm", "std", "rank", "cosine"} <= line.keys()
    assert len({line["lr"] for line in log}) == len(log)


def test_stretched_schedules(tmp_path):
    made = tiny.config(trainer__steps=4, optim__stretch=1.5, optim__warmup=0.0)
    train.run(made, tmp_path)
    o = made["optim"]
    expected = [warmup_cosine(step, o["start_lr"], o["lr"], o["final_lr"], 0, 6) for step in range(4)]
    assert [line["lr"] for line in tiny.lines(tmp_path)] == expected


def test_values_that_are_not_finite_are_null(tmp_path):
    from jepakit.log import Log

    log = Log(tmp_path, 2, 0, tensorboard=False)
    log.write(1, {"loss": float("nan"), "rank": float("inf"), "lr": 0.5}, show=False)
    log.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1, "loss": None, "rank": None, "lr": 0.5}


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train.run(tiny.config(trainer__steps=3, logger__tensorboard=True), tmp_path) == 0
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in found] == [1, 2, 3]
    losses = torch.tensor([line["loss"] for line in tiny.lines(tmp_path)])
    torch.testing.assert_close(torch.tensor([value for _, value in found]), losses)


def test_weights_and_biases_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="^logger.wandb needs the extra: pip install 'jepakit\\[wandb\\]'$"):
        train.run(tiny.config(logger__wandb="mine", logger__tensorboard=True), tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_and_biases(tmp_path, monkeypatch):
    calls: list[tuple[str, Any]] = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append(("log", (step, values))), finish=lambda: calls.append(("finish", None))
    )

    def init(**how: Any) -> SimpleNamespace:
        calls.append(("init", how))
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    folder = tmp_path / "sweep-1" / "0"
    folder.mkdir(parents=True)
    assert train.run(tiny.config(logger__wandb="mine", trainer__steps=2), folder) == 0
    (_, how), (_, (step, values)), *_, last = calls
    assert how["project"] == "mine" and how["id"] == "sweep-1-0" and how["resume"] == "allow"
    assert step == 1 and values["loss"] == tiny.lines(folder)[0]["loss"] and last == ("finish", None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_line_that_cannot_be_written_is_told_in_one(tmp_path):
    log = Log(tmp_path, 3, 0, tensorboard=False)
    log._jsonl.close()
    log._jsonl = Path("/dev/full").open("a")
    with pytest.raises(TrainingError, match=r"^/dev/full cannot be written \(No space left on device\); go on later"):
        log.write(1, {"loss": 1.0})
    log.close()
    assert log._jsonl.closed and log._text.closed
