"""Any protocol while training: its numbers are there, and those of the training are the same to the last bit."""

import json
import random
import signal

import numpy as np
import pytest
import torch

from jepakit import train
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate.during import aside
from tests.train import tiny

QUICK = {
    "knn": "",
    "linear": "epochs: 1\nlrs: [0.1]\n",
    "attentive": "epochs: 1\nlrs: [0.001]\nweight_decays: [0.1]\n",
    "lowshot_5shot": "seeds: 1\nstrengths: [0.1]\n",
    "finetune_small": "epochs: 1\nwarmup: 0\nlrs: [0.001]\nbatch_size: 16\n",
    "segment": "steps: 2\nlrs: [0.01]\nweight_decays: [0.1]\n",
    "depth": "alphas: [0.1]\n",
}
"""The protocols of every kind that a run of pictures allows, with little to learn."""


@pytest.fixture
def files(tmp_path):
    """``files("knn", "linear")``: paths of quick forms of these protocols."""

    def make(*names: str) -> list[str]:
        for name in names:
            (tmp_path / f"quick_{name}.yaml").write_text(f"like: {name}\nversion: 1\n{QUICK[name]}")
        return [str(tmp_path / f"quick_{name}.yaml") for name in names]

    return make


@pytest.fixture
def folder(tmp_path):
    """Of the run."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few held-out samples."""
    monkeypatch.setattr("jepakit.data.world.HELD_OUT", 24)


def test_every_protocol_and_not_a_bit_of_the_training(folder, files, undisturbed, capsys):
    log, state = undisturbed()
    made = tiny.config(evaluate__protocols=files(*QUICK), evaluate__protocols_every=6, evaluate__protocols_limit=24)
    assert train.run(made, folder) == 0
    lines = tiny.lines(folder)
    scores = [line for line in lines if any(key.startswith("eval/") for key in line)]
    assert [line for line in lines if line not in scores] == log
    assert tiny.same(tiny.saved(made, folder)[1], state)
    known = {key: line[key] for line in scores for key in line if key != "step"}
    assert set(known) == {f"eval/quick_{name}" for name in QUICK} and all(0 <= value < 9 for value in known.values())
    assert {line["step"] for line in scores} == {6, 12}
    results = [json.loads(line) for line in (folder / "evaluate/results.jsonl").read_text().splitlines()]
    assert {name for line in results for name in line["protocols"]} == {f"quick_{name}" for name in QUICK}
    assert {line["step"] for line in results} == {6, 12} and all(len(line["rows"]) >= 3 for line in results)
    assert "step 6: quick_knn 0." in capsys.readouterr().out


def test_a_run_that_is_stopped_and_continued_has_them_as_well(folder, files, undisturbed, at):
    log, state = undisturbed()
    made = tiny.config(evaluate__protocols=files("knn"), evaluate__protocols_every=4, evaluate__protocols_limit=24)
    at(7, lambda: signal.raise_signal(signal.SIGINT))
    assert train.run(made, folder) == train.INTERRUPTED
    assert train.run(made, folder) == 0
    lines = tiny.lines(folder)
    assert [line["step"] for line in lines if "eval/quick_knn" in line] == [4, 8, 12]
    assert [line for line in lines if "eval/quick_knn" not in line] == log
    assert tiny.same(tiny.saved(made, folder)[1], state)


@pytest.mark.parametrize(
    ("names", "data", "error", "said"),
    [
        (["lineer"], {}, ConfigError, "no protocol 'lineer' .did you mean 'linear'"),
        (["flow"], {}, ConfigError, "needs a predictor that infers motion"),
        (["count"], {"data__things": 1}, None, ""),
        (["segment"], {"evaluate__protocols_limit": 0}, ConfigError, "limit=0: it must be above 0"),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is_trained(tmp_path, names, data, error, said):
    made = tiny.config(evaluate__protocols=names, evaluate__protocols_every=100, **data)
    if error is None:
        train.Trainer(made, tmp_path).log.close()
        return
    with pytest.raises(error, match=said):
        train.Trainer(made, tmp_path)


def test_features_that_are_not_finite_end_no_run(folder, files, capsys, monkeypatch):
    made = tiny.config(trainer__steps=2, evaluate__protocols=files("knn"), evaluate__protocols_limit=24)

    def refuse(*given):
        raise DataError("the features of 3 of 24 fit samples are not finite: no score")

    monkeypatch.setattr("jepakit.evaluate.frozen.check", refuse)
    assert train.run(made, folder) == 0
    assert "quick_knn: no score: the features of 3 of 24" in capsys.readouterr().out
    assert [line["eval/quick_knn"] for line in tiny.lines(folder) if "eval/quick_knn" in line] == [None, None]


def test_every_random_state_is_put_back():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    with aside():
        random.random(), np.random.rand(), torch.rand(1)
    assert before[0] == random.getstate() and before[1] == np.random.get_state()[1].tolist()
    assert torch.equal(before[2], torch.random.get_rng_state())
