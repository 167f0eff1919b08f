"""A checkpoint is whole or it is passed over by name, and no mishap costs the one before it."""

import errno
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from jepakit import checkpoint, manifest, train
from jepakit.build import build
from jepakit.checkpoint import Damaged
from jepakit.errors import CheckpointError
from jepakit.optim import adamw
from tests.train import tiny


class State:
    """A model and its optimiser after a step, so that there is something to keep."""

    def __init__(self, seed: int = 0, width: int = 32):
        made = tiny.config(seed=seed)
        made["encoder"]["width"] = width
        self.jepa = build(made).jepa
        self.optimizer = adamw(self.jepa, made["optim"])
        torch.manual_seed(seed)
        for parameter in self.jepa.parameters():
            parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
        self.optimizer.step()

    def save(self, run: Path, step: int, keep: int = 2) -> Path:
        return checkpoint.save(run, self.jepa, self.optimizer, step, keep)

    def restore(self, run: Path, verify: str = "full") -> tuple[int, list[str]]:
        said: list[str] = []
        return checkpoint.restore(run, self.jepa, self.optimizer, verify, said.append), said

    def tensors(self) -> list[torch.Tensor]:
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [value.clone() for value in (*self.jepa.state_dict().values(), *moments)]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def flip(file: Path, share: float = 0.5) -> None:
    """One bit, somewhere within."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * share)] ^= 1
    file.write_bytes(content)


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


TENSORS = "__0_0.distcp"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (lambda f: flip(f / TENSORS), f"the bytes of {TENSORS} have changed since it was written"),
    "cut off": (lambda f: (f / TENSORS).write_bytes((f / TENSORS).read_bytes()[:1000]), f"{TENSORS} has 1,000 bytes"),
    "no tensors": (lambda f: (f / TENSORS).unlink(), f"{TENSORS} is missing"),
    "no metadata": (lambda f: (f / ".metadata").unlink(), ".metadata is missing"),
    "no state": (lambda f: (f / "state.json").unlink(), "state.json is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "its manifest.json cannot be read"),
    "an empty file": (lambda f: (f / "manifest.json").write_text(""), "its manifest.json cannot be read"),
    "an empty manifest": (lambda f: edit(f, dict.clear), "its manifest.json does not list .metadata"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "its manifest.json cannot be read"),
    "left out": (lambda f: edit(f, lambda m: m.pop(TENSORS)), f"its manifest.json does not list {TENSORS}"),
    "another size": (lambda f: edit(f, lambda m: m[TENSORS].update(size=7)), "bytes, not 7"),
    "another hash": (lambda f: edit(f, lambda m: m[TENSORS].update(sha256="0")), f"the bytes of {TENSORS}"),
    "no hash": (lambda f: edit(f, lambda m: m[TENSORS].pop("sha256")), "its manifest.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_named_and_passed_over(damage, tmp_path):
    act, why = DAMAGE[damage]
    old, new = State(seed=1), State(seed=2)
    old.save(tmp_path, 3)
    folder = new.save(tmp_path, 6)
    act(folder)
    step, said = new.restore(tmp_path)
    assert step == 3 and equal(new.tensors(), old.tensors())
    (line,) = said
    assert line.startswith(f"passed over a damaged checkpoint: {folder}: ") and why in line and "\n" not in line


@pytest.mark.parametrize("verify", ["size", "off"])
@pytest.mark.parametrize("damage", ["cut off", "no metadata", "no state"])
def test_damage_that_shows_without_hashes(damage, verify, tmp_path):
    State().save(tmp_path, 3)
    DAMAGE[damage][0](State().save(tmp_path, 6))
    step, said = State().restore(tmp_path, verify)
    assert step == 3 and len(said) == 1


def test_a_manifest_and_tensors_that_agree_with_each_other_only(tmp_path):
    """Hashes that were made after the damage vouch for anything; the reader still has a say."""
    State().save(tmp_path, 3)
    folder = State().save(tmp_path, 6)
    (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:1000])
    honest = {"size": 1000, "sha256": manifest.digest(folder / TENSORS)}
    edit(folder, lambda m: m.update({TENSORS: honest}))
    step, said = State().restore(tmp_path)
    assert step == 3 and str(folder) in said[0] and "\n" not in said[0]


def test_all_damaged_is_an_error_and_nothing_is_overwritten(tmp_path):
    made = tiny.config(trainer__steps=4, trainer__checkpoint_every=2)
    assert train.run(made, tmp_path) == 0
    for folder in tiny.checkpoints(tmp_path):
        flip(folder / TENSORS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        train.run(tiny.config(trainer__steps=8, trainer__checkpoint_every=2), tmp_path)
    why = f"the bytes of {TENSORS} have changed since it was written"
    listed = f"step-00000004: {why}; step-00000002: {why}; to start over, remove them"
    assert str(caught.value) == f"no checkpoint in {tmp_path}/checkpoints is valid: {listed}"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_from_the_one_before(tmp_path, undisturbed, capsys):
    log, state = undisturbed()
    made = tiny.config(trainer__checkpoint_every=5)
    assert train.run(made, tmp_path) == 0
    flip(tiny.checkpoints(tmp_path)[-1] / TENSORS)
    capsys.readouterr()
    assert train.run(made, tmp_path) == 0
    said = capsys.readouterr().out
    assert f"passed over a damaged checkpoint: {tmp_path}/checkpoints/step-00000012: " in said
    assert "resumed at step 10" in said
    assert tiny.lines(tmp_path) == log and tiny.same(tiny.saved(made, tmp_path)[1], state)


def test_no_checkpoint_is_no_error(tmp_path):
    assert State().restore(tmp_path) == (0, [])


def test_of_another_model(tmp_path):
    folder = State(width=32).save(tmp_path, 3)
    with pytest.raises(CheckpointError) as caught:
        State(width=16).restore(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{folder}: backbone.") and "(32" in line and "(16" in line and "\n" not in line
    assert not isinstance(caught.value, Damaged)


def test_with_keys_too_many_or_too_few(tmp_path):
    state, smaller = State(), State()
    folder = state.save(tmp_path, 3)
    state.jepa.predictor.register_parameter("extra", nn.Parameter(torch.zeros(3)))
    with pytest.raises(CheckpointError, match=f"^{folder} has no predictor.extra .*\\(1 such keys\\)$"):
        state.restore(tmp_path)
    del smaller.jepa.predictor.mask_token
    with pytest.raises(CheckpointError, match=f"^{folder} holds predictor.mask_token, which the model has not"):
        smaller.restore(tmp_path)


def test_the_newest_are_kept(tmp_path):
    state = State()
    for step in range(1, 6):
        state.save(tmp_path, step, keep=3)
    assert [folder.name for folder in tiny.checkpoints(tmp_path)] == [f"step-{n:08d}" for n in (3, 4, 5)]
    state.save(tmp_path, 6, keep=0)
    assert [folder.name for folder in tiny.checkpoints(tmp_path)] == ["step-00000006"]


def test_a_damaged_newer_one_does_not_drive_out_a_good_one(tmp_path):
    state = State()
    state.save(tmp_path, 3)
    flip(state.save(tmp_path, 9) / TENSORS)
    state.restore(tmp_path)
    state.save(tmp_path, 4, keep=1)
    assert state.restore(tmp_path)[0] == 4
    state.save(tmp_path, 9, keep=1)
    assert state.restore(tmp_path) == (9, [])
    assert len(tiny.checkpoints(tmp_path)) == 1


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    state = State()
    folder = state.save(tmp_path, 3)
    for left in (f"{folder.name}.tmp-4194305", f"{folder.name}.tmp-x"):  # no such process
        shutil.copytree(folder, folder.with_name(left))
    assert state.restore(tmp_path)[0] == 3
    state.save(tmp_path, 4)
    assert [each.name for each in tiny.checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]


def test_killed_while_an_old_one_is_removed(tmp_path, undisturbed, monkeypatch, capsys):
    """It has lost its name by then; one that has its name still, left by an older version, stops nothing."""
    log, _ = undisturbed()
    made, seen = tiny.config(trainer__checkpoint_every=1, trainer__keep=2), []

    def killed(folder, **_):
        seen.append(folder.name)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train.run(made, tmp_path)
    assert seen[0].startswith("step-00000001.tmp-")
    assert [folder.name for folder in checkpoint.folders(tmp_path)] == ["step-00000002", "step-00000003"]
    (tmp_path / "checkpoints" / "step-00000001").mkdir()
    assert train.run(made, tmp_path) == 0
    assert tiny.lines(tmp_path) == log and "damaged" not in capsys.readouterr().out
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


@pytest.fixture
def held(monkeypatch) -> set[str]:
    """Names of folders that may not be renamed: of somebody else's in a folder where each removes only his own."""
    names, rename = set(), Path.rename

    def renamed(self: Path, target: Path) -> Path:
        if self.name in names:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(self), None, str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    return names


def test_an_old_one_that_cannot_be_removed_is_named_and_stops_nothing(tmp_path, held, undisturbed, capsys):
    log, last = undisturbed()
    held |= {"step-00000001", "step-00000003"}
    made = tiny.config(trainer__checkpoint_every=1, trainer__keep=2)
    assert train.run(made, tmp_path) == 0
    assert tiny.lines(tmp_path) == log and tiny.same(tiny.saved(made, tmp_path)[1], last)
    kept = [*sorted(held), *(f"step-{n:08d}" for n in (tiny.STEPS - 1, tiny.STEPS))]
    assert [folder.name for folder in tiny.checkpoints(tmp_path)] == kept
    said = [line for line in capsys.readouterr().out.splitlines() if "could not be removed" in line]
    one = f"{tmp_path}/checkpoints/step-00000001 could not be removed (Operation not permitted)"
    assert (
        said[:2] == [f"{one}; training goes on"] * 2
        and said[2:]
        and {*said[2:]} == {f"{one}, nor could 1 more; training goes on"}
    )


def test_what_is_left_of_an_old_one_is_named(tmp_path, monkeypatch):
    """Its files are somebody else's, its name is not."""
    state, said = State(), []
    state.save(tmp_path, 1)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda folder, **_: None)
    checkpoint.save(tmp_path, state.jepa, state.optimizer, 2, 1, say=said.append)
    assert [folder.name for folder in checkpoint.folders(tmp_path)] == ["step-00000002"]
    (line,) = said
    assert line.startswith(f"{tmp_path}/checkpoints/step-00000001.tmp-") and line.endswith(
        "-gone could not be removed; training goes on"
    )


def test_one_of_the_same_step_that_cannot_be_replaced_is_refused(tmp_path, held):
    state = State()
    held.add(state.save(tmp_path, 3).name)
    line = refused(state, tmp_path, 3)
    assert line == f"{tmp_path}/checkpoints/step-00000003 could not be removed (Operation not permitted)"


def refused(state: State, run: Path, step: int) -> str:
    """The line that a save is refused with; the checkpoint before it is as it was, and nothing else is left."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        state.save(run, step)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert len(tiny.checkpoints(run)) == 1 and "\n" not in str(caught.value)
    return str(caught.value)


def test_no_room(tmp_path, monkeypatch):
    state = State()
    state.save(tmp_path, 3)
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    line = refused(state, tmp_path, 4)
    assert line.startswith(f"no room in {tmp_path}/checkpoints: a checkpoint asks for ") and "1,000 are free" in line


def test_no_room_after_all(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    state = State()
    state.save(tmp_path, 3)
    monkeypatch.setattr(dcp, "save", fail)
    line = refused(state, tmp_path, 4)
    assert line == f"step 4 could not be saved in {tmp_path}/checkpoints: [Errno 28] No space left on device"


@pytest.mark.parametrize("limit", [100, 30_000, 10_000])
def test_a_write_that_fails_half_way(limit, tmp_path):
    """For real: torch hides the reason in errors of its own, one of which is not even an Exception."""
    state = State()
    state.save(tmp_path, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        line = refused(state, tmp_path, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert line == f"step 4 could not be saved in {tmp_path}/checkpoints: [Errno 27] File too large"


def test_ctrl_c_within_a_save_is_not_taken_for_a_failure(tmp_path, monkeypatch):
    class Interrupted(dcp.FileSystemWriter):
        def write_data(self, *_: object) -> None:
            raise KeyboardInterrupt

    state = State()
    state.save(tmp_path, 3)
    monkeypatch.setattr(dcp, "FileSystemWriter", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        state.save(tmp_path, 4)
    assert state.restore(tmp_path)[0] == 3


def test_a_run_says_in_one_line_that_the_disk_is_full(tmp_path, monkeypatch, at):
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    at(5, lambda: monkeypatch.setattr(shutil, "disk_usage", lambda path: full))
    made = tiny.config(trainer__checkpoint_every=3)
    with pytest.raises(CheckpointError, match="no room in"):
        train.run(made, tmp_path)
    monkeypatch.undo()
    assert tiny.saved(made, tmp_path)[0] == 3
