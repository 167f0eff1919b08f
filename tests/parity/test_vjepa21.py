"""V-JEPA 2.1's step of training, of clips and of pictures at once, against plain formulas.

Targets from several layers, errors of what is hidden and of what is seen, the latter by their distance from what is
hidden and by the step; two projections and modality vectors in both networks. And the same against numbers of the
released code (see ``released/README.md``).
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepakit import seeds
from jepakit.build import Built, build
from jepakit.config import resolve
from jepakit.optim import adamw, set_schedules
from jepakit.types import Grid, Mask
from tests.parity import plain
from tests.parity.shared import close, randn, shaken
from tests.parity.test_video_positions import every_place, turned
from tests.parity.test_vjepa_step import BATCH, EPOCH_STEPS, STEPS, TEACHER, Plain, Way, tubelets
from tests.parity.test_vjepa_step import SMALL as SMALL_CLIPS

DEPTH, LAYERS, HEADS, PATCH, TUBELET = 3, (0, 2), 2, 4, 2
LAST = 15
"""Places of rows and columns run from 0 to this, whatever the grid: that of 256 pixels."""
WAY = Way("vjepa21_vitl16", turns=True, tokens=(0, 0), momentum=(0.99925, 0.99925))
SMALL = (
    *(line for line in SMALL_CLIPS if not line.startswith(("encoder.depth", "predictor.depth"))),
    f"encoder.depth={DEPTH}",
    f"encoder.layers={list(LAYERS)}",
    f"predictor.depth={DEPTH}",
    f"predictor.levels={len(LAYERS)}",
    f"masker.recall_steps=[0,{STEPS - 1}]",
    "branches.image.data.root=/pictures",
    "branches.image.data.size=16",
    f"branches.image.data.batch_size={BATCH}",
    "branches.image.masker.blocks=[2]",
    f"branches.image.masker.recall_steps=[0,{STEPS - 1}]",
)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Masks have their weights in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small(*overrides: str) -> tuple[Built, dict[str, Any]]:
    config = resolve(["recipe=vjepa21_vitl16", "data.root=/clips", *SMALL, *overrides])
    built = build(config, STEPS)
    return built._replace(jepa=shaken(built.jepa.double())), config


def nearest(token: tuple, others: list[tuple]) -> float:
    return min(math.dist(token, other) for other in others)


class Formulas:
    """One branch. ``moves`` is whether it sees clips."""

    def __init__(self, grid: Grid, moves: bool, tube: int, patch: int, layers: tuple[int, ...], heads: int):
        self.moves, self.tube, self.patch, self.layers, self.heads = moves, tube, patch, layers, heads
        self.tokens = every_place(grid)
        self.places = [(t, y * LAST / (grid.h - 1), x * LAST / (grid.w - 1)) for t, y, x in self.tokens]
        self.turns: dict[int, Tensor] = {}

    def turn(self, size: int) -> Tensor:
        """What turning makes of each channel of a head at each place, as matrices: ``N d d``."""
        if size not in self.turns:
            eye = torch.eye(size).double()
            self.turns[size] = torch.stack([turned(eye, [place] * size, tiled=False) for place in self.places])
        return self.turns[size]

    def attention(self, x: Tensor, w: plain.Weights, name: str, where: Tensor) -> Tensor:
        answers, size = [], x.shape[1] // self.heads
        for q, k, v in zip(*(p.split(size, 1) for p in plain.linear(x, w, f"{name}.qkv").chunk(3, 1)), strict=True):
            q, k = ((each[:, None] @ self.turn(size)[where]).squeeze(1) for each in (q, k))
            score = (q @ k.T / math.sqrt(size)).exp()
            answers.append(score / score.sum(1, keepdim=True) @ v)
        return plain.linear(torch.cat(answers, 1), w, f"{name}.proj")

    def blocks(self, x: Tensor, w: plain.Weights, name: str, where: Tensor) -> list[Tensor]:
        """What each block gives."""
        given = []
        while f"{name}.blocks.{len(given)}.norm1.weight" in w:
            block = f"{name}.blocks.{len(given)}"
            x = x + self.attention(plain.scaled_norm(x, w, f"{block}.norm1"), w, f"{block}.attn", where)
            hidden = plain.gelu(plain.linear(plain.scaled_norm(x, w, f"{block}.norm2"), w, f"{block}.mlp.fc1"))
            x = x + plain.linear(hidden, w, f"{block}.mlp.fc2")
            given.append(x)
        return given

    def encode(self, clip: Tensor, keep: Tensor, w: plain.Weights, name: str) -> list[Tensor]:
        """The levels of the kept tokens."""
        cut = tubelets(clip, self.tube, self.patch)
        own = f"{name}.tokenizer.{'clips' if self.moves else 'pictures'}.proj"
        x = plain.linear(cut, w, own) + w[f"{name}.tokenizer.modality"][int(self.moves)]
        given = self.blocks(x[keep], w, f"{name}.encoder", keep)
        norms = [f"{name}.encoder.norms.{i}" for i in range(len(self.layers) - 1)] + [f"{name}.encoder.norm"]
        return [plain.scaled_norm(given[i], w, norm) for i, norm in zip(self.layers, norms, strict=True)]

    def predict(self, seen: list[Tensor], keep: Tensor, asked: Tensor, w: plain.Weights) -> tuple[Tensor, Tensor]:
        """What is hidden and what is seen, all levels side by side."""
        hidden = plain.gelu(plain.linear(torch.cat(seen, 1), w, "predictor.embed.fc1"))
        blank = w["predictor.mask_token"][0].expand(len(asked), -1)
        x = torch.cat([plain.linear(hidden, w, "predictor.embed.fc2"), blank])
        x = x + w["predictor.modality"][int(self.moves)]
        x = plain.scaled_norm(self.blocks(x, w, "predictor", torch.cat([keep, asked]))[-1], w, "predictor.norm")
        kept = len(keep)
        return plain.linear(x[kept:], w, "predictor.proj"), plain.linear(x[:kept], w, "predictor.recall")

    def loss(self, w: plain.Weights, clips: Tensor, masks: list[Mask], share: float, near: bool = True) -> Tensor:
        """The mean over kinds of the mean absolute error of what is hidden, and ``share`` of that of what is seen, each
        token's over the root of its distance from what is hidden."""
        everything = torch.arange(len(self.tokens))
        answers = [
            torch.cat([plain.norm(level, eps=1e-5) for level in self.encode(clip, everything, w, TEACHER)], 1).detach()
            for clip in clips
        ]
        means = []
        for mask in masks:
            missed, known = [], []
            for clip, keep, (asked,), answer in zip(clips, mask.context, mask.target, answers, strict=True):
                asked = asked[: len(asked) - len(keep)]
                guess, again = self.predict(self.encode(clip, keep, w, "backbone"), keep, asked, w)
                missed.append((guess - answer[asked]).abs())
                gaps = [nearest(self.tokens[i], [self.tokens[j] for j in asked]) for i in keep]
                far = torch.tensor(gaps if near else [1.0] * len(keep))
                known.append((again - answer[keep]).abs() / far[:, None].sqrt())
            means.append(sum(missed).sum() / torch.stack(missed).numel())
            means[-1] = means[-1] + share * sum(known).sum() / torch.stack(known).numel()
        return sum(means) / len(means)


class Joint:
    """Both branches, each with half of the weight."""

    def __init__(self, built: Built, config: Mapping[str, Any], tube: int, patch: int, layers: tuple, heads: int):
        self.step, self.near = 0, config["masker"]["recall_by_distance"]
        self.formulas = {
            name: Formulas(figure.grid, name == "video", tube if name == "video" else 1, patch, layers, heads)
            for name, figure in built.figures.items()
        }

    def loss(self, w: plain.Weights, views: dict[str, Tensor], masks: dict[str, list[Mask]]) -> Tensor:
        share = 0.5 * self.step / (STEPS - 1)
        self.step += 1
        each = [self.formulas[name].loss(w, views[name], masks[name], share, self.near) for name in views]
        return each[0] / 2 + each[1] / 2


def asked(built: Built, step: int) -> dict[str, list[Mask]]:
    found = {}
    for name, figure in built.figures.items():
        found[name] = figure.masker(figure.grid, BATCH, seeds.generator("masks", name, step), step=step)
    return found


def both(built: Built, config: Mapping[str, Any], views: Mapping[str, Tensor], masks: Mapping[str, list]) -> Tensor:
    """The step's loss, as jepakit has it."""
    found = {name: figure.jepa([views[name]], masks[name]).total for name, figure in built.figures.items()}
    return sum(config["branches"][name]["weight"] * loss for name, loss in found.items())


@pytest.mark.parametrize("near", [True, False])
def test_steps_of_training_are_what_the_formulas_say(near):
    flags = [f"{part}.recall_by_distance={str(near).lower()}" for part in ("masker", "branches.image.masker")]
    built, config = small(*flags)
    jepa, optim = built.jepa, config["optim"]
    by_hand, optimizer = Plain(built, WAY, optim), adamw(jepa, optim)
    by_hand.formulas = Joint(built, config, TUBELET, PATCH, LAYERS, HEADS)
    for step in range(STEPS if near else 2):
        views = {"image": randn(BATCH, 3, 1, 16, 16, seed=step), "video": randn(BATCH, 3, 4, 16, 16, seed=9 + step)}
        masks = asked(built, step)
        set_schedules(optimizer, optim, step, STEPS, EPOCH_STEPS)
        total = both(built, config, views, masks)
        total.backward()
        expected, grads = by_hand.step(step, views, masks)
        close(total, expected)
        for name, p in jepa.named_parameters():
            assert (p.grad is not None) == (name in grads)
            if p.grad is not None:
                close(p.grad, grads[name])
        optimizer.step()
        optimizer.zero_grad()
        jepa.after_step(step)
        for name, value in jepa.state_dict().items():
            close(value, by_hand.weights[name])
    assert all(grad.abs().max() > 0 for grad in grads.values()), "or a parameter would not matter"


RELEASED = json.loads((Path(__file__).parent / "released" / "vjepa21.json").read_text("utf-8"))
LINES = (
    "recipe=vjepa21_vitb16",
    "data.root=/clips",
    "branches.image.data.root=/pictures",
    "trainer.global_batch=null",
    "encoder.width=12",
    "encoder.heads=1",
    "predictor.width=12",
    "predictor.heads=1",
    "predictor.depth=4",
    "data.size=64",
    "data.frames=4",
    "data.batch_size=2",
    "branches.image.data.size=64",
    "branches.image.data.batch_size=2",
    "masker.blocks=[2,1]",
    "masker.scales=[0.2,0.5]",
    "branches.image.masker.blocks=[2]",
    "branches.image.masker.scales=[0.2]",
)


def whole(shape: Any, rng: torch.Generator) -> Tensor:
    """Whole numbers from -64 to 64."""
    return torch.randint(-64, 65, tuple(shape), generator=rng).double()


def test_losses_and_gradients_are_those_of_the_released_code():
    """All twelve blocks and four levels; a step within the context loss's growth."""
    config = resolve(LINES)
    built = build(config)
    built.jepa.double()
    rng = torch.Generator().manual_seed(21)
    with torch.no_grad():
        for p in built.jepa.parameters():
            p.copy_(whole(p.shape, rng) / 64)
    rng = torch.Generator().manual_seed(3)
    views = {name: whole((2, 3, frames, 64, 64), rng) / 32 for name, frames in (("image", 1), ("video", 4))}
    masks = {}
    for name, figure in built.figures.items():
        drawn = [{key: torch.tensor(value) for key, value in each.items()} for each in RELEASED["masks"][name]]
        masks[name] = [
            figure.masker.recall(Mask(each["context"], each["target"][:, None], kind=i), figure.grid, RELEASED["step"])
            for i, each in enumerate(drawn)
        ]
        total = figure.jepa([views[name]], masks[name]).total
        close(total, torch.tensor(RELEASED["losses"][name]["total"]))
    both(built, config, views, masks).backward()
    found = {name: p.grad.flatten() for name, p in built.jepa.named_parameters() if p.grad is not None}
    assert found.keys() == RELEASED["gradients"].keys()
    for name, grad in found.items():
        along = grad @ torch.arange(len(grad)).double().cos()
        close(torch.stack([grad.norm(), along]), torch.tensor(RELEASED["gradients"][name]))
