"""The number of processes, and a run that goes on in another number of them."""

import pytest
from omegaconf import OmegaConf

from tests.cli.conftest import STUBS

BASE = ("recipe=base", "data.root=/x", "--config-dir", str(STUBS / "options"), "--plugin", str(STUBS / "stub.py"))
ON_CPU = (*BASE, "trainer.device=cpu")


def trainer(folder="r"):
    return OmegaConf.load(f"{folder}/config.yaml").trainer


def test_several_processes_are_started_by_one_that_has_made_the_folder(cli, processes, trained):
    assert cli("train", *ON_CPU, "run=r", "trainer.devices=2").code == 130
    ((folder, settings),) = processes
    assert str(folder) == "r" and settings["devices"] == trainer().devices == 2 and not trained


def test_one_process_is_this_one(cli, processes, trained):
    for devices in ("null", "1"):
        cli("train", *ON_CPU, f"trainer.devices={devices}")
    assert len(trained) == 2 and not processes


def test_steps_stay_what_they_were(cli, processes, trained):
    cli("train", *ON_CPU, "run=r", "trainer.devices=4", "trainer.accumulate=3")
    said = cli("train", "run=r", "trainer.devices=2")
    assert said.out.splitlines()[1:] == [
        "jepakit: trainer.devices changes from 4 to 2",
        "jepakit: trainer.accumulate changes from 3 to 6, so that a step stays what it was",
    ]
    assert (trainer().devices, trainer().accumulate) == (2, 6)
    assert cli("train", "run=r").out == "jepakit: run r goes on\n"
    cli("train", "run=r", "trainer.devices=1")
    assert trained[-1][0]["trainer"]["accumulate"] == 12 and len(processes) == 3


def test_a_step_that_cannot_be_shared(cli, processes):
    cli("train", *ON_CPU, "run=r", "trainer.devices=4")
    said = cli("train", "run=r", "trainer.devices=3")
    line = (
        "a step of this run is 4 micro-batches of 16 samples, which 3 processes cannot share: go on with 1, 2, 4 of "
        "them, or say by hand what each takes, with data.batch_size and trainer.accumulate"
    )
    assert (said.code, said.err) == (2, f"jepakit: error: {line}\n") and trainer().devices == 4
    said = cli("train", "run=r", "trainer.devices=3", "trainer.accumulate=2")
    assert said.out.splitlines()[1:] == [
        "jepakit: trainer.accumulate changes from 1 to 2",
        "jepakit: trainer.devices changes from 4 to 3",
    ]


def test_a_stated_batch_is_made_up_again(cli, processes):
    cli("train", *ON_CPU, "run=r", "trainer.devices=2", "trainer.accumulate=null", "trainer.global_batch=1024")
    cli("train", "run=r", "trainer.devices=4")
    assert trainer().accumulate is None and trainer().devices == 4


def test_the_line_that_began_a_run_goes_on_in_any_number_of_processes(cli, processes, trained):
    line = (*ON_CPU, "trainer.accumulate=2")
    cli("train", *line, "trainer.devices=4", "run=r")
    for devices, accumulate in ((2, 4), (8, 1), (4, 2)):
        said = cli("train", *line, f"trainer.devices={devices}", "run=r")
        assert said.code == 130 and trainer().accumulate == accumulate, said.err
    said = cli("train", *line, "trainer.devices=4", "run=r", "data.batch_size=3")
    assert said.code == 2 and "data.batch_size=16 in place of 3" in said.err


def test_resume_auto_finds_it_whatever_the_number(cli, processes):
    cli("train", *ON_CPU, "trainer.devices=4")
    for devices in (2, 4):
        assert "goes on" in cli("train", *ON_CPU, f"trainer.devices={devices}", "resume=auto").out
    assert len({folder for folder, _ in processes}) == 1
    assert "a new one begins" in cli("train", *ON_CPU, "trainer.accumulate=4", "resume=auto").out


def test_a_launcher_has_said_how_many(cli, processes):
    from jepakit.errors import ConfigError
    from jepakit.sharing import agreed

    assert agreed(None, 0) is None and agreed(2, 0) == 2 and agreed(None, 2) == agreed(2, 2) == 2
    line = "trainer.devices=4, but the launcher has started 2 processes: leave it out"
    with pytest.raises(ConfigError, match=f"^{line}$"):
        agreed(4, 2)


CARDS = {
    ("cuda", 2, 1): "trainer.devices=2: this machine has 1 GPU",
    ("cuda", 2, 0): "trainer.devices=2: this machine has 0 GPUs",
    ("auto", 9, 8): "trainer.devices=9: this machine has 8 GPUs",
    ("cuda:1", 2, 8): "trainer.device=cuda:1 is one GPU, and trainer.devices=2: write trainer.device=cuda",
    ("auto", 2, 0): "",
    ("cuda", 8, 8): "",
    ("cpu", 2, 1): "",
}


@pytest.mark.parametrize(("device", "count", "there"), CARDS)
def test_no_more_processes_than_cards(device, count, there, cli, processes, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    said = cli("train", *BASE, f"trainer.device={device}", f"trainer.devices={count}", "run=r")
    line = CARDS[device, count, there]
    assert said.err == (f"jepakit: error: {line}\n" if line else "")
    assert bool(processes) == (not line) == (tmp_path / "r").exists()
