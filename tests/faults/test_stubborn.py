"""A sample that hangs is replaced and listed; one that no alarm reaches, or that kills its process, is told by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from jepakit import plugins, train
from jepakit.data import desks
from jepakit.errors import DataError
from tests.train import tiny

SOURCE = Path(__file__).with_name("stubborn.py")


@pytest.fixture(autouse=True)
def stubborn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is registered; a run draws no pictures at its end."""
    monkeypatch.setenv(plugins.FILES, str(SOURCE))
    plugins.forget()
    monkeypatch.setattr(train, "report", lambda *_: [])


def made(way: str, workers: int = 2, timeout: float | None = 0.3, **changes: Any) -> dict[str, Any]:
    """A tiny run of the source."""
    config = tiny.config(data__workers=workers, data__max_bad=0.1, trainer__steps=tiny.EPOCH, **changes)
    config["data"] |= {"name": "stubborn", "way": way, "at": 5, "timeout": timeout}
    return config


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_what_hangs_is_replaced_and_listed(tmp_path):
    """By the same sample as if it could not be read, whatever the number of workers."""
    logs = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        assert train.run(made("sleep", workers), folder) == 0
        logs.append(tiny.lines(folder))
        (entry,) = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
        assert (entry["index"], entry["path"]) == (5, "noise 5")
        assert entry["reason"] == "not read within 0.3 seconds (data.timeout)" and entry["replaced_by"] != 5
    assert logs[0] == logs[1] and len(logs[0]) == tiny.EPOCH


def test_what_no_alarm_reaches_is_told_by_name(tmp_path):
    with pytest.raises(DataError) as caught:
        train.run(made("deaf", workers=1), tmp_path)
    assert str(caught.value) == "no end of reading noise 5 after 0.6 seconds (twice data.timeout)"


@pytest.mark.parametrize("timeout", [0.3, None])
def test_what_kills_its_process_is_told_by_name(timeout, tmp_path):
    with pytest.raises(DataError) as caught:
        train.run(made("die", workers=1, timeout=timeout), tmp_path)
    line = str(caught.value)
    assert line.startswith("DataLoader worker ") and "\n" not in line
    assert line.endswith(", reading noise 5; if memory ran out, try fewer data.workers")


@pytest.mark.parametrize("timeout", [30.0, None])
def test_what_is_only_slow_is_waited_for(timeout, tmp_path, monkeypatch):
    """However often one looks meanwhile."""
    monkeypatch.setattr(desks, "LOOK", 0.1)
    assert train.run(made("slow", workers=1, timeout=timeout), tmp_path) == 0
    assert not (tmp_path / "quarantine.jsonl").exists() and len(tiny.lines(tmp_path)) == tiny.EPOCH
