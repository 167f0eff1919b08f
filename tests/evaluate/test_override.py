"""Test data that the command line names, against real sources and their real signatures."""

import pytest
from PIL import Image

from jepakit.config import resolve
from jepakit.errors import UserError
from jepakit.evaluate.data import divide, override

PARTS = ["data=world", "tokenizer=patch", "encoder=vit_tiny", "masker=multiblock", "predictor=vit_predictor"]


@pytest.fixture
def config():
    return resolve([*PARTS, "anti_collapse=ema", "data.size=32", "data.length=40"])


@pytest.fixture
def folder(tmp_path):
    for kind in ("cats", "dogs"):
        (tmp_path / kind).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(tmp_path / kind / f"{i}.png")
    return tmp_path


def test_a_root_means_a_folder_where_the_run_had_none(config, folder):
    data = override(config, {"root": str(folder)})
    assert data["name"] == "folder" and data["size"] == 32 and "length" not in data
    division = divide(config, {"root": str(folder)}, None, "class", None)
    assert division.classes == 2 and len(division.fit.rows) == 8 and len(division.test.rows) == 2


def test_another_setting_of_the_same_source(config):
    assert override(config, {"length": 7})["length"] == 7
    division = divide(config, {}, None, "class", 30)
    assert len(division.fit.rows) == 30 and division.fit.source is not division.test.source


def test_what_is_drawn_anew_in_the_runs_own_samples_is_what_is_scored():
    config = resolve([*PARTS, "anti_collapse=ema", "data.size=32", "data.length=300", "data.things=1"])
    division = divide(config, {"things": 4}, None, "count", None)
    assert division.classes == 5 and len({division.fit.source[i][1]["count"] for i in range(300)}) == 4
    assert "the data given, which is the run's own training data" in division.fit.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lenght": 7}, "did you mean 'length'"),
        ({"name": "foldr", "root": "x"}, "did you mean 'folder'"),
        ({"root": "/nowhere/at/all"}, "/nowhere/at/all"),
    ],
)
def test_mistakes_are_one_clear_line(config, given, said):
    with pytest.raises(UserError, match=said) as caught:
        divide(config, given, None, "class", None)
    assert "\n" not in str(caught.value)
