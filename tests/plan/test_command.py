"""``jepakit plan``: what it prints and writes, and what it says to a mistake."""

import json

import pytest

from jepakit.cli import main
from jepakit.config import resolve
from jepakit.plan.count import Counts, step

SMALL = ["recipe=ijepa_vitt4_32px", "data.batch_size=4", "encoder.depth=1", "predictor.depth=1"]


@pytest.fixture(scope="module")
def small() -> Counts:
    """The step of all plans here: none of them changes what is counted."""
    return step(resolve(SMALL, complete=False))


@pytest.fixture
def counted(small, monkeypatch):
    """It is counted once."""
    monkeypatch.setattr("jepakit.plan.estimate.step", lambda config: small)


@pytest.fixture
def plan(tmp_path, monkeypatch, capsys):
    """``plan("gpus=2")`` plans a small model; the result is the exit code, what was printed, and the file's content."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*argv: str):
        code = main(["plan", *SMALL, "out=plan.json", *argv])
        said = capsys.readouterr()
        file = tmp_path / "plan.json"
        return code, said.out + said.err, json.loads(file.read_text()) if file.is_file() else None

    return call


def rows(said: str) -> dict[str, str]:
    """The lines of the last table, by what they begin with."""
    lines = [line.partition("  ") for line in said.splitlines()]
    return {name: value.strip() for name, _, value in lines}


def test_plan_without_data(plan):
    code, said, found = plan("gpus=16", "gpu=a100", "memory=40", "mfu=0.2", "images=50000", "trainer.epochs=10")
    shown = rows(said)
    assert found["seconds_sending"] == pytest.approx(found["leaving_machine"] / (8 * 25e9))
    assert code == 0 and found["strategy"] == "ddp" and found["samples_per_step"] == 64
    assert found["steps"] == 10 * (50000 // 64) and "images=50000" in shown["steps"]
    counts = found["counts"]
    assert found["seconds"] == pytest.approx(counts["flops"] / (0.2 * 312e12) * found["steps"])
    assert found["checkpoint"] == 4 * (counts["trained"] * 3 + counts["frozen"])
    assert found["sent"] == {"all-reduce of gradients": 2 * 15 / 16 * 4 * counts["trained"]}
    assert shown["encoder"] == f"{counts['parameters']['encoder']:,}"
    assert "assumed: a100 reaches mfu=0.2 of 312 TFLOP/s, has memory=40 GiB" in said
    assert said.endswith("written to plan.json\n")


def test_length_that_is_not_known(counted, plan):
    code, said, found = plan()
    assert code == 0 and found["steps"] is found["seconds"] is None
    assert rows(said)["steps"] == "not known: add images=N, how many samples an epoch has"
    assert "time of the run" not in said


@pytest.mark.parametrize(
    ("words", "steps", "source"),
    [
        (["trainer.steps=7"], 7, "trainer.steps=7"),
        (["trainer.epoch_steps=5", "trainer.epochs=2"], 10, "trainer.epochs=2 of 5 steps, trainer.epoch_steps=5"),
        (["images=80", "trainer.epochs=2", "trainer.accumulate=2"], 20, "trainer.epochs=2 of 10 steps, images=80"),
    ],
)
def test_length_and_where_it_comes_from(counted, plan, words, steps, source):
    found = plan(*words)[2]
    assert (found["steps"], found["length_from"]) == (steps, source)


def test_devices_and_strategy_are_those_of_the_trainer(counted, plan):
    _, said, found = plan("trainer.devices=4", "strategy=hsdp", "trainer.shard=2", "trainer.accumulate=2")
    assert found["assumed"]["gpus"] == 4 and found["shard"] == 2 and "strategy hsdp: asked for" in said
    assert list(found["sent"])[-1] == "all-reduce of gradients"
    assert found["leaving_machine"] == 0 and "leaves each machine" not in said
    assert found["samples_per_step"] == 4 * 4 * 2


def test_a_device_without_that_precision(counted, plan):
    _, said, found = plan("gpu=v100", "images=80")
    assert found["peak"] is None and "a peak that is not known in this precision" in said and "time of a" not in said


OWN = "gpus, per_machine, gpu, memory, mfu, network, images, strategy, out"
MISTAKES = {
    "memry=80": f"plan knows no 'memry' (did you mean 'memory'?); its own settings are: {OWN}; all others are those of "
    "train",
    "gpus=0": "gpus=0: a whole number of at least 1 is needed",
    "images=1.5": "images=1.5: a whole number of at least 1 is needed",
    "memory=none": "memory=none: a number above 0 is needed",
    "mfu=40": "mfu=40: it is a share of the device's peak, at most 1",
    "strategy=fsdp": "trainer.strategy=fsdp is no choice (did you mean 'fsdp2'?); there are: auto, ddp, fsdp2, hsdp",
    "out=plan.txt": "out is given twice: out=plan.json and out=plan.txt",
    "optim.lrr=1": "",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_one_line(plan, word):
    code, said, found = plan(word)
    assert code == 2 and found is None and said.count("\n") == 1
    assert MISTAKES[word] in said and said.startswith("jepakit: error: ")


def test_a_device_that_nobody_knows(plan):
    assert "gpu=h10 (did you mean 'h100'?) is not known; there are: t4, " in plan("gpu=h10")[1]


def test_what_does_not_go_together(plan):
    said = plan("images=80", "trainer.epoch_steps=5")[1]
    assert "images=80 has no place here: an epoch is trainer.epoch_steps=5" in said
    said = plan("gpus=4", "strategy=hsdp", "trainer.shard=3")[1]
    assert "trainer.shard=3: 4 processes are no multiple of it" in said
