"""The released step and ours with the same weights, images and masks: are the numbers equal, and what does each cost?

    IJEPA_CODE=FOLDER python -m tests.released.same ijepa size=small data.batch_size=16 trainer.precision=fp32
    VJEPA2_CODE=FOLDER python -m tests.released.same vjepa2 size=tiny data.batch_size=2 theirs=bf16 rounds=9

Ours is the trainer's own step, theirs that of ``ijepa.py`` or ``vjepa2.py`` beside this file. Both are fed with one
batch and with masks that the released collator draws, others in each round. The first step compares losses and
gradients; then steps are taken in turns, and the CPU time of the process is compared pair by pair, on one thread.

Each has memory as it has it by itself: ours keeps what is freed (``device.keep_pages``), theirs has glibc's own
settings, and whose turn comes takes a step first that does not count. With ``pages=shared`` theirs has what ours has.

Settings are those of any command line. ``size`` is one of ``SIZES``; ``theirs`` is their precision, where it is not
ours; ``rounds`` is how many pairs are timed.
"""

import contextlib
import ctypes
import importlib
import io
import statistics
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
from jepakit.device import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_pages
from jepakit.errors import UserError
from jepakit.train import Trainer
from jepakit.types import Batch, Mask
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
OWN = {"size": "small", "theirs": "", "rounds": "7", "pages": "own"}
M_MMAP_THRESHOLD = -3
"""A number by which glibc's ``mallopt`` knows it."""

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
    """Compare, time, print."""
    if not words or words[0] not in BASES:
        raise SystemExit(f"python -m tests.released.same {'|'.join(BASES)} [key=value ...]")
    which, *words = words
    given = dict(word.split("=", 1) for word in words)
    own = {key: given.pop(key, default) for key, default in OWN.items()}
    config = resolve([*BASES[which], *SHARED, *sized(own["size"]), *(f"{key}={value}" for key, value in given.items())])
    precision = config["trainer"]["precision"]
    other = {**config, "trainer": {**config["trainer"], "precision": own["theirs"] or precision}}
    with TemporaryDirectory() as folder:
        module = importlib.import_module(f"tests.released.{which}")
        draw, pixels = module.collator(config), module.pixels(config, torch.device("cpu"))
        mine, peer = Ours(config, Path(folder)), Theirs(module, other)
        load(mine.trainer.jepa, peer.step.models, which, config)
        torch.manual_seed(0)
        compared(mine, peer, which, config, pixels, draw(len(pixels)))
        print(f"{which} {' '.join(words)}: ours {precision}, theirs {own['theirs'] or precision}")
        with attached(mine.trainer, mine.split):
            measured(mine, peer, which, pixels, draw, int(own["rounds"]), own["pages"] == "shared")
        mine.trainer.log.close()


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


def give_pages() -> None:
    """What glibc comes to by itself where large blocks are freed again and again (malloc.c, dynamic thresholds)."""
    mallopt, largest = ctypes.CDLL(None).mallopt, 32 * 2**20
    assert mallopt(M_MMAP_MAX, 65536) and mallopt(M_MMAP_THRESHOLD, largest) and mallopt(M_TRIM_THRESHOLD, 2 * largest)


def measured(mine: Ours, peer: Theirs, which: str, pixels: Tensor, draw: Any, rounds: int, shared: bool) -> None:
    """Steps in turns, two at a time, of which the second counts; medians, and the ratio pair by pair."""
    view, losses = as_view(pixels), []
    for _ in range(rounds + 1):
        asked = draw(len(pixels))
        keep_pages()
        one = [mine(view, question(asked, which)) for _ in range(2)]
        if not shared:
            give_pages()
        losses.append((one[-1], [peer(pixels, asked) for _ in range(2)][-1]))
    sides = {"ours": mine.split.taken()[3::2], "theirs": peer.split.taken()[3::2]}
    totals = {name: [sum(step.values()) for step in steps] for name, steps in sides.items()}
    for name, steps in sides.items():
        parts = {part: statistics.median(step.get(part, 0.0) for step in steps) for part in (*PARTS, REST)}
        said = "  ".join(f"{part} {1e3 * seconds:.1f}" for part, seconds in parts.items() if seconds)
        total = sorted(totals[name])
        print(f"{name:7}{1e3 * statistics.median(total):8.1f} ms [{1e3 * total[0]:.1f}..{1e3 * total[-1]:.1f}]  {said}")
    ratios = sorted(b / a for a, b in zip(totals["ours"], totals["theirs"], strict=True))
    print(f"theirs / ours, pair by pair: x{statistics.median(ratios):.3f} [{ratios[0]:.3f}..{ratios[-1]:.3f}]")
    print(f"loss after {2 * rounds + 3} steps: ours {losses[-1][0]:.6f}, theirs {losses[-1][1]:.6f}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        raise SystemExit(str(error)) from None
