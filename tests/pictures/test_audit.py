"""The page of an audit, the numbers beside it, and how it is asked for."""

import json

import matplotlib.image
import pytest
import torch

from jepakit import audit as counting
from jepakit import cli
from jepakit.audit import audit
from jepakit.config import resolve
from jepakit.errors import ConfigError
from jepakit.pictures import audited, style
from jepakit.pictures.audit import page, settings
from jepakit.pictures.entry import drawn
from jepakit.types import Grid, Mask


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(counting, "SINGLES", 100)
    monkeypatch.setattr(style, "DPI", 60)


@pytest.fixture(scope="module")
def config():
    return resolve(["recipe=demo", "masker.mode=official"], complete=False) | {"recipe": "demo"}


class Kinds:
    """Two kinds of masks on any grid; the second sees the whole view."""

    overlaps = True

    def __call__(self, grid, batch_size, rng):
        order = torch.rand(batch_size, grid.size, generator=rng).argsort(1)
        return [Mask(order[:, :4], order[:, None, 4:7], kind=0), Mask(None, order[:, None, :3], kind=1)]


@pytest.mark.parametrize("grid", [Grid(1, 4, 4), Grid(1, 20, 5), Grid(2, 3, 6)])
def test_a_page_for_any_grid(grid, tmp_path):
    counts = audit(Kinds(), grid, 4, 3, 0, 10)
    out = page(counts, {"name": "kinds", "targets": 1, "scale": [0.1, 0.2]}, tmp_path / "new/audit.png")
    image = matplotlib.image.imread(out)
    assert image.shape[1] == 420 and image.std() > 0.1


def test_what_is_never_met_is_framed(tmp_path):
    def reds(masker) -> int:
        out = page(audit(masker, Grid(1, 4, 4), 100, 12, 0, 5), {"name": "x"}, tmp_path / "x.png")
        image = matplotlib.image.imread(out)[:180, :, :3]  # the maps
        red = torch.tensor([0xD5, 0x5E, 0]).div(255).numpy()
        return int((abs(image - red).max(-1) < 0.02).sum())

    def never(grid, batch_size, rng):
        order = torch.rand(batch_size, grid.size - 1, generator=rng).argsort(1)
        return [Mask(order[:, :4], order[:, None, 4:8])]

    def always(grid, batch_size, rng):
        order = torch.rand(batch_size, grid.size, generator=rng).argsort(1)
        return [Mask(order[:, :4], order[:, None, 4:8])]

    assert reds(never) > 20 > reds(always) == 0


def test_settings_read_as_on_the_command_line():
    masker = {"name": "x", "targets": 4, "scale": [0.1, 0.2], "mode": "official", "open": None, "overlap": False}
    assert settings(masker) == "targets=4  scale=[0.1,0.2]  mode=official  open=null  overlap=false"


def test_numbers_lie_beside_the_page(config, tmp_path, capsys):
    out = audited(config, {"batches": 200}, tmp_path / "page.png")
    assert out == tmp_path / "page.png" and matplotlib.image.imread(out).std() > 0.1
    found = json.loads((tmp_path / "page.json").read_text())
    assert found["grid"] == [1, 8, 8] and found["batches"] == 200 and found["batch_size"] == 64
    assert found["masker"] == config["masker"] and found["recipe"] == "demo" and found["rules"]["rare"] == 0.25
    (question,) = found["questions"]
    maps, profiles = question["maps"], question["profiles"]
    assert [len(maps["context"]), len(maps["target"][0])] == [8, 8] and maps["context"][7] == [0] * 8
    assert profiles["target"]["row"][3] == pytest.approx(sum(maps["target"][3]) / 8, abs=1e-4)
    assert sum(question["lengths"]["context"].values()) == 200
    assert sum(question["lengths"]["context_before_the_cut"].values()) == 100
    said = capsys.readouterr().out
    assert "warning: never context: the last row (7) and the last column (7), 15 tokens" in said
    warnings = [each["text"] for each in question["findings"] if each["warning"]]
    assert warnings and all(f"warning: {each}\n" in said for each in warnings)


@pytest.mark.parametrize(
    "asked, reason",
    [
        ({"batches": 0}, "audit.batches=0: a whole number from 1 on"),
        ({"batches": "many"}, "audit.batches=many: a whole number"),
        ({"batchs": 3}, "unknown key 'audit.batchs' \\(did you mean 'batches'\\?\\)"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, reason, config, tmp_path):
    with pytest.raises(ConfigError, match=reason):
        audited(config, asked, tmp_path / "page.png")
    assert not list(tmp_path.iterdir())


def test_a_masker_without_room_and_a_name_that_is_no_picture_are_refused(config, tmp_path):
    with pytest.raises(ConfigError, match="masker 'multiblock': no room on a grid of 8 x 8"):
        audited(config | {"masker": config["masker"] | {"min_keep": 30}}, {}, tmp_path / "page.png")
    with pytest.raises(ConfigError, match="page.json is no name for a picture"):
        audited(config, {"batches": 2}, tmp_path / "page.json")
    assert not list(tmp_path.iterdir())


def test_a_sheet_shows_the_contexts_of_a_whole_batch(config):
    """Contexts are cut to the batch's shortest: those of a batch of six alone would be longer."""
    for count in (2, 6):
        (mask,) = drawn(config, Grid(1, 8, 8), count)
        assert mask.context.shape[0] == mask.target.shape[0] == count
    (whole,) = drawn(config, Grid(1, 8, 8), config["data"]["batch_size"])
    assert torch.equal(mask.context, whole.context[:6]) and torch.equal(mask.target, whole.target[:6])


@pytest.mark.parametrize("flag", ["--audit", "audit=true"])
def test_the_command(flag, tmp_path, capsys):
    """The data is a folder that is nowhere: an audit needs none."""
    out = tmp_path / "page.png"
    given = ["recipe=demo", flag, "audit.batches=3", f"out={out}", "data=folder", "data.root=/nowhere"]
    assert cli.main(["show", "masks", *given]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out) and out.stat().st_size > 1000
    assert json.loads(out.with_suffix(".json").read_text())["batches"] == 3


@pytest.mark.parametrize(
    "words, reason",
    [
        (["curves", "--audit"], "show curves --audit has no place: write jepakit show masks --audit"),
        (["masks", "audit.batches=3"], "show masks audit.batches=3 has no place"),
        (["masks", "audit=maybe"], "show masks audit=maybe has no place"),
        (["masks", "--audit", "audit.batch=3"], "unknown key 'audit.batch' (did you mean 'batches'?); known: batches"),
        (["masks", "--audit", "audit=true"], "audit is given twice: audit=true and audit=true"),
    ],
)
def test_a_command_that_cannot_be_meant(words, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["show", *words]) == 2
    assert reason in capsys.readouterr().err and not list(tmp_path.iterdir())
