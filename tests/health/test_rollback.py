"""``health.on_collapse``: stop, or go back to where the run was healthy and on with smaller steps."""

import json
import shutil

import pytest
import torch

from jepakit import checkpoint, train
from jepakit.build import build
from jepakit.errors import CollapseError
from jepakit.health import rollback
from jepakit.health.course import current
from jepakit.health.verdict import Verdict
from jepakit.health.watch import Watch
from jepakit.log import keep_until, read
from tests.train import tiny


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(train, "report", lambda *_: [])


@pytest.fixture
def ill(monkeypatch):
    """``ill(5, 6)``: features are called collapsing after these steps, the first time, and healthy after any other."""

    def arrange(*steps: int, always: bool = False) -> None:
        told: list[int] = []

        def judge(self) -> Verdict:
            at = self.lines[-1]["step"]
            wrong = at in steps and (always or at not in told)
            told.extend([at] * wrong)
            self.last = Verdict("collapsing", f"at step {at}") if wrong else Verdict("healthy", "well")
            self.collapsing = wrong
            return self.last

        monkeypatch.setattr(Watch, "judge", judge)
        monkeypatch.setattr(Watch, "__init__", _begun)

    return arrange


def _begun(self, config, lines=()):
    self.config, self.lines, self.collapsing = config, list(lines), False
    self.last = Verdict("healthy", "it has not begun yet")


def config(on_collapse="rollback", **changes):
    health = {"on_collapse": on_collapse, "factor": 0.5, "rollbacks": 2}
    return tiny.config(**{"trainer__checkpoint_every": 2, **changes}) | {"health": health}


def go(made, folder):
    folder.mkdir(exist_ok=True)
    return train.run(made, folder)


def slower(made, factor=0.5):
    rates = {name: made["optim"][name] * factor for name in ("lr", "start_lr", "final_lr")}
    return made | {"optim": made["optim"] | rates}


def test_a_rollback_is_the_run_that_went_on_from_there_with_smaller_steps(tmp_path, ill):
    """To the last bit: a run that was trained to the checkpoint, and continued with half of the rates."""
    ill(7)
    assert go(config(), tmp_path / "back") == 0
    ill()
    assert go(config(trainer__steps=12, trainer__keep=9), tmp_path / "plain") == 0
    for folder in checkpoint.folders(tmp_path / "plain"):
        if checkpoint.state(folder)["step"] > 6:
            shutil.rmtree(folder)
    assert go(slower(config()), tmp_path / "plain") == 0
    made = config()
    (step, back), (other, plain) = (tiny.saved(made, tmp_path / name) for name in ("back", "plain"))
    assert step == other == tiny.STEPS and tiny.same(back, plain)
    lines = current(tiny.lines(tmp_path / "back"))
    said = [{k: v for k, v in line.items() if k != "rollback"} for line in lines if "loss" in line]
    assert said == tiny.lines(tmp_path / "plain")


def test_the_log_says_what_was_done_and_loses_nothing(tmp_path, ill, capsys):
    ill(7)
    assert go(config(), tmp_path) == 0
    log = tiny.lines(tmp_path)
    assert [line["step"] for line in log] == [*range(1, 8), 6, *range(7, 13)]
    assert [line.get("rollback") for line in log] == [None] * 7 + [1] * 7
    assert log[7] == {"step": 6, "rollback": 1, "rolled_back_from": 7, "lr_scale": 0.5, "reason": "at step 7"}
    assert [line["step"] for line in current(log)] == [*range(1, 7), 6, *range(7, 13)]
    assert log[8]["lr"] == pytest.approx(log[6]["lr"] / 2)
    assert "rollback 1: from step 7 to step 6, learning rates x 0.5" in capsys.readouterr().out


def test_stopped_in_the_middle_a_rolled_back_run_goes_on_as_if_it_had_not_been(tmp_path, ill, monkeypatch):
    import signal

    ill(7)
    assert go(config(), tmp_path / "whole") == 0
    ill(7)
    original = train.Trainer.gradients

    def gradients(self, taken):
        if self.step + 1 == 9:
            monkeypatch.setattr(train.Trainer, "gradients", original)
            signal.raise_signal(signal.SIGINT)
        return original(self, taken)

    monkeypatch.setattr(train.Trainer, "gradients", gradients)
    assert go(config(), tmp_path / "cut") == train.INTERRUPTED
    assert go(config(), tmp_path / "cut") == 0
    assert tiny.lines(tmp_path / "cut") == tiny.lines(tmp_path / "whole")
    ends = [tiny.saved(config(), tmp_path / name)[1] for name in ("cut", "whole")]
    assert tiny.same(*ends)


@pytest.mark.parametrize("where", ["rewind", "finish"])
def test_killed_while_it_is_rolled_back(where, tmp_path, ill, monkeypatch):
    """Whatever was done of it: nothing yet, or the line in the log and nothing else."""
    ill(7)
    assert go(config(), tmp_path / "whole") == 0
    ill(7, always=where == "rewind")
    owner = {"rewind": train.Log, "finish": rollback}[where]
    original, calls = getattr(owner, where), []

    def killed(*args):
        calls.append(args)
        if len(calls) == 1 + (where == "finish"):  # the first one is when the run begins
            raise OSError("killed")
        return original(*args)

    monkeypatch.setattr(owner, where, killed)
    with pytest.raises(OSError, match="killed"):
        go(config(), tmp_path / "cut")
    monkeypatch.setattr(owner, where, original)
    ill(7) if where == "rewind" else ill()
    assert go(config(), tmp_path / "cut") == 0
    assert tiny.lines(tmp_path / "cut") == tiny.lines(tmp_path / "whole")


def test_it_goes_back_so_many_times_and_is_then_stopped(tmp_path, ill):
    ill(7, always=True)
    with pytest.raises(CollapseError, match="stopped and saved at step 7 after 2 rollbacks: at step 7; why: jepakit"):
        go(config(), tmp_path)
    events = [line for line in tiny.lines(tmp_path) if "rolled_back_from" in line]
    assert [line["lr_scale"] for line in events] == [0.5, 0.25]
    assert [line["step"] for line in events] == [6, 6]


def test_the_very_first_steps_go_back_to_the_beginning(tmp_path, ill):
    """Which is the beginning to the last bit: saving it has left no trace in the optimiser."""
    ill(1)
    assert go(config(), tmp_path / "back") == 0
    ill()
    assert go(slower(config("warn")), tmp_path / "plain") == 0
    ends = [tiny.saved(config(), tmp_path / name)[1] for name in ("back", "plain")]
    assert tiny.same(*ends)


def test_stop_saves_says_how_to_go_on_and_has_its_own_exit_code(tmp_path, ill, capsys, monkeypatch):
    from jepakit import cli, launch

    ill(7)
    monkeypatch.setattr(launch, "train", lambda argv, files: go(config("stop"), tmp_path))
    assert cli.main(["train"]) == 4
    said = capsys.readouterr().err
    assert said.startswith("jepakit: error: stopped and saved at step 7: at step 7; why: jepakit health run=")
    assert "health.on_collapse=warn" in said and said.count("\n") == 1
    assert tiny.saved(config("stop"), tmp_path)[0] == 7
    assert go(config("warn"), tmp_path) == 0
    assert [line["step"] for line in tiny.lines(tmp_path)] == list(range(1, 13))


def test_a_warning_changes_nothing(tmp_path, ill):
    ill(7)
    assert go(config("warn"), tmp_path / "warned") == 0
    ill()
    assert go(config("stop"), tmp_path / "other") == 0
    assert tiny.lines(tmp_path / "warned") == tiny.lines(tmp_path / "other")


def test_the_last_healthy_checkpoint_stays_whatever_comes_after_it(tmp_path, ill):
    ill(*range(7, 13), always=True)
    assert go(config("warn"), tmp_path) == 0
    states = map(checkpoint.state, checkpoint.folders(tmp_path))
    assert {state["step"]: state["health"] for state in states} == {6: "healthy", 10: "collapsing", 12: "collapsing"}
    assert rollback.target(tmp_path) == 6
    (checkpoint.folders(tmp_path)[0] / "state.json").write_text("{}")
    assert rollback.target(tmp_path) is None, "a damaged one is none"


def test_checkpoints_of_before_there_was_health_are_taken_for_healthy(tmp_path):
    made = tiny.config(trainer__steps=1)
    jepa = build(made, 1).jepa
    optimizer = torch.optim.AdamW(jepa.parameters())
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, jepa, optimizer, step, 2)
    assert [checkpoint.state(folder)["step"] for folder in checkpoint.folders(tmp_path)] == [2, 3]
    assert rollback.target(tmp_path) == 3


def test_a_log_that_was_rolled_back_is_cut_where_it_goes_on(tmp_path):
    lines = [{"step": s} for s in (1, 2, 3)] + [{"step": 2, "rollback": 1, "rolled_back_from": 3}]
    lines += [{"step": 3, "rollback": 1}, {"step": 4, "rollback": 1}]
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5, "ro')
    keep_until(file, 3, attempt=1)
    assert read(file) == lines[:5]
    keep_until(file, -1, attempt=1)
    assert read(file) == lines[:4], "what was given up stays, and why"
    keep_until(file, 1)
    assert read(file) == [lines[0], lines[3]]


def test_compare_and_curves_read_what_the_run_came_to(tmp_path):
    from jepakit.evaluate.recorded import read as recorded

    lines = [{"step": s, "knn": s / 10, "loss": 1.0} for s in (1, 2, 3)]
    lines += [{"step": 1, "rollback": 1, "rolled_back_from": 3, "lr_scale": 0.5, "reason": "."}]
    lines += [{"step": 2, "rollback": 1, "loss": 0.5}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (found,) = recorded([tmp_path])
    assert found.log["knn"] == 0.1 and found.log["loss"] == 0.5
