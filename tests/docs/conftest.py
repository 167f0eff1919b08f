"""A folder in which the pages' command lines can be run."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

WEIGHTS = (
    ("IN1K-vit.h.14-300e.pth.tar", "weights", "meta"),
    ("vith14.safetensors", "weights", "safetensors"),
    ("vitl16.pth.tar", "vjepa", "vjepa"),
    ("vitl.pt", "vjepa2", "vjepa2"),
    ("vitl.safetensors", "vjepa2", "safetensors"),
)
"""Files with weights that the pages speak of, as what model of which format they are made here."""
CHECKER = Path(__file__).parents[1] / "third_party" / "jepakit-checker" / "jepakit_checker.py"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: pictures, and a third party's file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    for name in ("images/train/cat", "images/train/dog", "images/val/cat", "images/val/dog", "photos"):
        _pictures(tmp_path / name)
    (tmp_path / "photos" / "holiday.jpg").touch()
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    (tmp_path / "jepakit_checker.py").write_text(CHECKER.read_text("utf-8"), "utf-8")
    return tmp_path


def _pictures(folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (32, 32), (40 * number, 80, 120)).save(folder / f"{number}.png")


@pytest.fixture
def run(here: Path) -> Callable[[str], None]:
    """``run("first")`` makes the folder of that run: ``cifar`` is one on images, any other one of the demo."""
    from jepakit.config import resolve
    from jepakit.plugins import discover
    from jepakit.runs import create

    def make(name: str, trained: bool = False) -> None:
        images = [f"data.root={here / 'images/train'}", f"data.held_out={here / 'images/val'}"]
        clips = ["recipe=vjepa_vitt16_small", "data=world_moving", "data.size=64", "data.length=8", "data.batch_size=2"]
        clips += ["encoder.depth=2", "predictor.depth=1"]
        turned = ["encoder=vjepa2_tiny", "predictor=vjepa2_predictor", "predictor.width=192"]
        recipes = {"cifar": ["recipe=ijepa_vitt4_32px", *images], "vjepa": clips, "vjepa2": clips + turned}
        overrides = recipes.get(name, ["recipe=demo"])
        folder = create(resolve(overrides), discover(), ["train", *overrides], Path("runs") / name)
        lines = [{"step": step, "loss": 0.5, "rank": 10.0, "std": 0.5, "cosine": 0.1} for step in (1, 2, 3)]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if trained:
            _checkpoint(folder)

    return make


def _checkpoint(folder: Path) -> None:
    """Weights as they are before training, saved as those of its second step."""
    from jepakit import checkpoint, runs
    from jepakit.build import build
    from jepakit.optim import adamw

    config = runs.open_run(folder).config
    jepa = build(config).jepa
    checkpoint.save(folder, jepa, adamw(jepa, config["optim"]), 2, keep=1)


@pytest.fixture
def files(run: Callable[..., None], jepakit: Callable) -> Callable[[list[str]], None]:
    """``files(words)`` makes the files with weights that a command line reads."""

    def make(words: list[str]) -> None:
        read = {word.partition("=")[2] or word for word in words if not word.startswith("out=")}
        for name, model, to in WEIGHTS:
            if name in read:
                run(model, trained=True)
                done = jepakit(f"jepakit export run=runs/{model} to={to} out={name}")
                assert done.code == 0, done.said

    return make


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The configurations of all that would have been trained; data is opened, evaluations and benches are read, for
    real."""
    from jepakit import bench, evaluate, processes
    from jepakit.catalog import collect
    from jepakit.data import open_source
    from jepakit.evaluate.entry import read
    from jepakit.runs import open_run

    trained: list[dict[str, Any]] = []

    def run(config: dict[str, Any], folder: Path) -> int:
        assert len(open_source(config["data"]))
        trained.append(config)
        return 0

    def command(run: Path, options: dict[str, Any], files: Sequence[Path] = ()) -> int:
        assert read(options, collect(files))
        return 0

    monkeypatch.setitem(sys.modules, "jepakit.train", SimpleNamespace(run=run))
    monkeypatch.setattr(evaluate, "command", command)
    monkeypatch.setattr(processes, "run", lambda folder, options, files: run(open_run(folder).config, folder))
    untimed = SimpleNamespace(timed=lambda asked: {}, show=lambda found: None)
    for name in ("timing", "loading"):
        monkeypatch.setitem(sys.modules, f"jepakit.bench.{name}", untimed)
        monkeypatch.setattr(bench, name, untimed, raising=False)
    return trained


@pytest.fixture
def jepakit(here: Path, capsys: pytest.CaptureFixture):
    """``jepakit("jepakit plugins")`` runs a line of a page; the result has ``code`` and ``said``, both streams."""
    from jepakit.cli import main

    def call(line: str) -> SimpleNamespace:
        argv = [_real(word, here) for word in shlex.split(line, comments=True)[1:]]
        if "masker=checkerboard" in argv and "--plugin" not in argv:  # as if it were installed
            argv += ["--plugin", "jepakit_checker.py"]
        code = main(argv)
        said = capsys.readouterr()
        return SimpleNamespace(code=code, said=said.out + said.err)

    return call


def _real(word: str, here: Path) -> str:
    """A setting that names folders of this machine, with ones that are there."""
    key, _, value = word.partition("=")
    if not re.fullmatch(r"(branches\.\w+\.)?(data\.)?(root|held_out|fit_root)", key) or "/" not in value[:2]:
        return word
    several = value.startswith("[")
    found = [str(_folder(each, here)) for each in value.strip("[]").split(",")]
    return f"{key}=[{','.join(found)}]" if several else f"{key}={found[0]}"


def _folder(path: str, here: Path) -> Path:
    if not path.startswith(("/videos", "/maps")):
        return here / "images" / ("val" if path.endswith("val") else "train")
    from tests.data.make import mapped, videos

    folder = here / path.lstrip("/")
    if path.startswith("/maps"):
        return folder if folder.exists() else mapped(folder)
    return folder if folder.exists() else videos(folder, classes=("walk", "run"), each=1)
