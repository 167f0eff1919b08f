"""CLEVR's layout, in miniature."""

import json

import pytest
from PIL import Image

from jepakit.data import BadSample, open_source
from jepakit.data.clevr import CLASSES, EDGES, Clevr, distance_bin
from jepakit.errors import ConfigError, DataError
from tests.data.make import clevr, clevr_scene

SCENES = {"train": [[9.7, 8.2, 11.0], [12.0] * 10, [8.0, 30.0, 8.6, 9.9]], "val": [[7.0, 7.5, 20.5]]}


def test_how_many_and_how_near(tmp_path):
    data = Clevr(str(clevr(tmp_path, SCENES)))
    assert len(data) == 3 and set(data.classes) == {"count", "distance_bin"}
    found = [data[i][1] for i in range(3)]
    assert [data.classes["count"][each["count"]] for each in found] == ["3", "10", "4"]
    assert [each["distance"] for each in found] == [8.2, 12.0, 8.0]
    assert [data.classes["distance_bin"][each["distance_bin"]] for each in found] == ["8 to 8.5", "10 to 100", "0 to 8"]
    picture = data[1][0]
    assert picture.shape == (3, 1, 32, 48) and picture[0].unique().tolist() == [10]
    assert data.describe(1).endswith("images/train/CLEVR_train_000001.png") and data.format(1) == "PNG"
    assert data.describe_all() == "3 pictures of CLEVR's split train, with scenes"


@pytest.mark.parametrize("distance", [0.1, 7.9, 8.0, 8.0001, 8.5, 9.2, 9.75, 10.0, 10.0001, 99.0])
def test_the_bins_are_those_of_vtab(distance):
    assert distance_bin(distance) == max(k for k, edge in enumerate(EDGES) if edge - distance < 0)


def test_the_split_val_is_held_out(tmp_path):
    data = Clevr(str(clevr(tmp_path, SCENES)))
    held = data.held_out_source()
    assert held.split == "val" and len(held) == 1 and held.classes == data.classes == CLASSES
    assert held.held_out_source() is None


def test_opened_by_its_name(tmp_path):
    clevr(tmp_path, SCENES)
    assert len(open_source({"name": "clevr", "root": str(tmp_path), "split": "val", "size": 224})) == 1


def test_what_is_missing_is_named(tmp_path):
    root = clevr(tmp_path, SCENES)
    (root / "images" / "train" / "CLEVR_train_000001.png").unlink()
    Image.new("RGB", (4, 4)).save(root / "images" / "train" / "other.png")
    data = Clevr(str(root))
    with pytest.raises(BadSample, match="CLEVR_train_000001.png: No such file"):
        data[1]
    assert data.describe_all().endswith("1 other files left aside: 1 pictures without a scene")
    (root / "scenes" / "CLEVR_val_scenes.json").unlink()
    with pytest.raises(DataError, match="CLEVR_val_scenes.json: No such file"):
        Clevr(str(root), "val")
    with pytest.raises(ConfigError, match=r"split='tran' \(did you mean 'train'\?\)"):
        Clevr(str(root), "tran")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a file of CLEVR's scenes"),
        ("{}", "not a file of CLEVR's scenes"),
        ('{"scenes": []}', "no scene in it"),
        ('{"scenes": [{"objects": []}]}', "a scene without picture"),
        (
            '{"scenes": [{"image_filename": "a.png", "objects": [{"shape": "cube"}]}]}',
            "a scene without picture, objects or",
        ),
        (json.dumps({"scenes": [clevr_scene(0, "train", [9.0, 9.0])]}), "has 2 objects, CLEVR has 3 to 10"),
        (json.dumps({"scenes": [clevr_scene(0, "train", [9.0, 0.0, 9.0])]}), "an object at distance 0"),
    ],
)
def test_scenes_that_cannot_be(tmp_path, content, words):
    root = clevr(tmp_path, SCENES)
    (root / "scenes" / "CLEVR_train_scenes.json").write_text(content)
    with pytest.raises(DataError, match=words):
        Clevr(str(root))
