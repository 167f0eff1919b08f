"""The sheet of views: the pixels that training sees, under the names of their entries."""

from pathlib import Path

import torch
from PIL import Image

from jepakit.config import resolve
from jepakit.data import open_source
from jepakit.data.loader import Loader
from jepakit.data.views import Normalise
from jepakit.pictures.views import restored, titles, told, views

ENTRIES = "+views={global: {count: 2, jitter: [.4, .4, .2, .1]}, local: {size: 16, crop_scale: [.05, .3]}}"


def asked(*overrides: str) -> dict:
    return resolve(["data=world", "data.size=32", "data.length=8", "data.batch_size=4", *overrides], complete=False)


def drawn(config: dict, out: Path) -> tuple[int, int]:
    """Width and height of its sheet, which is not blank."""
    with Image.open(views(config, out)) as image:
        assert image.convert("L").getextrema()[0] < 100
        return image.size


def test_a_sheet_has_a_row_for_a_sample_and_a_column_for_a_view(tmp_path):
    config = asked(ENTRIES)
    assert titles(config["views"]) == ["global 1", "global 2", "local"]
    kinds = ["global: 2 of 32 pixels, 30% to 100% of the picture", "local: 1 of 16 pixels, 5% to 30% of the picture"]
    assert told(config) == "; ".join(kinds)
    one, several = drawn(asked(), tmp_path / "one.png"), drawn(config, tmp_path / "several.png")
    assert several[1] > one[1]  # two samples of two pictures have room abreast, of four they have not


def test_of_clips_there_are_three_frames(tmp_path):
    (_, still), (_, moving) = (drawn(asked(ENTRIES, f"data.frames={n}"), tmp_path / f"{n}.png") for n in (1, 6))
    assert moving < still  # smaller pictures, three times as many in the width of a page


def test_what_is_drawn_is_what_was_seen():
    config = asked("data.flip=false")
    data = config["data"] | {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "workers": 0}
    source = open_source(data)
    batch = next(Loader(source, data, 0).batches(0, 1))
    found = restored(batch.views[0], data["mean"], data["std"])
    assert all(torch.equal(picture, source[int(i)][0]) for picture, i in zip(found, batch.index, strict=True))
    normalise = Normalise(data["mean"], data["std"], torch.device("cpu"))
    assert torch.equal(normalise(found, torch.zeros(4, dtype=torch.bool)), batch.views[0])
