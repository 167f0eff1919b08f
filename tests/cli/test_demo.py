"""The demos: what is trained, how it is scored, which pictures are named."""

from pathlib import Path
from typing import Any

import pytest

from jepakit import demo
from jepakit.errors import ConfigError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What the trainer and the scores are asked for; the trainer leaves two pictures and a text."""
    calls: list[Any] = []

    def train(argv: list[str]) -> int:
        calls.append(argv)
        pictures = Path(argv[1].removeprefix("run=")) / "pictures"
        pictures.mkdir()
        for name in ("masks.png", "masks.webp", "masks.json"):
            (pictures / name).touch()
        return 3 if "trainer.steps=0" in argv else 0

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setattr(demo.evaluate, "command", lambda folder, options: calls.append((folder, options)))
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize("argv, recipe", [([], "demo"), (["seed=1"], "demo"), (["video", "seed=1"], "demo_video")])
def test_a_demo(asked, argv, recipe, capsys):
    assert demo.command(argv) == 0
    (first, run, *rest), *scores = asked
    folder = Path(run.removeprefix("run="))
    assert first == f"recipe={recipe}" and rest == [word for word in argv if word != "video"]
    assert folder.name.startswith(f"{recipe}-") and [each[0] for each in scores] == [folder] * len(scores)
    assert [each[1] for each in scores] == list(demo.SCORES[recipe])
    said = capsys.readouterr().out
    assert f"{folder}/pictures/masks.png\n" in said and "masks.webp\n" in said and "masks.json" not in said


def test_a_demo_that_was_stopped_is_not_scored(asked):
    assert demo.command(["video", "trainer.steps=0"]) == 3 and len(asked) == 1


def test_another_word_is_refused(asked):
    with pytest.raises(ConfigError, match="demo knows no 'vidio' .did you mean 'video'.*; there is: video"):
        demo.command(["vidio"])
    assert not asked


def test_scores_are_options_that_there_are():
    from jepakit.catalog import collect
    from jepakit.evaluate.entry import read

    for recipe in ("demo", *demo.WORDS.values()):
        for options in demo.SCORES[recipe]:
            read(options, collect())
