"""The released step and ours with the same weights, images and masks: are the numbers equal, and what does each cost?

    IJEPA_CODE=FOLDER python -m tests.released.same ijepa size=small data.batch_size=16 trainer.precision=fp32
    VJEPA2_CODE=FOLDER python -m tests.released.same vjepa2 size=tiny data.batch_size=2 theirs=bf16 rounds=9

Ours is the trainer's own step, theirs that of ``ijepa.py`` or ``vjepa2.py`` beside this file. Both are fed with one
batch and with masks that the released collator draws, others in each step. A first step compares losses and gradients.
Then each side trains in a process of its own, so that it has memory as it has it by itself; they take steps in turns,
and the CPU time of a process is compared pair by pair, on one thread. Ours keeps memory that is freed, which grows for
some forty steps, until the largest masks were met: those do not count, and neither do the first three of theirs, whose
pages come and go in every step.

Settings are those of any command line. ``size`` is one of ``SIZES``; ``theirs`` is their precision, where it is not
ours; ``warm`` is how many of our steps do not count, ``rounds`` how many do.
"""

import contextlib
import importlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jepakit_vit.formats import meta, vjepa
from jepakit_vit.formats.names import theirs
from torch import Tensor

from jepakit.bench.hooks import attached
from jepakit.bench.sides import _quiet
from jepakit.bench.split import PARTS, REST, Host, Split
from jepakit.branch import Taken
from jepakit.config import resolve
from jepakit.errors import UserError
from jepakit.train import Trainer
from jepakit.types import Batch, Mask
from tests.bench.turns import ratio
from tests.released.checkout import Asked, Models

SIZES = {"tiny": (192, 12, 3, 96), "small": (384, 12, 6, 192), "base": (768, 12, 12, 384), "large": (1024, 24, 16, 384)}
"""Width, depth and heads of the encoder, width of the predictor."""
DEPTH = 6
"""Of the predictor, whose heads are as many as the encoder's."""
BASES = {
    "ijepa": ("recipe=ijepa_vitb16", "data=world"),
    "vjepa2": ("recipe=vjepa2_vitl16", "data=world_moving", "predictor.checkpoint_blocks=false", "encoder=vjepa2_tiny"),
}
SHARED = (
    "data.size=224",
    "data.workers=0",
    "trainer.epochs=100",
    "trainer.epoch_steps=1000",
    "trainer.global_batch=null",
    "trainer.device=cpu",
    "trainer.threads=1",
)
LAYOUTS = {"ijepa": meta.LAYOUT, "vjepa2": vjepa.SECOND}
OWN = {"size": "small", "theirs": "", "warm": "40", "rounds": "9", "side": "", "weights": ""}
WARM = 3
"""Of their steps."""
SIDES = "ours", "theirs"
ENVIRONMENT = dict(os.environ)
"""As it was before a trainer has told oneDNN anything."""

Gradients = dict[str, Tensor]


class Ours:
    """The trainer of a configuration, fed with batches that are ready."""

    def __init__(self, config: Mapping[str, Any], folder: Path):
        with contextlib.redirect_stdout(io.StringIO()):
            self.trainer = Trainer(_quiet(config), folder)
        self.trainer.steps, (self.branch,) = 100 * 1000, self.trainer.branches
        self.split = Split(Host(time.process_time))

    def __call__(self, pixels: Tensor, masks: list[Mask]) -> float:
        self.branch.masks = lambda *_: masks
        batch = Batch((pixels,), {}, torch.arange(len(pixels)))
        with self.split.step():
            done = self.trainer.train_step([Taken(self.branch, [batch])])
            loss = float(done["loss"])
        self.trainer.step += 1
        return loss


class Theirs:
    """The released step, timed in the same way."""

    def __init__(self, module: Any, config: Mapping[str, Any]):
        self.split = Split(Host(time.process_time))
        self.step = module.Step(config, torch.device("cpu"), self.split)

    def __call__(self, pixels: Tensor, asked: Asked) -> float:
        with self.split.step():
            return self.step(pixels, asked)


def main(words: list[str]) -> None:
    """Compare, time, print; or, for a ``side``, take a step for each line that is read."""
    if not words or words[0] not in BASES:
        raise SystemExit(f"python -m tests.released.same {'|'.join(BASES)} [key=value ...]")
    which, *words = words
    given = dict(word.split("=", 1) for word in words)
    own = {key: given.pop(key, default) for key, default in OWN.items()}
    config = resolve([*BASES[which], *SHARED, *sized(own["size"]), *(f"{key}={value}" for key, value in given.items())])
    precision = config["trainer"]["precision"]
    other = {**config, "trainer": {**config["trainer"], "precision": own["theirs"] or precision}}
    module = importlib.import_module(f"tests.released.{which}")
    draw, pixels = module.collator(config), module.pixels(config, torch.device("cpu"))
    peer = Theirs(module, other) if own["side"] != "ours" else None
    if own["side"] == "theirs":  # no trainer has been here, which would see to the memory of the process
        peer.step.models.load(torch.load(own["weights"]))
        return serve(peer, which, pixels, draw)
    with TemporaryDirectory() as folder:
        mine = Ours(config, Path(folder))
        if own["side"]:
            return serve(mine, which, pixels, draw)
        load(mine.trainer.jepa, peer.step.models, which, config)
        weights = Path(folder, "weights.pt")
        torch.save(peer.step.models.states(), weights)
        torch.manual_seed(0)
        compared(mine, peer, which, config, pixels, draw(len(pixels)))
        print(f"{which} {' '.join(words)}: ours {precision}, theirs {own['theirs'] or precision}", flush=True)
        del mine, peer
        command = [sys.executable, "-m", "tests.released.same", which, *words, f"weights={weights}"]
        measured(command, int(own["warm"]), int(own["rounds"]))


def sized(name: str) -> list[str]:
    """A size as settings."""
    width, depth, heads, narrow = SIZES[name]
    encoder = [f"encoder.width={width}", f"encoder.depth={depth}", f"encoder.heads={heads}"]
    return [*encoder, f"predictor.width={narrow}", f"predictor.depth={DEPTH}", f"predictor.heads={heads}"]


def load(jepa: Any, models: Any, which: str, config: Mapping[str, Any]) -> None:
    """Our weights into their models, by the format that exports them; all or an error."""
    layout = LAYOUTS[which]
    backbone = theirs(jepa.backbone.state_dict(), layout.backbone, config)
    for module in (models.encoder, models.target):
        getattr(module, "backbone", module).load_state_dict(backbone)
    predictor = getattr(models.predictor, "backbone", models.predictor)
    predictor.load_state_dict(theirs(jepa.predictor.state_dict(), layout.predictor, config))


def question(asked: Asked, which: str) -> list[Mask]:
    """Their masks as ours: I-JEPA's targets are blocks of one mask, each of V-JEPA 2's pairs is a mask."""
    if which == "ijepa":
        (context,) = asked.context
        return [Mask(context, torch.stack(asked.target, dim=1))]
    pairs = enumerate(zip(asked.context, asked.target, strict=True))
    return [Mask(context, target.unsqueeze(1), kind=kind) for kind, (context, target) in pairs]


def compared(mine: Ours, peer: Theirs, which: str, config: Mapping[str, Any], pixels: Tensor, asked: Asked) -> None:
    """One step of each: how far losses and gradients are apart."""
    with kept(mine.trainer.optimizer, lambda: our_gradients(mine.trainer.jepa, which, config)) as ours:
        mine_loss = mine(as_view(pixels), question(asked, which))
    with kept(peer.step.optimizer, lambda: their_gradients(peer.step.models)) as others:
        peer_loss = peer(pixels, asked)
    for each in (mine, peer):
        each.split.taken()
    found = {name: float((ours[name] - g).norm() / g.norm()) for name, g in others.items()}
    worst = max(found, key=found.get)
    one, other = (torch.cat([each[name].flatten() for name in others]) for each in (ours, others))
    whole = float((one - other).norm() / other.norm())
    print(f"loss: ours {mine_loss:.8f}, theirs {peer_loss:.8f}, apart by {abs(mine_loss / peer_loss - 1):.1e}")
    print(f"gradients: {len(found)} tensors, all together apart by {whole:.1e}, most {found[worst]:.1e} in {worst}")


@contextlib.contextmanager
def kept(optimizer: torch.optim.Optimizer, gradients: Callable[[], Gradients]) -> Iterator[Gradients]:
    """The gradients that the optimiser sees within it, by their names."""
    found: Gradients = {}
    hook = optimizer.register_step_pre_hook(
        lambda *_: found.update({name: each.clone() for name, each in gradients().items()})
    )
    try:
        yield found
    finally:
        hook.remove()


def our_gradients(jepa: Any, which: str, config: Mapping[str, Any]) -> Gradients:
    """By their names and in their shapes; tables of positions, which are no parameters here, have none."""
    layout, found = LAYOUTS[which], {}
    for part, scheme in (("backbone", layout.backbone), ("predictor", layout.predictor)):
        grads = {name: p.grad for name, p in getattr(jepa, part).named_parameters()}
        named = theirs(grads, scheme, config)
        found |= {f"{part}.{name}": each for name, each in named.items() if name != scheme.table}
    return found


def their_gradients(models: Models) -> Gradients:
    parts = {"backbone": models.encoder, "predictor": models.predictor}
    named = {f"{part}.{inner(name)}": p for part, each in parts.items() for name, p in each.named_parameters()}
    return {name: p.grad for name, p in named.items() if p.grad is not None}


def inner(name: str) -> str:
    """Without the wrapper for clips of several lengths."""
    return name.removeprefix("backbone.")


def as_view(pixels: Tensor) -> Tensor:
    """An image is a clip of one frame."""
    return pixels if pixels.ndim == 5 else pixels.unsqueeze(2)


def serve(side: Ours | Theirs, which: str, pixels: Tensor, draw: Any) -> None:
    """Take a step for each number that is read, with the masks that are drawn as the one of that number; say what it
    took of each part, and which masks it had."""
    view, drawn = as_view(pixels), 0
    with attached(side.trainer, side.split) if isinstance(side, Ours) else contextlib.nullcontext():
        for number in sys.stdin:
            while drawn <= int(number):
                torch.manual_seed(drawn)
                asked, drawn = draw(len(pixels)), drawn + 1
            side(view, question(asked, which)) if isinstance(side, Ours) else side(pixels, asked)
            (parts,) = side.split.taken()
            masks = [[len(mask[0]), int(mask.sum())] for mask in (*asked.context, *asked.target)]
            print(json.dumps({"parts": parts, "masks": masks}), flush=True)


def measured(command: list[str], warm: int, rounds: int) -> None:
    """Steps of both sides in turns; medians, and the ratio pair by pair."""
    with contextlib.ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
        sides = [stack.enter_context(subprocess.Popen([*command, f"side={side}"], **pipes)) for side in SIDES]
        for process, count in zip(sides, (warm, WARM), strict=True):
            for number in range(count):
                stepped(process, number)
        pairs = [[stepped(process, warm + number) for process in sides] for number in range(rounds)]
    assert all(mine["masks"] == peers["masks"] for mine, peers in pairs), "the two sides had other masks"
    pairs = [[step["parts"] for step in pair] for pair in pairs]
    totals = []
    for side, steps in zip(SIDES, zip(*pairs, strict=True), strict=True):
        parts = {part: statistics.median(step.get(part, 0.0) for step in steps) for part in (*PARTS, REST)}
        said = "  ".join(f"{part} {1e3 * seconds:.1f}" for part, seconds in parts.items() if seconds)
        total = [sum(step.values()) for step in steps]
        print(
            f"{side:7}{1e3 * statistics.median(total):8.1f} ms [{1e3 * min(total):.1f}..{1e3 * max(total):.1f}]  {said}"
        )
        totals.append(total)
    ours, others = totals
    found = ratio(others, ours)
    print(f"theirs / ours, pair by pair: x{found.median:.3f} [{found.least:.3f}..{found.most:.3f}]")


def stepped(process: subprocess.Popen[str], number: int) -> dict[str, Any]:
    """What a process says of one more step."""
    process.stdin.write(f"{number}\n")
    process.stdin.flush()
    if not (line := process.stdout.readline()):
        raise SystemExit(f"{' '.join(map(str, process.args))} ended with {process.wait()}")
    return json.loads(line)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        raise SystemExit(str(error)) from None
