"""A run folder of a stranger: its configuration is read and held to the same rules, and nothing of whoever reads it
gets into what is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save

from jepakit import runs
from jepakit.catalog import collect
from jepakit.config import resolve
from jepakit.errors import CheckpointError, ConfigError
from jepakit.strict import check
from jepakit.weights.content import open_content


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """A run folder with settings changed, or with something else for a configuration."""

    def make(change: Callable[[dict[str, Any]], None] = lambda _: None, text: str = "") -> Path:
        made = resolve(["recipe=demo"])
        change(made)
        (tmp_path / "config.yaml").write_text(text or yaml.safe_dump(made))
        return tmp_path

    return make


def refused(folder: Path) -> str:
    """The line with which it is not gone on with."""
    with pytest.raises(ConfigError) as caught:
        runs.amend(runs.open_run(folder), [], collect())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_honest_one(run):
    config, changed = runs.amend(runs.open_run(run()), ["trainer.epochs=20"], collect())
    assert config["trainer"]["epochs"] == 20 and changed == {"trainer.epochs": (10.0, 20.0)}


BAD: dict[str, Callable[[dict[str, Any]], None]] = {
    "target": lambda made: made.update(_target_="os.system"),
    "target in a part": lambda made: made["masker"].update(_target_="os.system"),
    "target in a list": lambda made: made["published"].append({"when": {"_target_": "os.system"}}),
    "target in a branch": lambda made: made["branches"].update(one={"masker": {"_target_": "os.system"}}),
    "another key": lambda made: made.update(hydra={"callbacks": {}}),
    "another name": lambda made: made["masker"].update(name="os:system"),
    "a name that is a list": lambda made: made["masker"].update(name=["multiblock"]),
    "a variable": lambda made: made.update(run="${oc.env:HOME}"),
    "a variable in a list": lambda made: made.update(published=[{"measure": "x", "source": "${oc.env:HOME}"}]),
    "something made": lambda made: made.update(masker="${oc.create:{_target_: os.system}}"),
    "of Hydra's": lambda made: made.update(run="${hydra:runtime.cwd}"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_configuration(what, run):
    refused(run(BAD[what]))


TEXTS = [
    "run: !!python/object/apply:os.system ['touch sprung']\n",
    "- a list\n",
    "a: &a [*a]\n",
    "a: [",
    "run: \0\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_configuration_at_all(text, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert refused(run(text=text)).startswith(f"{tmp_path / 'config.yaml'} ")
    assert not (tmp_path / "sprung").exists()


def test_bytes_that_are_no_text(run, tmp_path):
    folder = run()
    (folder / "config.yaml").write_bytes(b"run: \xff\xfe\n")
    assert "config.yaml is not valid YAML" in refused(folder)


def test_nothing_of_the_environment_is_written(tmp_path, monkeypatch):
    """Only what a setting asks for by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOME_TOKEN", "hunter2")
    monkeypatch.setenv("IMAGES", "/asked/for")
    config = resolve(["recipe=demo", "start.weights=${oc.env:IMAGES}"])
    catalog = collect()
    folder = runs.create(config, catalog.plugins, ["train", "recipe=demo"])
    check(runs.open_run(folder).config, catalog)
    written = {file.name: file.read_text() for file in folder.iterdir()}
    assert "/asked/for" in written["config.yaml"] and len(written) >= 5
    assert not any("hunter2" in text for text in written.values())


# Headers of safetensors that lie ------------------------------------------------------------------------------------


def _longer(content: bytes) -> bytes:
    """A header of 2 ** 62 bytes."""
    return (2**62).to_bytes(8, "little") + content[8:]


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a header longer than the file": _longer,
    "a tensor larger than the file": lambda content: content.replace(b"[4,4]", b"[9,4]"),
    "a shape that overflows": lambda content: content.replace(b'"shape":[4,4]', b'"shape":[9999999999999999999]'),
    "a negative shape": lambda content: content.replace(b"[4,4]", b"[-4,"),
    "bytes before the data": lambda content: content.replace(b"[0,64]", b"[64,0]"),
    "a type that there is not": lambda content: content.replace(b'"F32"', b'"X32"'),
    "less than it says": lambda content: content[:-1],
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(lie, tmp_path):
    honest = save({"weight": torch.ones(4, 4)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(honest)
    assert open_content(path).tensors["weight"].sum() == 16
    path.write_bytes(LIES[lie](honest))
    assert path.read_bytes() != honest
    with pytest.raises(CheckpointError) as caught:
        open_content(path)
    assert "\n" not in str(caught.value)
