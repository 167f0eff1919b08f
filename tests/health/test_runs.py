"""Live trainings: every cause is told by its name, and nothing is said of runs that are well."""

import math
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jepakit import train
from jepakit.branches import branches
from jepakit.config import resolve
from jepakit.data.world import World
from jepakit.health.causes import KINDS
from jepakit.health.course import lenient
from jepakit.health.entry import suggestion
from jepakit.health.verdict import ILL, WORDS, Verdict, verdict
from jepakit.health.watch import Watch
from tests.health import runs


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "report", lambda *_: [])


def trained(folder: Path, settings: tuple[str, ...]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The configuration of the first branch, and the log."""
    alien = ("data.length=", "data.side=") if "data=folder" in settings else ("-",)  # what a folder does not know
    config = resolve([word for word in runs.words(*settings) if not word.startswith(alien)])
    folder.mkdir(exist_ok=True)
    assert train.run(config, folder) == 0
    return next(iter(branches(config).values())), lenient(folder / "log.jsonl")[0]


def copies(folder: Path, count: int = 64) -> tuple[str, ...]:
    """A folder of pictures that are all the same one."""
    folder.mkdir(parents=True)
    picture = Image.fromarray(World(things=1)[0][0][:, 0].permute(1, 2, 0).numpy())
    for number in range(count):
        picture.save(folder / f"{number}.png")
    return ("data=folder", f"data.root={folder}")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("name", runs.HEALTHY)
def test_nothing_is_said_of_a_healthy_run(name, tmp_path):
    config, log = trained(tmp_path, runs.HEALTHY[name])
    watch = Watch(config)
    words = []
    for line in log:
        assert watch(line) == ""
        words.append(watch.last.word)
    assert set(words) == {"healthy"}, watch.last
    assert len(words) >= 20 and all(math.isfinite(line["loss"]) for line in log)


@pytest.mark.parametrize("name", runs.SICK)
def test_a_sick_run_is_called_so_with_its_cause(name, tmp_path):
    kind, word, settings = runs.SICK[name]
    if kind == "data all alike":
        settings = (*settings, *copies(tmp_path / "copies"))
    config, log = trained(tmp_path / "run", settings)
    found = verdict(log, config)
    assert found.kind == kind, found
    assert found.word in {"ill": ILL, "unwell": WORDS[1:]}.get(word, (word,)), found
    for path, value in found.settings.items():
        node: Any = config
        for key in path.split("."):
            node = node[key]
        assert node == value or path in ("masker", "anti_collapse"), "the value is this run's"


def test_every_cause_is_provoked_or_told_apart_by_rule():
    provoked = {kind for kind, _, _ in runs.SICK.values()}
    assert set(KINDS) - provoked == {"penalties at the wrong place"}  # see test_verdict.py


def test_the_change_that_is_suggested_can_be_typed(tmp_path):
    """And is another value than the run's."""
    for kind, settings in {kind: settings for kind, _, settings in runs.SICK.values()}.items():
        (tmp_path / "command.txt").write_text(shlex.join(["jepakit", "train", *runs.words(*settings), "run=x"]))
        config = runs.configured(*settings)
        line = {"step": 9, "loss": 1.0, "variance": 1.0, "grad_norm": 1.0, "rank": 9.0, "std": 0.5, "target_grad": 1.0}
        cause = KINDS[kind](kind, [line | {"weight": 1.0, "samples": 2.0}], config)
        typed = suggestion(tmp_path, Verdict("watch", "", change=cause.change))
        assert bool(typed) == (kind != "data all alike")
        if typed:
            assert resolve(shlex.split(typed)[2:]) != config
