"""The spectrum of the covariance, as a picture."""

import importlib
import json

import matplotlib.image
import pytest
import torch
from torch import nn

from jepakit.errors import DataError
from jepakit.evaluate import Reading
from jepakit.pictures import curves, spectrum
from jepakit.pictures.spectrum import of_line, over_time
from jepakit.types import Grid


class Source:
    """Ten pictures without labels."""

    classes: dict = {}

    def __len__(self):
        return 10

    def __getitem__(self, index):
        rng = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 1, 16, 16), generator=rng, dtype=torch.uint8), {}

    def describe(self, index):
        return str(index)


class Projected(nn.Module):
    """A backbone: patches of 4 x 4 pixels, projected to ``rank`` of eight dimensions."""

    width = 8

    def __init__(self, rank: int):
        super().__init__()
        weights = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
        self.weights = weights * (torch.arange(8) < rank)

    def grid(self, pixels):
        return Grid(pixels.shape[2], pixels.shape[3] // 4, pixels.shape[4] // 4)

    def forward(self, pixels, keep=None):
        patches = pixels[:, :, 0].unfold(2, 4, 4).unfold(3, 4, 4)  # B C h w 4 4
        return patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2) @ self.weights


def lines(count=9, scale=1.0):
    return [
        {"step": 10 * i, "loss": 1.0, "std": 0.5, "rank": 9.0, "sample_cosine": 0.5, "target_sample_cosine": 0.4}
        | {f"spectrum/{2**k}": scale * 0.5 / 4**k for k in range(4)}
        for i in range(count)
    ]


def log(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


READING = Reading({"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3, "batch_size": 4, "workers": 0})


@pytest.mark.parametrize("known", [lines(), lines(1), [{"step": 1, "loss": 1.0}], []])
def test_picture_of_a_run(known, tmp_path):
    backbones = {"trained encoder": Projected(8), "random encoder": Projected(2)}
    before = torch.random.get_rng_state()
    out = spectrum(log(tmp_path / "log.jsonl", known), backbones, Source(), READING, tmp_path / "new" / "spectrum.png")
    assert matplotlib.image.imread(out).std() > 0.05
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_is_drawn(tmp_path, monkeypatch):
    drawn, module = [], importlib.import_module("jepakit.pictures.spectrum")
    monkeypatch.setattr(module, "_draw", lambda axis, title, spectra, marker: drawn.append((title, spectra)))
    backbones = {"trained": Projected(8), "random": Projected(2)}
    spectrum(log(tmp_path / "log.jsonl", lines()), backbones, Source(), READING, tmp_path / "x.png", limit=7)
    (_, courses), (title, found) = drawn
    assert list(courses) == ["step 0", "step 30", "step 50", "step 80"] and title.startswith("7 samples")
    trained, random = found.values()
    assert [name.split(",")[0] for name in found] == ["trained", "random"]
    assert sum(value > 1e-9 for value in trained.values()) == 6, "seven samples vary along six directions"
    assert sum(value > 1e-9 for value in random.values()) == 2 and list(random) == list(range(1, 8))


def test_times_of_a_log():
    assert over_time([]) == {} and over_time([{"step": 1, "loss": 1.0}]) == {}
    assert list(over_time(lines(100), times=3)) == [0, 500, 990]
    assert list(over_time(lines(2))) == [0, 10]
    broken = lines(3)
    broken[2]["spectrum/4"] = None
    assert list(over_time(broken)) == [0, 10]
    assert of_line(lines(1)[0]) == {1: 0.5, 2: 0.125, 4: 0.03125, 8: 0.0078125}


def test_curves_tell_the_verdict_with_its_cause(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    said = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **how: said.append(text))
    gone = [line | {"rank": 1.5, "std": 0.001, "target_grad": 1.0} for line in lines()]
    config = {"anti_collapse": {"nobody": {}}}
    out = curves(log(tmp_path / "log.jsonl", gone), tmp_path / "curves.png", config)
    assert said[0].startswith("collapsing: all samples") and "anti_collapse=[nobody]" in said[0]
    assert max(map(len, said[0].splitlines())) <= 120 and out.is_file()
    with pytest.raises(DataError, match="to draw"):
        curves(log(tmp_path / "log.jsonl", []), tmp_path / "curves.png")
