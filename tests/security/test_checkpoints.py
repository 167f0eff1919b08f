"""A checkpoint of a stranger's runs nothing, whatever is in it, and a stranger's folder is not gone on with."""

import os
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from jepakit import trust
from jepakit.errors import CheckpointError

METADATA = ".metadata"


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    """The file that a trap makes."""
    return tmp_path / "sprung"


def state() -> dict[str, Any]:
    """What a checkpoint is filled with: tensors, and settings of an optimiser."""
    group = {"lr": 0.1, "betas": (0.9, 0.95), "foreach": None, "fused": True, "name": "all"}
    return {"model": {"weight": torch.ones(3, 2), "steps": torch.tensor(7)}, "optimizer": {"groups": [group]}}


def saved(folder: Path, content: dict[str, Any]) -> Path:
    with warnings.catch_warnings(action="ignore"):
        dcp.save(content, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


def load(wanted: dict[str, Any], folder: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        trust.load(wanted, folder, no_dist=True)


def change(folder: Path, act: Callable[[Any], None]) -> Path:
    """Another list of the same tensors."""
    metadata = trust.listed(folder / METADATA)
    act(metadata)
    (folder / METADATA).write_bytes(pickle.dumps(metadata))
    return folder


def refused(folder: Path, why: str) -> None:
    """Nothing of a checkpoint is taken, and the reason says ``why``."""
    wanted = state()
    with pytest.raises((Exception, CheckpointException)) as caught:
        load(wanted, folder)
    error = caught.value
    cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
    assert why in str(cause), cause


def test_an_honest_one_is_read(tmp_path):
    wanted = state()
    group = wanted["optimizer"]["groups"][0]
    wanted["model"]["weight"].zero_()
    group |= {"lr": 0.0, "betas": (0.0, 0.0), "fused": False, "name": ""}
    load(wanted, saved(tmp_path / "honest", state()))
    assert torch.equal(wanted["model"]["weight"], torch.ones(3, 2)) and wanted["model"]["steps"] == 7
    assert wanted["optimizer"] == state()["optimizer"]


def test_the_list_is_a_trap(tmp_path, sprung):
    folder = saved(tmp_path / "it", state())
    (folder / METADATA).write_bytes(pickle.dumps(Trap(sprung)))
    refused(folder, f"it holds a {Path.touch.__module__}.Path.touch, which could run code")
    with pytest.raises(pickle.UnpicklingError):
        trust.Reader(folder).read_metadata()
    assert not sprung.exists()


def test_the_list_holds_a_trap(tmp_path, sprung):
    folder = change(saved(tmp_path / "it", state()), lambda m: m.planner_data.update(more=Trap(sprung)))
    refused(folder, "which could run code")
    assert not sprung.exists()


class Attribute:
    """Pickled as ``getattr`` of something and a name."""

    def __init__(self, *of: Any):
        self.of = of

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, self.of


def test_an_honest_one_of_an_older_python_is_read(tmp_path):
    """Python 3.11.0 to 3.11.3, which Debian 12 has, pickle a member of an enumeration by its name."""
    older = Attribute(_MEM_FORMAT_ENCODING, "TORCH_CHANNELS_LAST")
    folder = change(saved(tmp_path / "it", state()), lambda m: m.planner_data.update(more=older))
    assert trust.listed(folder / METADATA).planner_data["more"] is _MEM_FORMAT_ENCODING.TORCH_CHANNELS_LAST


@pytest.mark.parametrize(
    "of",
    [(Path, "touch"), (_MEM_FORMAT_ENCODING, "__subclasses__"), (_MEM_FORMAT_ENCODING, "mro"), (torch.Size, "count")],
)
def test_the_list_reaches_for_more(of, tmp_path):
    folder = change(saved(tmp_path / "it", state()), lambda m: m.planner_data.update(more=Attribute(*of)))
    refused(folder, "which could run code")


def test_the_list_of_one_rank_is_not_fallen_back_on(tmp_path, sprung):
    """torch takes it where there is no other; nothing here writes one."""
    folder = saved(tmp_path / "it", state())
    (folder / METADATA).unlink()
    (folder / f"__0{METADATA}").write_bytes(pickle.dumps(Trap(sprung)))
    refused(folder, "No such file")
    assert not sprung.exists()


def test_the_list_is_something_else(tmp_path):
    folder = saved(tmp_path / "it", state())
    (folder / METADATA).write_bytes(pickle.dumps(torch.Size([1])))
    with pytest.raises(pickle.UnpicklingError, match="it holds a Size, not a list of tensors"):
        trust.listed(folder / METADATA)


@pytest.mark.parametrize("place", ["optimizer", "model"])
def test_a_value_is_a_trap(place, tmp_path, sprung):
    """Also one that stands where a tensor belongs. torch's own reader springs it, or this test would show nothing."""
    content = state()
    if place == "model":
        content["model"]["weight"] = Trap(sprung)
    else:
        content["optimizer"]["groups"][0]["lr"] = Trap(sprung)
    folder = saved(tmp_path / "it", content)
    refused(folder, "Weights only load failed")
    assert not sprung.exists()
    with warnings.catch_warnings(action="ignore"):
        dcp.load(state(), storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    assert sprung.exists()


@pytest.mark.parametrize("path", ["../elsewhere/__0_0.distcp", "/dev/zero", "sub/__0_0.distcp"])
def test_tensors_of_other_places(path, tmp_path):
    saved(tmp_path / "elsewhere", state())

    def move(metadata: Any) -> None:
        metadata.storage_data = {k: replace(v, relative_path=path) for k, v in metadata.storage_data.items()}

    refused(change(saved(tmp_path / "it", state()), move), f"lies in {path!r}")


def test_a_compressed_one(tmp_path):
    """Not written here; what it unfolds to would have no bound."""

    def fold(metadata: Any) -> None:
        folded = {"transform_descriptors": ["stream.zstd"]}
        metadata.storage_data = {k: replace(v, **folded) for k, v in metadata.storage_data.items()}

    refused(change(saved(tmp_path / "it", state()), fold), "is compressed")


# Whose it is ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a checkpoint."""
    saved(tmp_path / "run" / "checkpoints" / "step-00000001", state())
    return tmp_path / "run"


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int, *groups: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "getegid", lambda: groups[0])
    monkeypatch.setattr(os, "getgroups", lambda: list(groups))


STRANGER = 54321
PLACES = ("", "checkpoints", "checkpoints/step-00000001", f"checkpoints/step-00000001/{METADATA}")


def test_ones_own(run):
    trust.refuse_strangers(run)
    trust.refuse_strangers(run / "not there")


def test_whose(run, monkeypatch):
    """Of another user; of a group of the user's; of root."""
    mine = run.stat()
    as_user(monkeypatch, STRANGER, STRANGER)
    if mine.st_uid:  # else they are root's, whom all trust
        with pytest.raises(CheckpointError, match="who is neither you nor of your groups: give --trust if"):
            trust.refuse_strangers(run)
    as_user(monkeypatch, STRANGER, STRANGER, mine.st_gid)
    trust.refuse_strangers(run)


@pytest.mark.parametrize("place", PLACES)
def test_of_a_stranger(place, run, monkeypatch):
    """As any user sees files of another: only root can make such files."""
    original, other = Path.stat, run / place

    def stat(self: Path, **options: Any) -> Any:
        found = original(self, **options)
        changed = (found.st_mode, found.st_ino, found.st_dev, found.st_nlink, STRANGER, STRANGER, *found[6:])
        return os.stat_result(changed) if self == other else found

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(CheckpointError) as caught:
        trust.refuse_strangers(run)
    belongs = f"{run / place} belongs to user {STRANGER}, who is neither you nor of your groups"
    assert str(caught.value) == f"{belongs}: give --trust if you trust whoever wrote it (chown it if it is yours)"
    monkeypatch.setenv(trust.VARIABLE, "0")
    with pytest.raises(CheckpointError):
        trust.refuse_strangers(run)
