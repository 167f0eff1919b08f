"""The page about a run: what is on it, of every family of recipes, and of runs that lack something."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch

from jepakit import checkpoint, runs
from jepakit.branches import branches
from jepakit.build import Built, build, build_backbone
from jepakit.catalog import collect
from jepakit.cli import main
from jepakit.config import resolve
from jepakit.data import open_source
from jepakit.errors import ConfigError, DataError
from jepakit.evaluate.features import Reading
from jepakit.optim import make_optimizer
from jepakit.pictures import report as pages
from jepakit.pictures.neighbours import neighbours
from jepakit.pictures.report import Trained, command, refresh, report
from tests.data.make import labelled
from tests.evaluate.test_flow_run import PLUGIN
from tests.evaluate.test_flow_run import RECIPE as MOVING
from tests.pictures.html import checked

DATA = ["data.size=16", "data.batch_size=4", "data.workers=0"]
WORLD = [*DATA, "data.side=16", "data.length=8"]
PARTS = ["encoder.width=16", "encoder.depth=1", "encoder.heads=2", "predictor.width=16", "predictor.depth=1"]
IMAGES = ["recipe=demo", *PARTS, "masker.min_keep=0"]
FAMILIES = {
    "clips": ["recipe=demo_video", *PARTS, *WORLD, "data.frames=4"],
    "views": ["recipe=pair.yaml"],
    "branches": ["recipe=moving.yaml"],
}
PAIR = """\
defaults:
  - override /data: world
  - override /tokenizer: patch
  - override /masker: pair
  - override /encoder: vit
  - override /predictor: identity
  - override /anti_collapse: [vicreg]
data: {length: 8, side: 16, size: 16, batch_size: 4, workers: 0}
views: {one: {}, other: {}}
tokenizer: {patch: 4}
encoder: {width: 16, depth: 1, heads: 2}
trainer: {steps: 2, device: cpu, precision: fp32, threads: 1}
evaluate: {every: 0}
"""
RESULT = {
    "format": 1,
    "step": 3,
    "weights": "target",
    "label": "class",
    "classes": 2,
    "precision": "fp32",
    "test": {"text": "8 samples, <held out>", "samples": 8, "skipped": []},
    "fit": {"text": "8 samples, train", "samples": 8, "skipped": []},
    "protocols": {"knn": {"protocol": "knn", "version": 1, "k": 20, "grid": {"temperature": 0.07}}},
    "rows": [
        {"name": "trained encoder", "knn": {"score": 0.5, "low": 0.4, "high": 0.6}},
        {"name": "random encoder", "knn": {"score": 0.45, "low": 0.35, "high": 0.55}},
        {"name": "raw pixels", "knn": {"score": 0.2, "low": 0.1, "high": 0.3}},
    ],
}


PUBLISHED = """\
published:
- {measure: ImageNet <top-1>, score: 54.2, source: Paper & Table 6, when: {seed: 0}}
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small pictures of few samples."""
    for place in ("style.DPI", "mosaic.DPI", "panels.DPI"):
        monkeypatch.setattr(f"jepakit.pictures.{place}", 40)
    monkeypatch.setattr("jepakit.pictures.asked.MOST", 16)
    monkeypatch.setattr("jepakit.pictures.decoder.STEPS", 5)
    for draw in (pages.neighbours, pages.spectrum):
        monkeypatch.setattr(pages, draw.__name__, functools.partial(draw, limit=16))
    monkeypatch.setattr(pages, "picked", functools.partial(pages.picked, count=2))


def made(folder: Path, overrides: list[str], *argv: str) -> tuple[Path, dict]:
    """A run as training begins it, with a log of three steps."""
    config = resolve(overrides, [PLUGIN])
    runs.create(config, collect().plugins, ["train", *overrides, *argv], folder)
    (folder / "log.txt").write_text(
        f"run {folder}  recipe demo  device cpu\nparameters: encoder 1,234\ndata: 8 things; tokens 1 x 4 x 4\n"
        "4 samples a step, 3 steps (1.5 epochs)\nstep 1/3 loss 1\n"
    )
    lines = [{"step": i, "loss": 1 / i, "std": 0.5, "rank": 9.0, "grad_norm": 1.0} for i in (1, 2, 3)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder, config | {"run": str(folder)}


def reported(folder: Path, config: dict) -> tuple[list[Path], Built]:
    """The report of a model as it is before training, as it is drawn at the end of a run."""
    built = build(config)
    trained = [Trained(name, each, built.figures[name]) for name, each in branches(config).items()]
    backbones = {"trained encoder": built.jepa.target_backbone, "random encoder": build_backbone(config)[0]}
    paths = report(config, folder, backbones, open_source(config["data"]), torch.device("cpu"), trained)
    return paths, built


PICTURES = ["health.png", "curves.png", "masks.png", "spectrum.png", "features.png", "neighbours.png"]
SEEN = {
    "clips": [*PICTURES[:3], "masks.webp", *PICTURES[3:], "predicted.png", "predictions.png"],
    "views": PICTURES,
    "branches": [*PICTURES[:3], "masks-motion.png", *PICTURES[3:], "flow.png"],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_report(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, recipe in {"pair": PAIR, "moving": MOVING}.items():
        Path(f"{name}.yaml").write_text(recipe)
    folder, config = made(tmp_path / "run", FAMILIES[family])
    before = torch.random.get_rng_state()
    paths, built = reported(folder, config)
    assert torch.equal(before, torch.random.get_rng_state()) and built.jepa.training
    assert sorted(path.name for path in paths[:-1]) == sorted(SEEN[family])
    page = checked(paths[-1])
    assert len(page.all("img")) == len(SEEN[family])
    titles = page.words["h2"]
    assert titles[:4] == ["Contents", "Verdict", "What was run", "Scores"] and titles[-1] == "How to go on"
    assert "What the encoder learned" in titles and "What the predictor learned" in titles
    assert page.words["li"][-1] == "scores: the run has not been evaluated yet"
    if family in ("views", "branches"):
        assert any("hides none that predictor" in words for words in page.words["p"])


def test_names_are_escaped_and_scores_stand_with_their_controls(tmp_path, capsys):
    root = labelled(tmp_path / "pictures", classes=("a & <b>cat</b>", "d\u00fcck"), each=6)
    (root / "d\u00fcck" / "0.png").write_bytes(b"not a picture")
    folder, config = made(tmp_path / "a <i>& \u732b", [*IMAGES, "data=folder", f"data.root={root}", *DATA], "x=<u>")
    built = build(config)
    checkpoint.save(folder, built.jepa, make_optimizer(built.jepa, config["optim"]), 3, 1)
    assert refresh(folder) is None
    assert main(["report", f"run='{folder}'"]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    before = checked(folder / "report.html")
    assert before.words["li"][-1] == "the end: the run is not finished"
    assert "As of step 3, the newest checkpoint when this was drawn." in before.words["p"]
    (folder / "evaluate").mkdir()
    (folder / "evaluate" / "results.jsonl").write_text(json.dumps(RESULT) + "\n{damaged\n")
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("published: []", PUBLISHED))
    shutil.copy(folder / "pictures" / "health.png", folder / "pictures" / "knn.png")  # as if the protocol drew
    runs.finish(folder)
    assert main(["report", f"run='{folder}'", "draw=false"]) == 0
    page = checked(folder / "report.html")
    drawn = [image["src"] for image in before.all("img")]
    assert [image["src"] for image in page.all("img")] == [drawn[0], drawn[0], *drawn[1:]]
    assert page.words["h1"] == ["a <i>& \u732b"] and not {"i", "b", "u"} & {tag for tag, _ in page.tags}
    said = " ".join(word for words in page.words.values() for word in words)
    assert "Not clearly better than random encoder: the intervals overlap" in said
    assert "8 samples, <held out>" in said and "grid.temperature" in said and "line 2: damaged" in said
    assert "ImageNet <top-1>" in said and "54.2" in said and "Paper & Table 6" in said and "seed=0" in said
    assert "encoder 1,234" in said and "8 things; tokens 1 x 4 x 4" in said and "x=<u>" in said
    assert ["0.500", "0.400 to 0.600"] == page.words["td"][page.words["td"].index("0.500") :][:2]
    assert len(drawn) == len(PICTURES) + 2
    assert "What is missing" not in page.words["h2"] and str(Path.home()) not in said.replace(str(tmp_path), "")


def test_of_a_run_that_has_just_begun_the_page_says_what_is_missing(tmp_path, capsys):
    folder, _ = made(tmp_path / "run", [*IMAGES, *WORLD])
    (folder / "log.jsonl").unlink()
    assert command([f"run={folder}", f"out={tmp_path / 'elsewhere' / 'page.html'}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert any("no checkpoint yet" in line for line in printed) and printed[-1].endswith("page.html")
    page = checked(tmp_path / "elsewhere" / "page.html")
    assert "nothing to judge" in page.words["p"] and "What is missing" in page.words["h2"]
    assert any("no checkpoint yet" in line for line in page.words["li"]) and len(page.all("img")) == 1
    assert not (folder / "report.html").exists()


def test_data_that_is_gone_is_named(tmp_path):
    root = labelled(tmp_path / "pictures", each=4)
    folder, _ = made(tmp_path / "run", [*IMAGES, "data=folder", f"data.root={root}", *DATA])
    shutil.rmtree(root)
    assert command([f"run={folder}"]) == 0
    page = checked(folder / "report.html")
    assert any(line.startswith("all that needs the data: ") and "pictures" in line for line in page.words["li"])
    assert len(page.all("img")) == 2  # health and curves


def test_neighbours_of_unlabelled_pictures_have_no_labels(tmp_path):
    root = labelled(tmp_path / "pictures", classes=("only",), each=9) / "only"
    (root / "3.png").write_bytes(b"not a picture")
    config = resolve([*IMAGES, "data=folder", f"data.root={root}", *DATA])
    near = neighbours(
        {"random": build_backbone(config)[0]}, open_source(config["data"]), Reading(config["data"]), tmp_path / "a.png"
    )
    assert near == (8, "", {}, 0.0) and (tmp_path / "a.png").is_file()


def test_a_page_is_not_written_of_what_was_never_drawn(tmp_path):
    folder, _ = made(tmp_path / "run", [*IMAGES, *WORLD])
    with pytest.raises(DataError, match="no report was drawn yet: jepakit report run="):
        command([f"run={folder}", "draw=false"])
    (folder / "pictures").mkdir()
    (folder / "pictures" / "report.json").write_text('{"pictures": 3}')
    with pytest.raises(DataError, match="report.json is damaged .*draw it again"):
        command([f"run={folder}", "draw=false"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "report needs a run"),
        (["runs=x"], "no 'runs' .did you mean 'run'"),
        (["run=nowhere"], "there is no run"),
        (["run=nowhere", "draw=no"], "draw=no: write draw=true or draw=false"),
        (["run=nowhere", "out=a.pdf"], "a report is a page, it ends in .html"),
    ],
)
def test_mistakes_are_named(argv, said):
    with pytest.raises(ConfigError, match=said):
        command(argv)
