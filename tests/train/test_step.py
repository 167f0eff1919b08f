"""One optimiser step: what the gradient is, what happens to one that is not finite, and precision."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepakit import seeds, train
from jepakit.branch import Branch, Taken
from jepakit.device import CAPACITIES, REMEMBERED
from jepakit.errors import TrainingError
from jepakit.train import Trainer
from jepakit.types import Batch, Losses
from tests.train import tiny
from tests.train.test_joined import PAIR


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., tuple[Trainer, list[Taken]]]]:
    """``begin(optim__clip=1)``: a trainer at its first step, and that step's micro-batches."""
    started: list[Trainer] = []

    def make(**changes: Any) -> tuple[Trainer, list[Taken]]:
        trainer = Trainer(tiny.config(**changes), tmp_path)
        started.append(trainer)
        return trainer, next(trainer.stream(0, 1))

    yield make
    for each in started:
        each.log.close()


def gradients(trainer: Trainer, batches: list[Taken]) -> tuple[list[Tensor], dict[str, Any]]:
    """What the optimiser is given, and the step's values."""
    found: list[Tensor] = []
    trained = [p for p in trainer.jepa.parameters() if p.requires_grad]
    hook = trainer.optimizer.register_step_pre_hook(lambda *_: found.extend(p.grad.clone() for p in trained))
    values = trainer.train_step(batches)
    hook.remove()
    assert found and values is not None
    return found, values


def norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([each.pow(2).sum() for each in tensors]).sum().sqrt()


@pytest.mark.parametrize(("changes", "least", "few"), [({}, 4, True), (PAIR, 4, False), ({}, 1024, False)])
def test_few_kernels_are_remembered_where_lengths_change(begin, changes, least, few, monkeypatch):
    monkeypatch.setattr(train, "LONG", least)
    for name in CAPACITIES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    begin(**changes)
    assert [os.environ.get(name) for name in CAPACITIES] == [str(REMEMBERED) if few else None] * 2


def test_accumulated_gradient_is_the_mean_over_micro_batches(begin):
    """Each micro-batch has masks and noise of its own, so that a large batch at once is another sum than this one."""
    trainer, ((branch, batches),) = begin(data__batch_size=4, trainer__accumulate=4)
    totals = []
    for number, batch in enumerate(batches):
        figure = trainer.branches[0].figure
        masks = figure.masker(figure.grid, 4, seeds.generator("masks", 0, 0, number))
        torch.manual_seed(seeds.key("noise", 0, 0, number))
        totals.append(trainer.jepa(batch.views, masks).total)
    expected = torch.autograd.grad(
        torch.stack(totals).mean(), [p for p in trainer.jepa.parameters() if p.requires_grad]
    )
    found, values = gradients(trainer, [Taken(branch, batches)])
    assert len(batches) == 4 and len({total.item() for total in totals}) == 4
    torch.testing.assert_close(found, list(expected))
    torch.testing.assert_close(values["loss"], torch.stack(totals).mean().detach())
    torch.testing.assert_close(values["grad_norm"], norm(list(expected)))


def test_an_accumulated_step_is_one_step(tmp_path):
    made = tiny.config(trainer__accumulate=2, trainer__steps=None, trainer__epochs=4.0)
    assert train.run(made, tmp_path) == 0
    assert [(line["step"], line["epoch"]) for line in tiny.lines(tmp_path)] == [
        (step, step / (tiny.EPOCH // 2)) for step in range(1, 4 * (tiny.EPOCH // 2) + 1)
    ]


def test_clipping(begin):
    limit = 1e-3
    free, before = gradients(*begin())
    cut, values = gradients(*begin(optim__clip=limit))
    assert before["grad_norm"] == values["grad_norm"] > limit
    torch.testing.assert_close(norm(cut), torch.tensor(limit), rtol=1e-3, atol=0)
    for one, other in zip(cut, free, strict=True):
        torch.testing.assert_close(one, other * limit / before["grad_norm"], rtol=1e-3, atol=1e-9)
    wide, _ = gradients(*begin(optim__clip=1e3))
    torch.testing.assert_close(wide, free)


def test_teacher_and_optimiser_move_after_the_gradient(begin):
    trainer, batches = begin()
    student = {name: p.clone() for name, p in trainer.jepa.backbone.named_parameters()}
    teacher = {name: p.clone() for name, p in trainer.jepa.target_backbone.named_parameters()}
    trainer.train_step(batches)
    for name, slow in trainer.jepa.target_backbone.named_parameters():
        fast = dict(trainer.jepa.backbone.named_parameters())[name]
        assert not torch.equal(fast, student[name])
        torch.testing.assert_close(slow, 0.996 * teacher[name] + 0.004 * fast)
    assert all(p.grad is None for p in trainer.jepa.parameters())


# Not finite ---------------------------------------------------------------------------------------------------------


def poisoned(result: Losses, jepa: Any, way: str) -> Losses:
    """An infinite loss, one that is not a number, or a fine loss whose gradient is not finite."""
    if way == "gradient":
        return result._replace(total=result.total + sum((p * 0).sqrt().sum() for p in jepa.predictor.parameters()))
    factor = torch.tensor({"inf": torch.inf, "nan": torch.nan}[way])
    return Losses(result.total * factor, {name: part * factor for name, part in result.parts.items()}, result.trace)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``poison({3, 4}, "inf")``: these steps (counted from 1) go wrong, in their first micro-batch only."""

    def arrange(steps: Any, way: str = "nan") -> None:
        original = Branch.losses

        def losses(self: Branch, batch: Batch, step: int, number: int) -> Losses:
            result = original(self, batch, step, number)
            return poisoned(result, self.figure.jepa, way) if step + 1 in steps and number == 0 else result

        monkeypatch.setattr(Branch, "losses", losses)

    return arrange


def everything(trainer: Trainer) -> dict[str, Tensor]:
    moments = {f"{i}.{k}": v for i, s in trainer.optimizer.state_dict()["state"].items() for k, v in s.items()}
    return {name: value.clone() for name, value in (trainer.jepa.state_dict() | moments).items()}


@pytest.mark.parametrize("way", ["inf", "nan", "gradient"])
def test_a_step_that_is_not_finite_moves_nothing(way, begin, poison):
    trainer, batches = begin(trainer__accumulate=2, optim__clip=1.0)
    trainer.train_step(batches)
    trainer.step += 1
    before = everything(trainer)
    poison({2}, way)
    assert trainer.train_step(batches) is None and trainer.skipped == 1
    assert tiny.same(everything(trainer), before)
    assert all(p.grad is None for p in trainer.jepa.parameters())
    trainer.step += 1
    assert trainer.train_step(batches) is not None and trainer.skipped == 0
    assert not tiny.same(everything(trainer), before)


def test_a_run_passes_over_a_few_and_says_so(tmp_path, poison, capsys):
    poison({3, 4, 7})
    made = tiny.config(trainer__max_skips=2)
    assert train.run(made, tmp_path) == 0
    assert [line["step"] for line in tiny.lines(tmp_path)] == [1, 2, 5, 6, 8, 9, 10, 11, 12]
    said = [line for line in capsys.readouterr().out.splitlines() if "not finite" in line]
    assert len(said) == 3 and "step 2: loss or gradient is not finite, step skipped; its samples are in" in said[0]


def test_too_many_in_a_row_end_the_run(tmp_path, poison):
    poison(range(5, 100))
    made = tiny.config(trainer__max_skips=3, trainer__accumulate=2, trainer__checkpoint_every=2)
    with pytest.raises(TrainingError) as caught:
        train.run(made, tmp_path)
    path = tmp_path / "nonfinite-step-00000007.json"
    assert str(caught.value) == (
        "4 steps in a row had a loss or gradient that is not finite; the samples of the last one are in "
        f"{path}; try a lower optim.lr, optim.clip, or trainer.precision=fp32"
    )
    assert caught.value.exit_code == 3
    found = json.loads(path.read_text())
    trainer = Trainer(made, tmp_path)
    trainer.log.close()
    keys = [key for batch in trainer.loader.keys(14, 16) for key in batch]
    assert found["index"] == [index for _, index in keys] and len(found["index"]) == 16
    assert found["samples"] == [f"world seed 0 train {index}" for _, index in keys]
    assert found["step"] == 7 and found["seed"] == 0 and found["values"]["loss"] == "nan"
    assert tiny.saved(made, tmp_path)[0] == 6  # the step of the last checkpoint before it; as good as that of step 4


def test_skipped_steps_are_skipped_again_after_a_restart(tmp_path, poison, at):
    """To the last bit. How many were skipped in a row is not kept: a restart begins to count anew."""
    poison({3, 5, 6, 8})
    made = tiny.config()
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    assert train.run(made, tmp_path / "whole") == 0
    at(5, lambda: signal.raise_signal(signal.SIGTERM))
    assert train.run(made, tmp_path / "parts") == train.INTERRUPTED
    assert train.run(made, tmp_path / "parts") == 0
    assert tiny.lines(tmp_path / "parts") == tiny.lines(tmp_path / "whole")
    assert tiny.same(tiny.saved(made, tmp_path / "parts")[1], tiny.saved(made, tmp_path / "whole")[1])


# Precision ----------------------------------------------------------------------------------------------------------


def test_bf16_is_close_and_keeps_parameters_in_fp32(undisturbed):
    (exact, _), (rough, state) = undisturbed(), undisturbed(trainer__precision="bf16")
    losses = [[line["loss"] for line in log] for log in (exact, rough)]
    assert losses[0] != losses[1]
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=0.05, atol=0)
    assert {value.dtype for value in state.values()} == {torch.float32}


COMPILED = """
import json, sys
from pathlib import Path
from jepakit import train
train.report = lambda *_: []
sys.exit(train.run(json.loads(sys.argv[1]), Path(sys.argv[2])))
"""


def test_compiled_blocks_give_the_same_losses(tmp_path):
    """In a process of its own, where no call's shapes are checked: the checks do not compile. The predictor's blocks
    are like the encoder's, which halves the time."""
    predictor = tiny.BASE["encoder"] | {"name": "vit_predictor"}
    made = tiny.config(trainer__steps=3, predictor={k: v for k, v in predictor.items() if k != "drop_path"})
    folders = [tmp_path / "eager", tmp_path / "compiled"]
    for folder in folders:
        folder.mkdir()
    assert train.run(made, folders[0]) == 0
    given = json.dumps(made | {"trainer": made["trainer"] | {"compile": True}})
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    command = [sys.executable, "-c", COMPILED, given, str(folders[1])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    eager, compiled = ([line["loss"] for line in tiny.lines(folder)] for folder in folders)
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(eager), rtol=1e-5, atol=0)
    assert tiny.saved(made, folders[0])[1].keys() == tiny.saved(made, folders[1])[1].keys()
