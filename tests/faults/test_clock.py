"""Clocks that are set, forwards and back, change neither what is learned nor what is told."""

import itertools
import json
import math
import time
from pathlib import Path

import pytest

from jepakit import runs, train
from tests.train import tiny
from tests.train.conftest import bare, undisturbed  # noqa: F401


def test_a_clock_that_jumps_at_every_look(tmp_path, undisturbed, monkeypatch):  # noqa: F811
    """Pace is measured by what no one sets; TensorBoard's dates are as wrong as the clock is, and its values right."""
    log = undisturbed()[0]
    ticks = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + 3600 * (-1) ** next(ticks))
    made = tiny.config(logger__tensorboard=True, trainer__checkpoint_every=4)
    assert train.run(made, tmp_path) == 0
    assert tiny.lines(tmp_path) == log
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        assert 0 < json.loads(line)["images_per_second"] < math.inf
    assert _losses(tmp_path) == pytest.approx([line["loss"] for line in log])


def _losses(folder: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = [event for file in sorted(folder.rglob("events.*")) for event in EventFileLoader(str(file)).Load()]
    values = [(event.step, value) for event in events for value in event.summary.value if value.tag.endswith("loss")]
    assert [step for step, _ in values] == list(range(1, tiny.STEPS + 1))
    return [value.tensor.float_val[0] if value.tensor.float_val else value.simple_value for _, value in values]


def test_a_clock_that_stands_still_gives_no_folder_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    names = [runs.fresh(tmp_path / "demo").name for _ in range(3)]
    assert names == ["demo-20260101-000000", "demo-20260101-000000-1", "demo-20260101-000000-2"]
