"""``jepakit features``: what evaluations see of the same pictures, in a file that anyone can read."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from jepakit.cli import main
from jepakit.data import open_source
from jepakit.data.world import World
from jepakit.evaluate.features import Reading, extract
from jepakit.types import Weights
from jepakit.weights.features import parts
from jepakit.weights.model import freeze
from tests.data.make import Numbers, labelled
from tests.weights import made

CONFIG = made.config()


@pytest.fixture(scope="module")
def found() -> Weights:
    return made.weights(CONFIG, made.trained(CONFIG)[0])


@pytest.fixture
def here(tmp_path, monkeypatch, found) -> Path:
    """Weights that any file holds, and a folder of eight pictures of two classes, one of them broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jepakit.weights.read", lambda path, given: found)
    labelled(tmp_path / "photos", each=4)
    (tmp_path / "photos" / "dog" / "1.png").write_bytes(b"")
    return tmp_path


def features(*words: str, file: str = "file=x.safetensors", root: str = "data.root=photos") -> int:
    return main(["features", file, root, "out=out.safetensors", "device=cpu", *words])


def opened(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file, by the library's own reader."""
    with safe_open(path, "pt") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def test_features_are_those_of_an_evaluation(here, found, capsys):
    assert features("data.batch_size=3") == 0
    tensors, about = opened(here / "out.safetensors")
    source = open_source({"name": "folder", "root": "photos"})
    expected = extract(freeze(found, "x").backbone, source, Reading(CONFIG["data"] | {"batch_size": 3}))
    assert torch.equal(tensors["features"], expected.x)
    assert torch.equal(tensors["index"], expected.index) and torch.equal(tensors["label.class"], expected.y)
    assert about["skipped"] == list(expected.skipped) == ["photos/dog/1.png: empty file"]
    assert about["paths"] == [f"cat/{i}.png" for i in range(4)] + [f"dog/{i}.png" for i in (0, 2, 3)]
    assert about["root"] == "photos" and about["classes"] == {"class": ["cat", "dog"]}
    assert about["encoder"]["weights"] == "target" and about["encoder"]["from"] == "x.safetensors"
    assert about["grid"] == [1, 4, 4] and about["preprocessing"]["size"] == 32
    said = capsys.readouterr()
    assert "features 8 x 24, float32: " in said.err
    assert said.out == (
        "written to out.safetensors: features 7 x 24 (target weights of x.safetensors)\n"
        "1 samples could not be read and are left out; first: photos/dog/1.png: empty file\n"
    )
    assert {each.name for each in here.iterdir()} == {"photos", "out.safetensors"}


def test_all_tokens_at_another_size(here, found):
    assert features("pool=none", "size=64", "weights=online", "data.batch_size=2") == 0
    tensors, about = opened(here / "out.safetensors")
    encoder, data = freeze(found, "x", "online", 64), CONFIG["data"] | {"size": 64, "batch_size": 2}
    source = open_source({"name": "folder", "root": "photos"})
    batches = parts(source, Reading(data), torch.arange(8))
    assert torch.equal(tensors["features"], torch.cat([encoder(part.images) for part in batches]))
    assert tensors["features"].shape == (7, 64, 24) and about["grid"] == [1, 8, 8]
    assert about["encoder"]["positions"] == "scaled to the trained 4 x 4" and about["pool"] == "none"


def test_another_source_and_its_labels(here):
    assert features("data.length=20", "limit=5", root="data=world") == 0
    tensors, about = opened(here / "out.safetensors")
    world = World(length=20)
    index = tensors["index"].tolist()
    assert len(index) == 5 and index == sorted(index)
    assert about["paths"] == [world.describe(i) for i in index]
    assert tensors["label.distance"].tolist() == pytest.approx([world[i][1]["distance"] for i in index])


def test_the_pictures_of_a_run_are_its_own(here, monkeypatch):
    run = made.run(monkeypatch, *made.settings("trainer.steps=1"))
    assert main(["features", f"run={run}", "out=out.safetensors", "limit=3"]) == 0
    assert opened(here / "out.safetensors")[1]["paths"][0].startswith("world")


def test_bf16_is_close(here):
    assert (
        features() == 0 and main(["features", "file=x", "data.root=photos", "out=b.safetensors", "precision=bf16"]) == 0
    )
    exact, close = (opened(here / name)[0]["features"] for name in ("out.safetensors", "b.safetensors"))
    assert close.dtype == torch.float32 and not torch.equal(exact, close)
    assert torch.nn.functional.cosine_similarity(exact, close).min() > 0.99


def test_a_bad_sample_is_reported_once_though_several_are_read_in_its_place():
    source = Numbers(12, bad=frozenset({1, 2, 5, 6, 7}))
    found = list(parts(source, Reading(CONFIG["data"] | {"batch_size": 4}), torch.arange(12)))
    assert torch.cat([part.rows for part in found]).tolist() == [0, 3, 4, 8, 9, 10, 11]
    assert len({line for part in found for line in part.skipped}) == 5


@pytest.mark.parametrize(
    "words, said",
    [
        (["poool=none"], "unknown option 'poool' (did you mean 'pool'?)"),
        (["pool=nome"], "unknown pool 'nome' (did you mean 'none'?); known: mean, none"),
        (["weights=tagret"], "unknown weights 'tagret' (did you mean 'target'?)"),
        (["limit=0"], "limit=0: it must be above 0"),
        (["limit=many"], "limit: Value 'many' of type 'str' could not be converted to Integer"),
        (["run=a"], "run=FOLDER, or file=FILE (one of them)"),
        (["data.size=64"], "data.size has no place here, it belongs to the encoder: write size=N"),
        (["data.roott=x"], "unknown key 'data.roott' (did you mean 'root'?)"),
        (["size=60"], "size=60: a clip of 1 x 60 x 60"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(here, capsys, words, said):
    assert features(*words) == 2
    error = capsys.readouterr().err.splitlines()
    assert said in error[-1] and [each.name for each in here.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "give out=FILE"),
        (["out=out.pt"], "features are written to a .safetensors file: not out=out.pt"),
        (["out=lost/out.safetensors"], "there is no folder lost"),
        (["out=there.safetensors"], "out=there.safetensors: it is there already"),
    ],
)
def test_where_it_cannot_be_written(here, capsys, words, said):
    (here / "there.safetensors").touch()
    assert main(["features", "file=x", "data.root=photos", *words]) == 2
    assert said in capsys.readouterr().err
    assert {each.name for each in here.iterdir()} == {"photos", "there.safetensors"}


def test_a_file_of_weights_knows_no_pictures(here, capsys):
    assert main(["features", "file=x", "out=out.safetensors"]) == 2
    assert "add data.root=VALUE" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_refused_before_anything_is_computed_for_long(here, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")(1000, 500, 500)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert features("pool=none") == 2
    assert "features 8 x 16 x 24 take" in (error := capsys.readouterr().err) and "500 are free" in error
    assert [each.name for each in here.iterdir()] == ["photos"]


def test_where_nothing_can_be_read(here, capsys):
    for path in (here / "photos").glob("*/*.png"):
        path.write_bytes(b"no picture")
    assert features() == 2
    assert "could not be read" in capsys.readouterr().err
    assert [each.name for each in here.iterdir()] == ["photos"]
