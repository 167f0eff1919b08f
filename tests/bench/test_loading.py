"""``jepakit bench data``: every decoder beside plain Pillow."""

import json

import numpy as np
import pytest
from PIL import Image

from jepakit.bench.entry import data
from jepakit.bench.loading import PLAIN, _result, show
from jepakit.cli import main
from jepakit.errors import ConfigError

FAST = ["data.size=16", "data.batch_size=4", "steps=1", "repeats=6"]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Six of them, in the folder ``pictures`` of a folder of one's own."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(np.full((24, 32, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


def test_pictures(pictures, tmp_path, capsys):
    assert main(["bench", "data", f"data.root={pictures}", *FAST, "clock=cpu", "out=found.json"]) == 0
    head, ours, plain, said = capsys.readouterr().out.splitlines()
    assert head.split() == "decoder img/s and core quartiles times plain Pillow".split()
    assert ours.startswith("pillow ") and ours.count("[") == 2 and plain.startswith(PLAIN) and plain.count("[") == 1
    assert said == "written to found.json"
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["samples"] == 4 and [len(each["rounds"]) for each in found["loaders"]] == [6, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "found.json"}


def test_a_picture_that_plain_pillow_cannot_read(pictures, capsys):
    for number in range(1, 6):
        (pictures / f"{number}.png").write_text("no picture")
    words = [f"data.root={pictures}", *FAST, "data.batch_size=1", "data.max_bad=1"]
    assert main(["bench", "data", *(word for word in words if word != "data.batch_size=4")]) == 2
    assert f".png: {PLAIN} cannot read it: cannot identify" in capsys.readouterr().err


def test_a_source_without_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "data", "data=world", "data.side=16", *FAST]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[-1] == "quartiles" and row.startswith("world ") and row.count("[") == 1


def test_what_cannot_be_used_is_said(capsys):
    show({"loaders": [], "unit": "clip", "left_out": {"some": "no library"}})
    assert capsys.readouterr().out.splitlines()[1:] == ["some is left out: no library"]


def test_a_ratio_is_of_the_times_of_a_round():
    config = {"data": {"batch_size": 4}}
    found = _result(config, {"quick": [1.0, 2.0, 3.0], PLAIN: [2.0, 4.0, 9.0]}, 8)
    quick, plain = found["loaders"]
    assert quick["per_second"]["median"] == 4 and quick["times_plain"]["median"] == 2
    assert (quick["times_plain"]["low"], quick["times_plain"]["high"]) == (2, 3) and plain["times_plain"] is None


@pytest.mark.parametrize("word", ["against=demo", "profile=trace.json"])
def test_what_has_no_place_beside_data(word):
    with pytest.raises(ConfigError, match=f"^bench data has no {word.partition('=')[0]}: it times every decoder"):
        data(["data=world", word], [])
