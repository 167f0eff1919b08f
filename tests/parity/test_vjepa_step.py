"""V-JEPA's and V-JEPA 2's steps of training, from a clip's pixels to the moved teacher, against plain formulas.

Both kinds of masks, each with a predictor call of its own; the error is absolute, its mean that of the kinds' means.
"""

import math
from typing import Any, NamedTuple

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
from tests.parity.test_video_positions import every_place, turned, written_out

STEPS, EPOCH_STEPS, WARMUP, STRETCH, BATCH = 3, 2.0, 1, 1.5, 2
TEACHER = "anti_collapse.strategies.ema.teacher"
DEPTH, HEADS, HEAD, NARROW = 2, 2, 14, 8
"""Blocks and heads of both networks; channels of one head of the encoder (two of them are not turned), of the other."""
PATCH, TUBELET, SIDE, FRAMES = 4, 2, 16, 4
SMALL = (
    f"tokenizer.patch={PATCH}",
    f"encoder.width={HEADS * HEAD}",
    f"encoder.depth={DEPTH}",
    f"encoder.heads={HEADS}",
    f"predictor.width={HEADS * NARROW}",
    f"predictor.depth={DEPTH}",
    f"predictor.heads={HEADS}",
    "masker.blocks=[2,1]",
    "masker.scales=[0.15,0.5]",
    f"data.size={SIDE}",
    f"data.frames={FRAMES}",
    f"data.batch_size={BATCH}",
    "trainer.global_batch=null",
    f"anti_collapse.ema.stretch={STRETCH}",
    f"optim.stretch={STRETCH}",
    f"optim.warmup={WARMUP / EPOCH_STEPS}",
    "optim.lr=0.03",
    "optim.start_lr=0.01",
    "optim.betas=[0.8,0.99]",
    "optim.eps=1e-6",  # the gradient of the keys' bias is zero but for rounding, which a smaller eps would blow up
)


class Way(NamedTuple):
    """What the papers differ in: turned queries and keys, one mask token for every kind, constant momentum."""

    recipe: str
    turns: bool
    tokens: tuple[int, int]
    momentum: tuple[float, float]


WAYS = [
    Way("vjepa_vitl16", turns=False, tokens=(0, 1), momentum=(0.998, 1.0)),
    Way("vjepa2_vitl16", turns=True, tokens=(0, 0), momentum=(0.99925, 0.99925)),
]


def small(way: Way) -> tuple[Built, dict[str, Any]]:
    config = resolve([f"recipe={way.recipe}", "data.root=/clips", *SMALL])
    built = build(config, STEPS)
    return built._replace(jepa=shaken(built.jepa.double())), config


def tubelets(clip: Tensor, tube: int = TUBELET, patch: int = PATCH) -> Tensor:
    """``C T H W`` to ``N P``: the pixels of each box, channel by channel, frame by frame, row by row."""
    _, frames, height, width = clip.shape
    cut = [
        clip[:, t : t + tube, y : y + patch, x : x + patch].reshape(-1)
        for t in range(0, frames, tube)
        for y in range(0, height, patch)
        for x in range(0, width, patch)
    ]
    return torch.stack(cut)


class Formulas:
    """The networks of one way, by the names of their weights."""

    def __init__(self, way: Way, grid: Grid):
        self.way, self.places = way, every_place(grid)
        self.turns = {size: self.turn(size) for size in (HEAD, NARROW)}

    def turn(self, size: int) -> Tensor:
        """What turning makes of each channel at each place, as matrices: ``N d d``."""
        return torch.stack([turned(torch.eye(size).double(), [place] * size, tiled=True) for place in self.places])

    def attention(self, x: Tensor, w: plain.Weights, name: str, where: Tensor) -> Tensor:
        """``N D`` to ``N D``, head by head; queries and keys are turned by where their tokens lie."""
        answers, size = [], x.shape[1] // HEADS
        for q, k, v in zip(*(p.split(size, 1) for p in plain.linear(x, w, f"{name}.qkv").chunk(3, 1)), strict=True):
            if self.way.turns:
                q, k = ((each[:, None] @ self.turns[size][where]).squeeze(1) for each in (q, k))
            score = (q @ k.T / math.sqrt(size)).exp()
            answers.append(score / score.sum(1, keepdim=True) @ v)
        return plain.linear(torch.cat(answers, 1), w, f"{name}.proj")

    def transformer(self, x: Tensor, w: plain.Weights, name: str, where: Tensor) -> Tensor:
        for i in range(DEPTH):
            block = f"{name}.blocks.{i}"
            x = x + self.attention(plain.scaled_norm(x, w, f"{block}.norm1"), w, f"{block}.attn", where)
            hidden = plain.gelu(plain.linear(plain.scaled_norm(x, w, f"{block}.norm2"), w, f"{block}.mlp.fc1"))
            x = x + plain.linear(hidden, w, f"{block}.mlp.fc2")
        return plain.scaled_norm(x, w, f"{name}.norm")

    def placed(self, x: Tensor, where: Tensor) -> Tensor:
        """V-JEPA adds its positions here, V-JEPA 2 turns by them instead."""
        return x if self.way.turns else x + written_out(self.places, x.shape[1])[where]

    def encode(self, clip: Tensor, keep: Tensor, w: plain.Weights, name: str) -> Tensor:
        tokens = plain.linear(tubelets(clip), w, f"{name}.tokenizer.proj")[keep]
        return self.transformer(self.placed(tokens, keep), w, f"{name}.encoder", keep)

    def predict(self, seen: Tensor, keep: Tensor, asked: Tensor, kind: int, w: plain.Weights) -> Tensor:
        blank = w["predictor.mask_token"][self.way.tokens[kind]].expand(len(asked), -1)
        where = torch.cat([keep, asked])
        x = self.placed(torch.cat([plain.linear(seen, w, "predictor.embed"), blank]), where)
        return plain.linear(self.transformer(x, w, "predictor", where)[len(keep) :], w, "predictor.proj")

    def loss(self, w: plain.Weights, clips: Tensor, masks: list[Mask]) -> Tensor:
        """The mean over kinds of the mean absolute error against the layer-normed teacher."""
        everything, means = torch.arange(len(self.places)), []
        answers = [plain.norm(self.encode(clip, everything, w, TEACHER), eps=1e-5).detach() for clip in clips]
        for kind, mask in enumerate(masks):
            errors = []
            for clip, keep, (asked,), answer in zip(clips, mask.context, mask.target, answers, strict=True):
                seen = self.encode(clip, keep, w, "backbone")
                errors.append((self.predict(seen, keep, asked, kind, w) - answer[asked]).abs())
            means.append(torch.stack(errors).sum() / torch.stack(errors).numel())
        return (means[0] + means[1]) / 2


class Plain:
    """The same training by hand: weights by name, one state of AdamW for each that is trained."""

    def __init__(self, built: Built, way: Way, optim: dict):
        trained = {name for name, p in built.jepa.named_parameters() if p.requires_grad}
        self.weights = {name: value.detach().clone() for name, value in built.jepa.state_dict().items()}
        self.states: dict[str, dict] = {name: {} for name in trained}
        self.way, self.optim, self.formulas = way, optim, Formulas(way, built.grid)

    def step(self, step: int, clips: Tensor, masks: list[Mask]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and every gradient; then AdamW and the teacher move."""
        leaves = {name: self.weights[name].requires_grad_() for name in self.states}
        loss = self.formulas.loss(self.weights, clips, masks)
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        o, total = self.optim, int(STEPS * STRETCH)
        rate = plain.learning_rate(step, o["start_lr"], o["lr"], o["final_lr"], WARMUP, total)
        decay = plain.weight_decay(step, *o["weight_decay"], total)
        for name, p in leaves.items():
            own = 0.0 if p.ndim == 1 else decay
            moved = plain.adamw(p.detach(), grads[name], self.states[name], rate, own, o["betas"], o["eps"])
            self.weights[name] = moved
        share = plain.momentum(step, *self.way.momentum, STEPS * STRETCH)
        for name in self.weights:
            if name.startswith(TEACHER):
                fast = self.weights[name.replace(TEACHER, "backbone")]
                self.weights[name] = share * self.weights[name] + (1 - share) * fast
        return loss, grads


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.recipe)
def test_steps_of_training_are_what_the_formulas_say(way):
    built, config = small(way)
    jepa, optim = built.jepa, config["optim"]
    assert built.grid == (FRAMES // TUBELET, SIDE // PATCH, SIDE // PATCH)
    by_hand, optimizer = Plain(built, way, optim), adamw(jepa, optim)
    for step in range(STEPS):
        clips = randn(BATCH, 3, FRAMES, SIDE, SIDE, seed=step)
        masks = built.masker(built.grid, BATCH, seeds.generator("masks", step))
        assert [mask.kind for mask in masks] == [0, 1]
        set_schedules(optimizer, optim, step, STEPS, EPOCH_STEPS)
        losses = jepa([clips], masks)
        losses.total.backward()
        expected, grads = by_hand.step(step, clips, masks)
        close(losses.total, expected)
        for name, p in jepa.named_parameters():
            assert (p.grad is not None) == (name in grads)
            if p.grad is not None:
                close(p.grad, grads[name])
        optimizer.step()
        optimizer.zero_grad()
        jepa.anti_collapse.after_step(jepa.backbone, step)
        for name, value in jepa.state_dict().items():
            close(value, by_hand.weights[name])
    assert all(grad.abs().max() > 0 for name, grad in grads.items()), "or a parameter would not matter"
