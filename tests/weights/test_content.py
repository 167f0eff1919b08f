"""Any file is looked into safely: what is wrong with it is one line, and nothing that it holds is run."""

import argparse
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jepakit import plugins
from jepakit.errors import CheckpointError
from jepakit.weights.content import flatten, open_content
from jepakit.weights.formats import recognise
from tests.weights import files


class Trap:
    """Pickled, it is a call."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


def _cut(path: Path) -> None:
    torch.save({"encoder": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-900])


def _cut_safetensors(path: Path) -> None:
    save_file({"encoder": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-900])


def _cut_pickle(path: Path) -> None:
    torch.save({"encoder": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-900])


BAD = {
    "empty": (lambda path: path.touch(), "empty file"),
    "text": (lambda path: path.write_text("404: not found\n"), "this file is text"),
    "picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "of no kind that holds weights"),
    "zip": (_zip, "zip archive that torch.save did not write"),
    "truncated": (_cut, "truncated or damaged file, or a zip"),
    "truncated safetensors": (_cut_safetensors, "damaged or truncated .safetensors file"),
    "truncated pickle": (_cut_pickle, "truncated or damaged file, or a pickle"),
    "header": (lambda path: path.write_bytes(b"\x12" + bytes(7) + b"{no header at all}"), "invalid JSON in header"),
    "object": (
        lambda path: torch.save({"args": argparse.Namespace(lr=1)}, path),
        "holds argparse.Namespace, which could",
    ),
    "old object": (
        lambda path: torch.save(argparse.Namespace(lr=1), path, _use_new_zipfile_serialization=False),
        "holds argparse.Namespace, which could run code",
    ),
    "trap": (lambda path: path.write_bytes(pickle.dumps(Trap())), "Path.touch, which could run code"),
    "trap in a zip": (lambda path: torch.save(Trap(), path), "which could run code"),
    "folder": (lambda path: path.mkdir(), "neither a run nor a folder with weights; it holds: nothing"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, words = BAD[kind]
    path = tmp_path / "encoder.pth.tar"
    make(path)
    with pytest.raises(CheckpointError) as caught:
        open_content(path)
    assert str(caught.value).startswith(f"{path}")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("sprung").exists()


def test_missing(tmp_path):
    (tmp_path / "model.pth").touch()
    with pytest.raises(CheckpointError, match=r"modle.pth: there is no such file \(did you mean 'model.pth'\?\)"):
        open_content(tmp_path / "modle.pth")
    with pytest.raises(CheckpointError, match="there is no such file$"):
        open_content(tmp_path / "no" / "model.pth")


def test_several_files(tmp_path):
    for name in ("a.pt", "b.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(CheckpointError, match="several files with weights; name one of them: a.pt, b.pth"):
        open_content(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_nested(zipped, tmp_path):
    found = {
        "opt": {"state": {0: {"exp_avg": torch.ones(2)}}, "groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        "epoch": 3,
    }
    torch.save(found, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    content = open_content(tmp_path / "a.pt", {"heads": 2})
    assert list(content.tensors) == ["opt/state/0/exp_avg"] and content.given == {"heads": 2}
    assert content.values == {"opt/groups/0/lr": 0.1, "opt/groups/0/betas": (0.9, 0.99), "epoch": 3}


def test_what_is_no_plain_data_becomes_its_text():
    assert flatten({"type": torch.float16})[1] == {"type": "torch.float16"}


def test_large_tensors_are_mapped_not_read(tmp_path):
    torch.save({"a": torch.ones(64, 64), "b": torch.ones(2, 2, 2)}, tmp_path / "a.pt")
    lean = open_content(tmp_path / "a.pt", shapes_only=True).tensors
    assert lean["a"].is_meta and lean["a"].shape == (64, 64) and not lean["b"].is_meta
    whole = open_content(tmp_path / "a.pt").tensors["a"]
    assert whole.sum() == 64 * 64
    if (maps := Path("/proc/self/maps")).exists():
        assert str(tmp_path / "a.pt") in maps.read_text()


def _shards(folder: Path, places: dict[str, str]) -> None:
    save_file({"a": torch.ones(2)}, folder / "model-1.safetensors")
    save_file({"b": torch.ones(3)}, folder / "model-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_shards(tmp_path):
    _shards(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    (tmp_path / "config.json").write_text('{"model_type": "ijepa"}')
    content = open_content(tmp_path)
    assert {name: len(each) for name, each in content.tensors.items()} == {"a": 2, "b": 3}
    assert content.config == {"model_type": "ijepa"} and content.path == tmp_path


@pytest.mark.parametrize(
    "places, words",
    [
        ({"a": "model-2.safetensors"}, "has no a, which model.safetensors.index.json says"),
        ({"a": "model-3.safetensors"}, "there is no such file"),
        ({"a": "../model.safetensors"}, "is no file of this folder"),
        ({"a": 1}, "lists no weights"),
    ],
)
def test_bad_shards(places, words, tmp_path):
    _shards(tmp_path, places)
    with pytest.raises(CheckpointError, match=words):
        open_content(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_bad_config(text, tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="config.json: no JSON"):
        open_content(tmp_path)


def test_unknown_format(tmp_path):
    torch.save({f"part{n}": {"weight": torch.ones(2)} for n in range(10)}, tmp_path / "a.pt")
    with pytest.raises(
        CheckpointError, match="of no known format; at the top it holds: part0, .*part7 and 2 more; known"
    ):
        recognise(open_content(tmp_path / "a.pt"))


def test_a_formats_name_that_is_kept(monkeypatch, tmp_path):
    found = plugins.discover()
    meta = found.components["format", "meta"]
    monkeypatch.setitem(found.components, ("format", "run"), meta)
    with pytest.raises(ValueError, match="a name that jepakit keeps for its own format"):
        recognise(open_content(files.written(tmp_path)))


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_run(run):
    content = open_content(run)
    assert content.values["step"] == 3 and content.values["epoch"] > 0 and content.config["encoder"]["width"] == 24
    lean = open_content(run, shapes_only=True)
    assert {k: v.shape for k, v in lean.tensors.items()} == {k: v.shape for k, v in content.tensors.items()}


def test_damaged_run(run, capsys):
    newest = run / "checkpoints" / "step-00000003"
    (newest / "__0_0.distcp").write_bytes(b"")
    assert open_content(run).values["step"] == 2
    assert "passed over a damaged checkpoint" in capsys.readouterr().err
    (run / "checkpoints" / "step-00000002" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of .* is valid"):
        open_content(run)


def test_trap_in_a_run(run, monkeypatch, capsys):
    """The list of a checkpoint's tensors is a pickle: another name in it is refused, and not called."""
    monkeypatch.chdir(run)
    monkeypatch.setattr("jepakit.weights.run.check", lambda *_: None)
    for folder in (run / "checkpoints").glob("step-*"):
        (folder / ".metadata").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match="is valid"):
        open_content(run)
    assert "Path.touch, which could run code" in capsys.readouterr().err
    assert not Path("sprung").exists()


def test_run_without_checkpoint(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        open_content(run)
