"""V-JEPA trains on clips, and what its released code asks of the loop: clipping by part, epochs that are no passes."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepakit import train
from jepakit.config import resolve
from jepakit.errors import ConfigError
from jepakit.train import Trainer
from tests.data.make import frames
from tests.train import tiny
from tests.train.test_step import norm

STEPS = 2
QUICK = (
    "recipe=vjepa_vitt16_small",
    "encoder.width=48 encoder.depth=2 encoder.heads=2 predictor.width=24 predictor.heads=2 data.size=64".split(),
    "data.frames=4 data.stride=1 data.batch_size=2 data.workers=0 evaluate.every=0 logger.tensorboard=false".split(),
    f"trainer.steps={STEPS} trainer.precision=fp32 trainer.device=cpu trainer.threads=1 trainer.log_every=1".split(),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, each a folder of six frames."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(4):
        frames(root / f"video{number}", 6)
    return root


def settings(clips: Path) -> dict[str, Any]:
    first, *others = QUICK
    return resolve([first, f"data.root={clips}", *sum(others, [])])


def test_the_small_recipe_trains_and_goes_on_as_if_it_had_not_been_stopped(clips, tmp_path, at):
    config = settings(clips)
    for name in ("through", "stopped"):
        (tmp_path / name).mkdir()
    assert train.run(config, tmp_path / "through") == 0
    at(1, lambda: signal.raise_signal(signal.SIGINT))
    assert train.run(config, tmp_path / "stopped") == train.INTERRUPTED
    assert train.run(config, tmp_path / "stopped") == 0
    lines = tiny.lines(tmp_path / "through")
    assert tiny.lines(tmp_path / "stopped") == lines and [line["step"] for line in lines] == [1, 2]
    states = [tiny.saved(config, tmp_path / each) for each in ("through", "stopped")]
    assert [step for step, _ in states] == [STEPS] * 2 and tiny.same(states[0][1], states[1][1])
    assert states[0][1]["predictor.mask_token"].abs().amin(1).gt(0).all(), "both mask tokens learn, from zero"


def test_an_epoch_is_as_many_steps_as_it_is_said_to_be(clips, tmp_path):
    """Four clips make two steps; the recipe calls 100 an epoch, ten of them a run."""
    config = settings(clips)
    config["trainer"]["steps"] = None
    trainer = Trainer(config, tmp_path)
    trainer.log.close()
    assert (len(trainer.loader), trainer.epoch_steps, trainer.steps) == (2, 100.0, 1000)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Trainer]]:
    """``begin(optim__clip=1)``: a trainer at its first step."""
    started: list[Trainer] = []

    def make(**changes: Any) -> Trainer:
        started.append(Trainer(tiny.config(**changes), tmp_path))
        return started[-1]

    yield make
    for each in started:
        each.log.close()


def stepped(trainer: Trainer, step: int = 0) -> tuple[dict[str, list[Tensor]], float]:
    """The gradients that the optimiser is given, by part, and the norm that is logged."""
    found: dict[str, list[Tensor]] = {}

    def note(*_: Any) -> None:
        for name, part in trainer.jepa.named_children():
            found[name] = [p.grad.clone() for p in part.parameters() if p.grad is not None]

    hook = trainer.optimizer.register_step_pre_hook(note)
    trainer.step = step
    values = trainer.train_step(next(trainer.stream(step, step + 1)))
    hook.remove()
    assert values is not None
    return found, float(values["grad_norm"])


def test_each_part_is_clipped_by_its_own_norm(begin):
    free, whole = stepped(begin())
    most = 0.5 * min(float(norm(free[part])) for part in ("backbone", "predictor"))
    clipped, said = stepped(begin(optim__clip=most, optim__clip_each=True))
    for part in ("backbone", "predictor"):
        scale = most / float(norm(free[part]))
        for before, after in zip(free[part], clipped[part], strict=True):
            torch.testing.assert_close(after, before * scale, rtol=2e-2, atol=0)
    assert not clipped["anti_collapse"] and said == whole
    together, _ = stepped(begin(optim__clip=most))
    everything = together["backbone"] + together["predictor"]
    torch.testing.assert_close(norm(everything), torch.tensor(most), rtol=2e-2, atol=0)  # torch divides by norm + 1e-6


def test_a_part_within_its_bounds_is_left_alone(begin):
    free, _ = stepped(begin())
    norms = {name: float(norm(free[name])) for name in ("backbone", "predictor")}
    small, large = sorted(norms, key=lambda name: norms[name])
    most = (norms[small] + norms[large]) / 2
    clipped, _ = stepped(begin(optim__clip=most, optim__clip_each=True))
    assert all(torch.equal(a, b) for a, b in zip(free[small], clipped[small], strict=True))
    torch.testing.assert_close(norm(clipped[large]), torch.tensor(most), rtol=1e-4, atol=0)


@pytest.mark.parametrize("epoch_steps", [None, 2])
def test_clipping_begins_after_its_epochs(begin, epoch_steps):
    first = epoch_steps or tiny.EPOCH
    options = {"optim__clip": 1e-3, "optim__clip_after": 1.0, "trainer__epoch_steps": epoch_steps}
    for step, clipped in ((first - 1, False), (first, True)):
        found, whole = stepped(begin(**options), step)
        given = float(norm(found["backbone"] + found["predictor"]))
        assert whole > 2e-3 and given == pytest.approx(1e-3 if clipped else whole, rel=1e-3)


@pytest.mark.parametrize("wrong", ["optim.decay=line", "optim.clip_after=-1", "trainer.epoch_steps=0"])
def test_what_means_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
        resolve([wrong])
