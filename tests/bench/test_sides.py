"""The parts of real steps, and that timing them changes nothing and leaves nothing behind."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jepakit.bench import sides as sides_module
from jepakit.bench.hooks import attached
from jepakit.bench.rounds import measure
from jepakit.bench.sides import of_config
from jepakit.bench.split import PARTS, REST, Split
from jepakit.bench.theirs import of_file
from jepakit.errors import ConfigError, TrainingError
from jepakit.train import Trainer
from tests.bench.clocks import Told
from tests.bench.conftest import method
from tests.train import tiny


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["ijepa", "vicreg", "mcjepa"])
def test_every_part_is_seen_and_they_add_up(name, temporary, monkeypatch):
    clock = Ticking()
    monkeypatch.setattr(sides_module, "clock", lambda device, now: clock)
    config = method(name)
    with of_config(name, config) as side:
        assert len(list(temporary.iterdir())) == 1
        measure([side], steps=2, repeats=1)
    assert not list(temporary.iterdir())
    assert [len(each) for each in side.rounds] == [2]
    for step in side.steps:
        assert step.keys() == {*PARTS, REST}
        assert sum(step.values()) == clock.ticks(step) and min(step.values()) >= 1
    assert side.samples == config["data"]["batch_size"] + 2 * (name == "mcjepa")


class Ticking(Told):
    """A second passes whenever the clock is looked at, so that a step takes as many as it has changes of part."""

    def mark(self) -> float:
        self.passes(1)
        return self.now

    def ticks(self, step: dict[str, float]) -> float:
        """From the first look to the last: at each part that is not the rest it is looked at twice."""
        return 1 + 2 * sum(value for name, value in step.items() if name != REST)


def begun(folder: Path) -> Trainer:
    folder.mkdir()
    return Trainer(tiny.config(), folder)


def took(trainer: Trainer, steps: int) -> list[torch.Tensor]:
    """Parameters after some steps."""
    stream = trainer.stream(0, steps)
    for _ in range(steps):
        trainer.train_step(trainer.fetch(stream, []))
        trainer.step += 1
    stream.close()
    trainer.log.close()
    return [p.detach().clone() for p in trainer.jepa.parameters()]


def test_a_step_that_is_timed_is_the_same_step(tmp_path):
    plain = took(begun(tmp_path / "plain"), 3)
    trainer, split = begun(tmp_path / "timed"), Split(Told())
    with attached(trainer, split), split.step():
        timed = took(trainer, 3)
    assert all(map(torch.equal, plain, timed))


def state(trainer: Trainer) -> Iterator[Any]:
    """What is hung on to a trainer."""
    parts: list[Any] = [trainer.jepa, trainer.jepa.backbone, trainer.jepa.predictor, trainer.jepa.anti_collapse]
    for owner in (*parts, trainer.optimizer, *trainer.branches):
        yield dict(vars(owner))
    for module in parts:
        yield len(module._forward_hooks) + len(module._forward_pre_hooks)
    yield torch.autograd.backward


def test_nothing_is_left_hanging_on(tmp_path):
    trainer = begun(tmp_path / "run")
    before = [each.keys() if isinstance(each, dict) else each for each in state(trainer)]
    with pytest.raises(KeyError), attached(trainer, Split(Told())):
        inside = [each.keys() if isinstance(each, dict) else each for each in state(trainer)]
        raise KeyError
    trainer.log.close()
    after = [each.keys() if isinstance(each, dict) else each for each in state(trainer)]
    assert after == before != inside


def test_threads_are_each_sides_own():
    before = torch.get_num_threads()
    with of_config("", tiny.config(trainer__threads=2)) as two, of_config("", tiny.config()) as one:
        assert (two.threads, one.threads, torch.get_num_threads()) == (2, 1, before)
        with two.own():
            assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_batches_that_workers_have_ready_are_not_counted():
    with of_config("", tiny.config(trainer__accumulate=2)) as one:
        assert one.settle == 1
    with of_config("", tiny.config(trainer__accumulate=2, data__workers=2)) as two:
        assert two.settle == 3


def test_branches_that_join_later_are_there(monkeypatch):
    config = method("mcjepa")
    config["branches"]["motion"]["start"] = 2.0
    with of_config("", config) as side:
        trainer = side._step.args[0]
        assert trainer.step == trainer.branches[1].first > 0
        monkeypatch.setattr(trainer, "train_step", lambda taken: {})
        side.take(1)
    assert side.samples == 6


def test_fixed_batches_are_read_once(monkeypatch):
    taken = []
    with of_config("", tiny.config(data__workers=1), fixed=True) as side:
        trainer, fetch = side._step.args[0], Trainer.fetch
        monkeypatch.setattr(trainer, "fetch", lambda *args: taken.append(fetch(trainer, *args)) or taken[-1])
        side.take(5)
    assert side.settle == 1 and taken[0] is taken[2] is taken[4] and taken[1] is taken[3] is not taken[0]


def test_a_step_that_is_skipped_is_no_step():
    with of_config("", tiny.config()) as side, torch.no_grad():
        trainer = side._step.args[0]
        next(trainer.jepa.predictor.parameters()).fill_(float("nan"))
        with pytest.raises(TrainingError, match="step 0: loss or gradient is not finite"), torch.enable_grad():
            side.take(1)


OTHERS = """\
import time


def prepare(config, device, part):
    size = config["data"]["batch_size"]

    def step(number):
        with part("backward"):
            time.sleep(0.002)
        return size

    return step
"""


def test_a_step_of_someone_elses(tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(OTHERS)
    with of_file(file, tiny.config(), torch.device("cpu")) as side:
        measure([side], steps=2, repeats=1)
    assert side.samples == 8 and side.label == str(file)
    assert [step.keys() for step in side.steps] == [{REST, "backward"}] * 2
    assert all(step["backward"] >= 0.002 for step in side.steps)


WITHIN = "def prepare(config, device, part):\n"
BROKEN = {
    None: "there is no such Python file",
    "x = 1\n": r"it has no function prepare\(config, device, part\)",
    "import nothing_there\n": "line 1: ModuleNotFoundError: No module named 'nothing_there'; there must be",
    "def prepare(:\n": "line 1: SyntaxError: ",
    "def prepare(config):\n    pass\n": r"TypeError: prepare\(\) takes 1 positional argument",
    f"{WITHIN}    raise OSError('no\\nmodel')\n": "line 2: OSError: no; there must be",
    f"{WITHIN}    return 3\n": r"prepare returned 3; there must be a function prepare\(config, device, part\)",
    f"{WITHIN}    return print\n": "a step returned None, not the number of its samples",
    f"{WITHIN}    return lambda number: number / 0\n": "line 2: ZeroDivisionError: division by zero",
}


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: repr(text)[-30:])
def test_a_file_without_a_step_is_refused(text, tmp_path):
    file = tmp_path / "theirs.py"
    if text:
        file.write_text(text)
    with pytest.raises(ConfigError) as refused, of_file(file, tiny.config(), torch.device("cpu")) as side:
        side.take(1)
    said = str(refused.value)
    assert said.startswith(f"against={file}") and re.search(BROKEN[text], said) and "\n" not in said
