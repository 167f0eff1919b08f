"""Data within a run: samples that cannot be read, scores that must leave no trace, clips, and maskers that give up."""

import json
from pathlib import Path
from typing import Any

import pytest

from jepakit import plugins, train
from jepakit.errors import ConfigError, DataError
from tests.contracts import toys
from tests.data.make import labelled
from tests.train import tiny

BROKEN = ("cat/3.png", "dog/0.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """24 pictures, two of them broken."""
    root = labelled(tmp_path / "pictures", each=12)
    for name in BROKEN:
        (root / name).write_bytes(b"not a picture")
    return root


def of_folder(root: Path, **changes: Any) -> dict[str, Any]:
    made = tiny.config(**changes)
    made["data"] = {k: v for k, v in made["data"].items() if k not in ("length", "side")}
    made["data"] |= {"name": "folder", "root": str(root)}
    return made


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_bad_samples_below_the_budget(pictures, tmp_path):
    """Listed once each, however often they come up; replaced by the same others, whatever the number of workers."""
    logs = []
    for workers in (0, 2):
        folder = tmp_path / f"run{workers}"
        folder.mkdir()
        made = of_folder(pictures, data__workers=workers, data__max_bad=0.1)
        assert train.run(made, folder) == 0
        logs.append(tiny.lines(folder))
        listed = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
        assert sorted(entry["path"] for entry in listed) == [str(pictures / name) for name in BROKEN]
    assert logs[0] == logs[1] and len(logs[0]) == tiny.STEPS


def test_bad_samples_beyond_the_budget(pictures, tmp_path):
    with pytest.raises(DataError) as caught:
        train.run(of_folder(pictures, data__max_bad=0.05), tmp_path)
    line = str(caught.value)
    assert line.startswith(
        "2 of 24 samples (8.3%) could not be read, more than data.max_bad=0.05 allows; the last one: "
    )
    assert f"all so far are listed in {tmp_path}/quarantine.jsonl" in line and "\n" not in line
    assert all(line["step"] <= 3 for line in tiny.lines(tmp_path))  # found within the first epoch


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_was_stopped_for_bad_samples_goes_on_once_there_is_a_reason(workers, pictures, tmp_path):
    """Refused before it takes a step; and with more that is allowed it is the run that was never stopped."""
    once, stopped = tmp_path / "once", tmp_path / "stopped"
    for folder in (once, stopped):
        folder.mkdir()
    strict, enough = (of_folder(pictures, data__max_bad=most, data__workers=workers) for most in (0.05, 0.1))
    for made in (strict, enough):
        made["trainer"] |= {"checkpoint_every": 1}
    assert train.run(enough, once) == 0
    said, lengths = [], []
    for _ in range(3):
        with pytest.raises(DataError) as caught:
            train.run(strict, stopped)
        said.append(str(caught.value).partition("; the last one: ")[0])
        lengths.append(len(tiny.lines(stopped)))
    assert len(set(said)) == 1 and said[0].startswith("2 of 24 samples (8.3%)") and len(set(lengths)) == 1
    assert train.run(enough, stopped) == 0
    assert tiny.lines(stopped) == tiny.lines(once) and len(tiny.lines(once)) == tiny.STEPS
    assert tiny.same(tiny.saved(enough, stopped)[1], tiny.saved(enough, once)[1])


def test_a_run_that_was_stopped_for_bad_samples_goes_on_once_they_are_mended(pictures, tmp_path):
    made = of_folder(pictures, data__max_bad=0.05)
    with pytest.raises(DataError, match="^2 of 24 samples"):
        train.run(made, tmp_path)
    (pictures / BROKEN[1]).write_bytes((pictures / "dog/1.png").read_bytes())
    assert train.run(made, tmp_path) == 0 and len(tiny.lines(tmp_path)) == tiny.STEPS


def test_scores_leave_no_trace(tmp_path, undisturbed):
    log, state = undisturbed()
    made = tiny.config(evaluate__every=2, evaluate__samples=128)
    assert train.run(made, tmp_path) == 0
    lines = tiny.lines(tmp_path)
    assert [line for line in lines if "loss" in line] == log
    assert tiny.same(tiny.saved(made, tmp_path)[1], state)
    scores = [line for line in lines if "loss" not in line]
    assert [line["step"] for line in scores] == list(range(0, tiny.STEPS + 1, 2))
    found = {"step", "knn", "rankme", "alpha_req", "lidar"}
    assert set(scores[0]) == found | {"knn_random", "knn_pixels"}
    assert all(set(line) == found for line in scores[1:])


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys are registered."""
    monkeypatch.setenv(plugins.FILES, toys.__file__)
    plugins.forget()


def test_clips_by_configuration_alone(tmp_path, family):
    """V-JEPA's parts: tubelets, two masks a step, a token for each kind."""
    made = tiny.config(trainer__steps=3, data__frames=4, masker={"name": "two_tubes"}, encoder={"name": "any_grid"})
    made |= {"tokenizer": {"name": "patch", "patch": 4, "tubelet": 2}, "predictor": {"name": "kinds"}}
    made["anti_collapse"] |= {"guard": {"name": "guard"}}
    assert train.run(made, tmp_path) == 0
    for line in tiny.lines(tmp_path):
        parts = sum(line[name] for name in ("distance", "variance", "covariance"))
        assert line["loss"] == pytest.approx(parts)


def test_a_masker_that_gives_up_later_is_one_line(tmp_path, family, monkeypatch):
    monkeypatch.setattr("jepakit.build.DRAWS", 1)
    made = tiny.config(masker={"name": "moody"}, trainer__steps=200)
    with pytest.raises(ConfigError, match="^masker 'moody': no room today$"):
        train.run(made, tmp_path)
