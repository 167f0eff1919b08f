"""``jepakit import`` and ``export``: written whole or not at all, and never over what is there."""

import os
import stat

import pytest
import torch
from jepakit_vit.formats.hugging_face import HuggingFaceIJepa
from safetensors import SafetensorError

from jepakit.cli import main
from jepakit.types import Weights
from jepakit.weights import native, read
from tests.weights import files


def lines(capsys) -> str:
    return capsys.readouterr().out


def test_import(tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    assert main(["import", str(files.meta(tmp_path)), f"out={out}", "heads=3", "predictor_heads=2"]) == 0
    said = lines(capsys)
    assert f"{out}: jepakit file, target, online, predictor, optimizer; evaluations take: target" in said
    assert "target/pos_embed is not what is computed here, or is not used; it is kept" in said
    assert read(out).about["epoch"] == 7


def test_run_to_everything(trained, tmp_path):
    """A run's folder is a source as good as a file; its configuration goes along."""
    source = read(trained)
    for to in files.EVERYTHING:
        out = tmp_path / f"{to}{files.SUFFIX[to]}"
        assert main(["export", f"run={trained}", f"--to={to}", f"out={out}"]) == 0
        found = read(out)
        files.same(found, source)
        assert found.config == source.config and found.about["step"] == source.about["step"]


def test_what_is_said(tmp_path, capsys):
    folder = files.exported(files.written(tmp_path), "hf", weights="online")
    said = lines(capsys)
    assert f"{folder}: Hugging Face IJepa, online; evaluations take: online" in said
    assert f"{folder / 'jepakit.safetensors'}: target, predictor, optimizer" in said
    files.exported(tmp_path / "model.safetensors", "timm", companion="false")
    assert "not written: online, predictor, optimizer" in lines(capsys)
    assert sorted(os.listdir(tmp_path / "timm")) == ["config.json", "model.safetensors"]


def test_rights(tmp_path):
    """Files can be read by whoever may read the user's other files."""
    (plain := tmp_path / "plain").touch()
    folder = files.exported(files.written(tmp_path), "hf")
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {stat.S_IMODE(plain.stat().st_mode)}


def test_without_a_teacher(tmp_path, capsys):
    """Nothing said means the target where there is one; asked for by name it has to be there."""
    found = files.model()
    source = files.written(tmp_path, Weights(found.config, {"online": found.backbones["online"]}))
    assert "evaluations take: online" in (files.exported(source, "timm"), lines(capsys))[1]
    assert main(["export", str(source), "--to", "hf", f"out={tmp_path / 'hf'}", "weights=target"]) == 2
    assert "has no target weights; there are: weights=online" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, answer",
    [
        ({"encoder": {"name": "cnn"}}, "its encoder is 'cnn'; this format holds 'vit'"),
        ({"encoder": {"positions": "rope"}}, "its encoder has positions=rope; this format holds sincos_2d only"),
        ({"tokenizer": {"tubelet": 2}}, "its tokenizer has tubelet=2; this format holds 1 only"),
        ({"encoder": {"depth": 2}}, "model.safetensors: missing: encoder.blocks.1.attn.proj.bias, "),
        ({"data": {"size": 33}}, "pictures of 33 pixels cannot be cut into its patches"),
    ],
)
@pytest.mark.parametrize("to", ["hf", "timm", "meta"])
def test_models_that_a_format_cannot_hold(to, changes, answer, tmp_path, capsys):
    found = files.model()
    config = {**found.config, **{part: {**found.config[part], **node} for part, node in changes.items()}}
    source = files.written(tmp_path, Weights(config, found.backbones, found.predictor))
    assert main(["export", str(source), "--to", to, f"out={tmp_path / 'out'}{files.SUFFIX[to]}"]) == 2
    assert answer in capsys.readouterr().err
    assert os.listdir(tmp_path) == [source.name]


def test_a_predictor_that_meta_cannot_hold(tmp_path, capsys):
    found = files.model()
    config = {**found.config, "predictor": {**found.config["predictor"], "mask_tokens": 2}}
    source = files.written(tmp_path, Weights(config, found.backbones, found.predictor))
    assert main(["export", str(source), "--to", "meta", f"out={tmp_path / 'a.pth.tar'}"]) == 2
    assert "its predictor has 2 mask tokens; this format holds one" in capsys.readouterr().err
    files.exported(source, "hf")


@pytest.mark.parametrize(
    "words, answer",
    [
        (
            ["export", "model.safetensors", "out=x"],
            "export to what? add --to safetensors, hf, hf_vjepa2, meta, timm, vjepa, vjepa2",
        ),
        (
            ["export", "model.safetensors", "--to", "hff", "out=x"],
            "to=hff: no such format (did you mean 'hf'?); there are",
        ),
        (["export", "model.safetensors", "--to", "run", "out=x"], "to=run: no such format"),
        (["export", "model.safetensors", "--to", "hf"], "export where to? add out=FOLDER"),
        (["export", "model.safetensors", "to=meta", "out=x"], "out=x: a Meta I-JEPA ends in .pth.tar or .pth or .pt"),
        (["export", "model.safetensors", "to=hf", "out=x.pt"], "out=x.pt: Hugging Face IJepa is a folder, not a file"),
        (["export", "model.safetensors", "to=hf", "out=no/x"], "out=no/x: there is no folder no"),
        (
            ["export", "model.safetensors", "to=hf", "out=x", "weights=onlin"],
            "unknown weights 'onlin' (did you mean 'online'?)",
        ),
        (["export", "model.safetensors", "to=hf", "out=there"], "out=there is there already, and is not overwritten"),
        (
            ["export", "model.safetensors", "to=hf", "out=x", "wieghts=online"],
            "export knows no 'wieghts' (did you mean 'weights'?)",
        ),
        (["export", "model.safetensors", "to=hf", "out=x", "companion=3"], "companion=3: it is true or false"),
        (["import", "model.safetensors"], "import where to? add out=FILE.safetensors"),
        (["import", "model.safetensors", "out=x.pt"], "out=x.pt: a jepakit file ends in .safetensors"),
        (["import", "model.safetensors", "out=model.safetensors"], "is there already, and is not overwritten"),
        (["import", "cut.pth", "out=x.safetensors"], "cut.pth: a truncated or damaged file"),
        (["import", "other.pth", "out=x.safetensors"], "other.pth is of no known format"),
        (["import", "video.pth", "out=x.safetensors"], "video.pth: missing: norm.weight"),
    ],
)
def test_refused(words, answer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files.written(tmp_path)
    (tmp_path / "there").mkdir()
    torch.save({"weight": torch.zeros(99)}, "other.pth")
    torch.save({"encoder": {"patch_embed.proj.weight": torch.zeros(24, 3, 2, 4, 4)}}, "video.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "other.pth").read_bytes()[:-200])
    before = sorted(os.listdir())
    assert main(words) == 2
    found = capsys.readouterr()
    assert answer in found.err and not found.out and found.err.count("\n") == 1
    assert sorted(os.listdir()) == before


FULL = (OSError(28, "No space left on device"), SafetensorError("No space left on device"))


@pytest.mark.parametrize(
    "error", [*FULL, RuntimeError("No space left on device")], ids=lambda each: type(each).__name__
)
def test_nothing_half_written(error, tmp_path, monkeypatch, capsys):
    """A disk that is full in the middle of a folder, as Python, safetensors and torch say it."""
    source = files.written(tmp_path)
    write = HuggingFaceIJepa.write

    def full(self, weights, which, out):
        write(self, weights, which, out)
        raise error

    monkeypatch.setattr(HuggingFaceIJepa, "write", full)
    assert main(["export", str(source), "--to", "hf", f"out={tmp_path / 'hf'}"]) == 2
    assert "hf could not be written: No space left on device" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [source.name]


def test_interrupted(tmp_path, monkeypatch):
    """Ctrl-C while the companion is written."""
    source = files.written(tmp_path)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(native, "save", interrupt)
    assert main(["export", str(source), "--to", "timm", f"out={tmp_path / 'timm'}"]) == 130
    assert os.listdir(tmp_path) == [source.name]


@pytest.mark.parametrize(
    "change, answer",
    [
        ({"version": 2}, "version 2 of the format; this jepakit reads 1"),
        ({"config": None}, "its metadata is not what jepakit writes"),
    ],
)
def test_jepakit_files_of_tomorrow(change, answer, tmp_path, monkeypatch, capsys):
    dumps = native.json.dumps

    def other(said):
        return dumps({key: value for key, value in {**said, **change}.items() if value is not None})

    monkeypatch.setattr(native.json, "dumps", other)
    assert main(["import", str(files.written(tmp_path)), f"out={tmp_path / 'mine.safetensors'}"]) == 2
    assert answer in capsys.readouterr().err
