"""Steps of training, from pixels to the moved teacher, against the plain formulas."""

import pytest
import torch
from torch import Tensor

from jepakit import seeds
from jepakit.build import Built
from jepakit.optim import adamw, set_schedules
from jepakit.types import Mask
from tests.parity import plain
from tests.parity.shared import DEPTH, HEADS, PATCH, PREDICTOR_DEPTH, PREDICTOR_HEADS, close, randn, small

STEPS, EPOCH_STEPS, WARMUP = 5, 4.0, 2
OPTIONS = (
    "optim.lr=0.03",
    "optim.start_lr=0.01",
    "optim.final_lr=0.001",
    f"optim.warmup={WARMUP / EPOCH_STEPS}",
    "optim.betas=[0.8,0.99]",
    "optim.eps=1e-6",  # the gradient of the keys' bias is zero but for rounding, which a smaller eps would blow up
)
TEACHER = "anti_collapse.strategies.ema.teacher"


def plain_loss(w: dict[str, Tensor], pictures: Tensor, mask: Mask, rows: int, columns: int) -> Tensor:
    """Smooth L1 between guess and answer, averaged over every number of every block of every picture."""
    everything, errors = torch.arange(rows * columns), []
    for picture, keep, blocks in zip(pictures.squeeze(2), mask.context, mask.target, strict=True):
        answer = plain.norm(plain.encode(picture, everything, w, TEACHER, PATCH, DEPTH, HEADS), eps=1e-5).detach()
        seen = plain.encode(picture, keep, w, "backbone", PATCH, DEPTH, HEADS)
        for asked in blocks:
            guess = plain.predict(seen, keep, asked, w, (rows, columns), PREDICTOR_DEPTH, PREDICTOR_HEADS)
            errors.append(plain.smooth_l1(guess, answer[asked]))
    return torch.stack(errors).sum() / torch.stack(errors).numel()


class Plain:
    """The same training by hand: weights by name, one state of AdamW for each that is trained."""

    def __init__(self, built: Built, optim: dict):
        trained = {name for name, p in built.jepa.named_parameters() if p.requires_grad}
        self.weights = {name: value.detach().clone() for name, value in built.jepa.state_dict().items()}
        self.states: dict[str, dict] = {name: {} for name in trained}
        self.optim, self.grid = optim, built.grid

    def step(self, step: int, pictures: Tensor, mask: Mask) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and every gradient; then AdamW and the teacher move."""
        leaves = {name: self.weights[name].requires_grad_() for name in self.states}
        loss = plain_loss(self.weights, pictures, mask, self.grid.h, self.grid.w)
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        o = self.optim
        rate = plain.learning_rate(step, o["start_lr"], o["lr"], o["final_lr"], WARMUP, STEPS)
        decay = plain.weight_decay(step, *o["weight_decay"], STEPS)
        for name, p in leaves.items():
            own = 0.0 if p.ndim == 1 else decay
            moved = plain.adamw(p.detach(), grads[name], self.states[name], rate, own, o["betas"], o["eps"])
            self.weights[name] = moved
        share = plain.momentum(step, 0.996, 1.0, STEPS)
        for name in self.weights:
            if name.startswith(TEACHER):
                fast = self.weights[name.replace(TEACHER, "backbone")]
                self.weights[name] = share * self.weights[name] + (1 - share) * fast
        return loss, grads


@pytest.mark.parametrize("mode", ["official", "unbiased"])
def test_steps_of_training_are_what_the_formulas_say(mode):
    built, config = small(f"masker.mode={mode}", *OPTIONS, steps=STEPS)
    jepa, optim = built.jepa, config["optim"]
    by_hand, optimizer = Plain(built, optim), adamw(jepa, optim)
    for step in range(STEPS):
        pictures = randn(3, 3, 1, 24, 24, seed=step)
        (mask,) = built.masker(built.grid, 3, seeds.generator(mode, step))
        set_schedules(optimizer, optim, step, STEPS, EPOCH_STEPS)
        losses = jepa([pictures], [mask])
        losses.total.backward()
        expected, grads = by_hand.step(step, pictures, mask)
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


def test_teacher_and_backbone_begin_as_one_and_part():
    built, config = small(steps=STEPS)
    jepa = built.jepa
    jepa.anti_collapse.prepare(jepa.backbone, STEPS)
    pairs = list(zip(jepa.backbone.parameters(), jepa.target_backbone.parameters(), strict=True))
    assert all(torch.equal(fast, slow) and fast is not slow for fast, slow in pairs)
    optimizer = adamw(jepa, config["optim"])
    (mask,) = built.masker(built.grid, 3, seeds.generator("once"))
    jepa([randn(3, 3, 1, 24, 24)], [mask]).total.backward()
    set_schedules(optimizer, config["optim"], 0, STEPS, EPOCH_STEPS)
    optimizer.step()
    before = [slow.clone() for _, slow in pairs]
    jepa.anti_collapse.after_step(jepa.backbone, STEPS)  # momentum 1: the teacher stands still
    assert all(torch.equal(slow, was) for (_, slow), was in zip(pairs, before, strict=True))
    jepa.anti_collapse.after_step(jepa.backbone, 0)
    assert not any(torch.equal(slow, was) for (_, slow), was in zip(pairs, before, strict=True))
