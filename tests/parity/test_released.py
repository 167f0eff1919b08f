"""Against the released code's own training: what it did is kept in ``released/``, numbers alone (see its README)."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jepakit_ema.ema import Ema
from safetensors.torch import load_file
from torch import Tensor, nn

from jepakit.build import build
from jepakit.config import resolve
from jepakit.jepa import Jepa
from jepakit.optim import adamw, set_schedules
from jepakit.types import Losses, Mask
from tests.parity.shared import close, prepared

FOLDER = Path(__file__).parent / "released"
RUN = json.loads((FOLDER / "run.json").read_text("utf-8"))
STEPS, EPOCH_STEPS, BATCH = 6, 3.0, 2
LINES = (
    "tokenizer=patch",
    "tokenizer.patch=4",
    "encoder=vit",
    "encoder.width=8",
    "encoder.depth=2",
    "encoder.heads=2",
    "predictor=vit_predictor",
    "predictor.width=12",
    "predictor.depth=1",
    "predictor.heads=2",
    "masker=multiblock_official",
    "masker.min_keep=4",
    "data.size=32",
    f"data.batch_size={BATCH}",
    "optim.warmup=1",
)
PARTS = {  # the first words of their names, and ours
    "encoder.patch_embed.": "backbone.tokenizer.",
    "encoder.": "backbone.encoder.",
    "predictor.mask_token": "predictor.mask_token",
    "predictor.predictor_": "predictor.",
    "target_encoder.patch_embed.": "anti_collapse.strategies.ema.teacher.tokenizer.",
    "target_encoder.": "anti_collapse.strategies.ema.teacher.encoder.",
}


def name(theirs: str) -> str:
    """A parameter's name in jepakit."""
    found = next(begins for begins in PARTS if theirs.startswith(begins))
    return PARTS[found] + theirs.removeprefix(found)


@cache
def tensors(kind: str) -> dict[str, Tensor]:
    """All of ``kind/...``, by jepakit's names where they are parameters."""
    found = {key.removeprefix(f"{kind}/"): value for key, value in _file().items() if key.startswith(f"{kind}/")}
    return found if kind.startswith("step") else {name(theirs): value for theirs, value in found.items()}


@cache
def _file() -> dict[str, Tensor]:
    return load_file(FOLDER / "run.safetensors")


class Recorded(NamedTuple):
    """What jepakit did in one step."""

    losses: Losses
    rates: dict[str, float]
    momentum: float
    gradients: dict[str, Tensor]


class Trained(NamedTuple):
    jepa: Jepa
    optimizer: torch.optim.Optimizer
    steps: list[Recorded]


@pytest.fixture(scope="module")
def trained() -> Trained:
    """The same training once more: the same weights, images and masks."""
    config = resolve([*LINES])
    jepa = build(config, STEPS).jepa.double()
    load(jepa, tensors("weights"))
    jepa.anti_collapse.prepare(jepa.backbone, STEPS)
    optimizer = adamw(jepa, config["optim"])
    return Trained(jepa, optimizer, [step(jepa, optimizer, config["optim"], i) for i in range(STEPS)])


def step(jepa: Jepa, optimizer: torch.optim.Optimizer, optim: dict[str, Any], number: int) -> Recorded:
    first, asked = number % int(EPOCH_STEPS) * BATCH, tensors(f"step{number}")
    images = _file()["images"][first : first + BATCH, :, None].double() / 32
    rates = set_schedules(optimizer, optim, number, STEPS, EPOCH_STEPS)
    losses = jepa([images], [Mask(asked["context"].long(), asked["target"].long())])
    losses.total.backward()
    gradients = {key: p.grad.clone() for key, p in jepa.named_parameters() if p.requires_grad}
    optimizer.step()
    optimizer.zero_grad()
    jepa.anti_collapse.after_step(jepa.backbone, number)
    return Recorded(losses, rates, jepa.anti_collapse.strategies["ema"].momentum(number), gradients)


def load(jepa: Jepa, weights: dict[str, Tensor]) -> None:
    """Set every trained parameter; theirs may have another shape (patches), but the same numbers in the same order."""
    trained = {key: p for key, p in jepa.named_parameters() if p.requires_grad}
    assert trained.keys() == weights.keys()
    with torch.no_grad():
        for key, p in trained.items():
            p.copy_(weights[key].reshape(p.shape))


def blocks(theirs: Tensor) -> Tensor:
    """Theirs has the blocks one after another in the batch, ``(M B) Q D``; jepakit ``B M Q D``."""
    return theirs.unflatten(0, (-1, BATCH)).transpose(0, 1)


@pytest.mark.parametrize("number", range(STEPS))
def test_the_loss_of_every_step(trained, number):
    found = trained.steps[number].losses.total
    close(found.detach(), torch.tensor(RUN["steps"][number]["loss"], dtype=torch.float64))


def test_context_guess_and_answer(trained):
    """In the last step, when teacher and encoder have long parted."""
    seen, guess, truth = trained.steps[-1].losses.trace[0]
    expected = tensors(f"step{STEPS - 1}")
    close(seen, expected["seen"])
    close(guess, blocks(expected["guess"]))
    close(truth, blocks(expected["truth"]))


def test_every_gradient_of_the_first_step(trained):
    expected = tensors("gradients")
    assert expected.keys() == trained.steps[0].gradients.keys()
    for key, found in trained.steps[0].gradients.items():
        close(found, expected[key].reshape(found.shape))


@pytest.mark.parametrize("number", range(STEPS))
def test_the_size_of_every_gradient_of_every_step(trained, number):
    expected = {name(theirs): size for theirs, size in RUN["steps"][number]["gradients"].items()}
    found = {key: gradient.norm().item() for key, gradient in trained.steps[number].gradients.items()}
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_weights_after_the_last_step(trained):
    """Of encoder, predictor and teacher: optimiser, weight decay and moving average in one."""
    expected, found = tensors("after"), dict(trained.jepa.named_parameters())
    assert expected.keys() == found.keys()
    before = tensors("weights")
    for key, p in found.items():
        same(key, p.detach(), expected[key].reshape(p.shape))
        assert key not in before or not torch.equal(p, before[key].reshape(p.shape)), f"{key} has not moved"


def same(key: str, found: Tensor, expected: Tensor) -> None:
    """To the tolerance, but for the bias of the keys, which softmax does not feel: its gradient is zero but for
    rounding, of order 1e-17, and AdamW divides that by its eps of 1e-8."""
    if key.endswith("qkv.bias"):
        (q, k, v), (theirs_q, theirs_k, theirs_v) = found.chunk(3), expected.chunk(3)
        torch.testing.assert_close(k, theirs_k, rtol=0, atol=1e-10)
        found, expected = torch.cat([q, v]), torch.cat([theirs_q, theirs_v])
    close(found, expected)


def test_which_parameters_decay(trained):
    names = {id(p): key for key, p in trained.jepa.named_parameters()}
    found = {names[id(p)]: group["decays"] for group in trained.optimizer.param_groups for p in group["params"]}
    expected = {
        name(theirs): not group["excluded"]
        for group in RUN["groups"]
        for theirs in group["parameters"]
        if not theirs.endswith("pos_embed")  # among theirs, frozen
    }
    assert found == expected
    for group in RUN["groups"]:
        assert all(
            [*own["betas"]] == group["betas"] and own["eps"] == group["eps"] for own in trained.optimizer.param_groups
        )


@pytest.mark.parametrize("number", range(STEPS))
def test_rates_of_every_step(trained, number):
    found, theirs = trained.steps[number], RUN["steps"][number]
    assert theirs["lr"] == pytest.approx([found.rates["lr"]] * 4, rel=1e-12)
    for group, decay in zip(RUN["groups"], theirs["weight_decay"], strict=True):
        assert decay == pytest.approx(0.0 if group["excluded"] else found.rates["weight_decay"], rel=1e-12)
    assert found.momentum == pytest.approx(theirs["momentum"], rel=1e-12)


@pytest.mark.parametrize("theirs", RUN["schedules"], ids=lambda s: f"{s['epochs']} epochs, stretch {s['stretch']}")
def test_schedules_of_whole_runs(theirs):
    optim = resolve(["masker=multiblock", f"optim.warmup={theirs['warmup']}", f"optim.stretch={theirs['stretch']}"])
    ema = prepared(Ema(stretch=theirs["stretch"]), theirs["steps"])
    optimizer = adamw(nn.Linear(2, 2), optim["optim"])
    for place, number in enumerate(range(0, theirs["steps"], theirs["every"])):
        found = set_schedules(optimizer, optim["optim"], number, theirs["steps"], float(theirs["epoch_steps"]))
        assert found["lr"] == pytest.approx(theirs["lr"][place], rel=1e-12)
        assert found["weight_decay"] == pytest.approx(theirs["weight_decay"][place], rel=1e-12)
        assert ema.momentum(number) == pytest.approx(theirs["momentum"][place], rel=1e-12)
    assert place + 1 == len(theirs["lr"])
