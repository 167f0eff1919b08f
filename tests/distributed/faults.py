"""What happens to runs of several processes, each provoked: prints what became of each as JSON.

python -m tests.distributed.faults FOLDER
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # sharding does, and each process would for itself
from safetensors.torch import load_file

import jepakit.train
from jepakit import checkpoint, manifest
from jepakit.branch import Branch
from jepakit.build import build
from jepakit.errors import DataError, UserError
from tests.distributed.forked import together
from tests.train import tiny

WORLD = 4
SHARDED = {"trainer__strategy": "fsdp2"}


def run(folder: Path, world: int = 2, act: Callable[[int], None] = lambda rank: None, **changes: Any) -> dict[str, Any]:
    """Train in some processes. What each ended with: its exit code, and what it said of a mistake."""
    accumulate = WORLD // world
    made = tiny.config(data__batch_size=2, trainer__accumulate=accumulate, **{"trainer__steps": 6, **changes})
    folder.mkdir(exist_ok=True)
    build(made)  # all that this imports is there for every process

    def task(rank: int) -> None:
        torch.set_num_threads(1)
        act(rank)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            try:
                code = jepakit.train.run(made, folder)
            except (UserError, RuntimeError) as error:
                (folder / f"said-{rank}").write_text(f"{type(error).__name__}: {error}")
                code = getattr(error, "exit_code", 1)
        raise SystemExit(code)

    for old in folder.glob("said-*"):
        old.unlink()
    codes = together(world, task)
    said = [file.read_text() if (file := folder / f"said-{rank}").exists() else "" for rank in range(world)]
    kept = sorted(path.name for path in folder.glob(f"{checkpoint.FOLDER}/*"))
    return {"codes": codes, "said": said, "log": tiny.lines(folder), "kept": kept}


def at(step: int, act: Callable[[Any], None], rank: int = 1) -> Callable[[int], None]:
    """Do something in one process, in the middle of a step (they are counted from 1)."""

    def arrange(here: int) -> None:
        original = jepakit.train.Trainer.gradients

        def gradients(self: Any, taken: Any) -> Any:
            if here == rank and self.step + 1 == step:
                act(self)
            return original(self, taken)

        jepakit.train.Trainer.gradients = gradients  # type: ignore[method-assign]

    return arrange


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def scenes(root: Path) -> Mapping[str, Any]:
    """Each of them by name."""
    found: dict[str, Any] = {"undisturbed": run(root / "undisturbed")}
    found["spread"] = [run(root / "spread", world, act, trainer__strategy=how) for world, act, how in SPREAD]
    found["shards"] = _exported(root / "spread")
    found["asked"] = [run(root / "asked", act=at(3, _ask)), run(root / "asked")]
    found["asked, in the background"] = [
        run(root / "background", act=at(3, _ask), trainer__async_checkpoint=True, trainer__checkpoint_every=1),
        run(root / "background", trainer__async_checkpoint=True, trainer__checkpoint_every=1),
    ]
    found["killed in a step"] = [run(root / "step", act=at(4, kill), **EACH), run(root / "step", **EACH)]
    found["killed in a save"] = [run(root / "save", act=_killed_in_a_save, **EACH), run(root / "save", **EACH)]
    found["disk full"] = [run(root / "disk", act=_full, **EACH, **SHARDED), run(root / "disk", **EACH, **SHARDED)]
    for name, damage in DAMAGES.items():
        folder = shutil.copytree(root / "asked", root / name)
        damage(checkpoint.folders(folder)[-1])
        found[name] = run(folder)
    found["data"] = run(root / "data", act=_bad_data)
    found["nan"] = run(root / "nan", act=_nan)
    found["nan file"] = json.loads(next((root / "nan").glob("nonfinite-*.json")).read_text())
    return found


def _flip(folder: Path) -> None:
    file = max(folder.glob("__1_*.distcp"))
    file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))


def _lie(folder: Path) -> None:
    listed = json.loads((folder / manifest.MANIFEST).read_text())
    listed["state.json"]["sha256"] = "0" * 64
    (folder / manifest.MANIFEST).write_text(json.dumps(listed))


DAMAGES = {
    "flipped byte": _flip,
    "missing shard": lambda folder: max(folder.glob("__1_*.distcp")).unlink(),
    "lying manifest": _lie,
    "no manifest": lambda folder: (folder / manifest.MANIFEST).unlink(),
}
"""What becomes of the newest of two checkpoints."""


def _ask(trainer: Any) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def _exported(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of several processes as one file, beside what one process reads of it."""
    from jepakit.cli import main
    from jepakit.runs import note

    made = tiny.config(data__batch_size=2, trainer__steps=6)
    note(folder, made, ["train"])
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        code = main(["export", f"run={folder}", "--to", "safetensors", f"out={folder / 'one.safetensors'}"])
    state, one = tiny.saved(made, folder)[1], load_file(folder / "one.safetensors")
    teacher = {name.partition("teacher.")[2]: value for name, value in state.items() if "teacher." in name}
    same = [any(torch.equal(value, other) for other in one.values()) for value in teacher.values()]
    return {"code": code, "same": same, "files": len(list((checkpoint.folders(folder)[-1]).glob("*.distcp")))}


EACH = {"trainer__checkpoint_every": 1}
SPREAD = (
    (4, at(2, _ask), "fsdp2"),
    (2, at(4, _ask), "ddp"),
    (1, at(5, _ask, rank=0), "auto"),
    (4, lambda rank: None, "hsdp"),
)
"""Processes, the step at which one of them is told to stop, and how the model is spread over them."""


def _killed_in_a_save(rank: int) -> None:
    original, saves = checkpoint.described, []

    def described(folder: Path, group: Any = None) -> Any:
        saves.append(folder)
        if rank == 1 and len(saves) == 3:
            kill()
        return original(folder, group)

    checkpoint.described = described


def _full(rank: int) -> None:
    original, files = manifest.digest, []

    def digest(file: Path) -> str:
        files.append(file)
        if rank == 1 and "step-00000003" in str(file):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(file)

    manifest.digest = digest


def _bad_data(rank: int) -> None:
    original = Branch.batches

    def batches(self: Branch, start: int, stop: int) -> Any:
        for number, batch in enumerate(original(self, start, stop)):
            if rank == 1 and number == 4:
                raise DataError("the disk of this machine is gone")
            yield batch

    Branch.batches = batches  # type: ignore[method-assign]


def _nan(rank: int) -> None:
    original = Branch.losses

    def losses(self: Branch, batch: Any, step: int, index: int) -> Any:
        found = original(self, batch, step, index)
        return found._replace(total=found.total * float("nan")) if (rank, step) == (1, 2) else found

    Branch.losses = losses  # type: ignore[method-assign]


if __name__ == "__main__":
    jepakit.train.report = lambda *_: []  # no pictures
    print(json.dumps(scenes(Path(sys.argv[1]))))
