"""A worker in this process: what others call, and how its end is told."""

from pathlib import Path

import pytest

from jepakit import distributed, worker
from jepakit.config import resolve
from jepakit.errors import ConfigError, TrainingError
from jepakit.room import Report

from .test_sharing import ON_CPU, STUBS

FILES, FOLDERS = [STUBS / "stub.py"], [STUBS / "options"]


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return resolve([each for each in ON_CPU if "=" in each], FILES, FOLDERS) | {"run": "r"}


def test_what_ray_and_kubernetes_call_begins_a_run_and_goes_on_with_it(config, trained, capsys):
    trained.code = 130
    assert worker.run(config) == 130 and not Path("r/finished").exists()
    assert worker.run(config) == 130
    assert capsys.readouterr().out == "jepakit: run r\njepakit: run r goes on\n"
    trained.code = 0
    assert worker.run("r") == 0
    assert [folder for _, folder in trained] == [Path("r")] * 3
    assert all(made == config | {"trainer": config["trainer"] | {"devices": 1}} for made, _ in trained)


def test_a_folder_is_checked_again(config, trained):
    with pytest.raises(ConfigError, match="^run=nowhere: there is no run"):
        worker.run("nowhere")
    worker.run(config)
    file = Path("r/config.yaml")
    file.write_text(file.read_text().replace("epochs:", "epocs:"))
    with pytest.raises(ConfigError, match="^unknown key 'trainer.epocs' \\(did you mean 'epochs'"):
        worker.run("r")


ENDS = {
    "a mistake of the user's": (TrainingError("two\nlines"), Report(3, "two lines")),
    "another process failed": (distributed.Elsewhere("there"), Report(2, elsewhere=True)),
    "a second Ctrl-C": (KeyboardInterrupt(), Report(130)),
    "an exit": (SystemExit(4), Report(4)),
}


@pytest.mark.parametrize("end", ENDS)
def test_how_an_end_is_told(end):
    error, told = ENDS[end]
    found = worker._report(error)
    found.time = told.time
    assert found == told


def test_a_mistake_of_the_programs_is_told_with_its_traceback():
    try:
        raise ZeroDivisionError("by nobody")
    except ZeroDivisionError as error:
        report = worker._report(error)
    assert (report.code, report.error) == (1, "ZeroDivisionError: by nobody") and "test_worker.py" in report.trace
