"""Bytes of a process by strategy, the choice that hangs on them, and what is sent."""

import dataclasses

import pytest
import torch

from jepakit.build import build
from jepakit.config import resolve
from jepakit.optim import make_optimizer
from jepakit.plan import choose
from jepakit.plan.count import Counts, step
from jepakit.plan.memory import GIB, USABLE, chosen, largest, state
from jepakit.plan.traffic import leaving, sent

MODEL = Counts(
    samples=10,
    forward={"encoder": 1},
    backward=2,
    again=0,
    tokens={},
    parameters={"encoder": 800, "predictor": 200, "teacher": 800},
    buffers=0,
    gathered={"trained": 1000, "frozen": 800},
    unit=100,
    state=8000,
    activation_bytes=5000,
    copy_bytes=1000,
    passes=1,
    turns=1,
)


@pytest.mark.parametrize("optimiser", ["adamw", "lars"])
def test_state_is_that_of_a_real_step(optimiser):
    config = resolve(["recipe=demo", "data.batch_size=4", "encoder.depth=1", f"optim.name={optimiser}"])
    jepa, held = build(config).jepa, state(step(config))
    trained = [p for p in jepa.parameters() if p.requires_grad]
    for p in trained:
        p.grad = torch.ones_like(p)
    optimizer = make_optimizer(jepa, config["optim"])
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    optimizer.step()
    tensors = [t for each in optimizer.state.values() for t in each.values() if torch.is_tensor(t) and t.ndim]
    assert held["parameters"] == held["gradients"] == sum(p.nbytes for p in trained)
    assert held["optimiser"] == sum(t.nbytes for t in tensors)
    assert held["teacher"] == sum(p.nbytes for p in jepa.parameters() if not p.requires_grad)
    assert held["blocks put together"] == 0


def test_shards():
    whole, four = state(MODEL, "ddp", 4), state(MODEL, "fsdp2", 4)
    assert [whole[name] for name in ("parameters", "gradients", "optimiser", "teacher")] == [4000, 4000, 8000, 3200]
    assert [four[name] for name in ("parameters", "gradients", "optimiser", "teacher")] == [1000, 1000, 2000, 800]
    assert four["16-bit copies"] == 1000 and four["blocks put together"] == 3 * 400
    assert state(MODEL, "hsdp", 8, shard=4) == four
    assert state(MODEL, "fsdp2", 4, accumulate=2)["gradients"] == 4000  # added up whole, exchanged once


def test_gradients_that_are_exchanged_take_the_place_of_activations():
    light = dataclasses.replace(MODEL, activation_bytes=500)
    assert state(light, "ddp", 1)["activations"] == 500
    assert state(light, "ddp", 2)["activations"] == 4000 - 1000
    assert state(MODEL, "ddp", 2)["activations"] == 5000


def test_choice_at_its_boundaries():
    need = {name: sum(state(MODEL, name, 16, 8).values()) / USABLE for name in ("ddp", "hsdp", "fsdp2")}
    assert need["fsdp2"] < need["hsdp"] < need["ddp"]

    def choice(room: float, world: int = 16) -> str:
        return chosen(MODEL, world, room, per_machine=8)[0]

    assert choice(need["ddp"] + 1) == "ddp" and choice(need["ddp"] - 1) == "hsdp"
    assert choice(need["hsdp"] + 1) == "hsdp" and choice(need["hsdp"] - 1) == "fsdp2"
    assert choice(need["ddp"] - 1, world=8) == "fsdp2"  # one machine
    assert choice(need["ddp"] - 1, world=12) == "fsdp2"  # no whole number of machines
    assert chosen(MODEL, 12, need["ddp"] - 1, 8, shard=4)[0] == "hsdp"
    assert choice(1, world=1) == "ddp"


def test_choice_says_why():
    large = dataclasses.replace(MODEL, activation_bytes=int(50 * GIB))
    assert chosen(large, 2, 80 * GIB, 8)[1] == "ddp: 50.0 GiB in each of 2 processes fit into 90 % of 80 GiB"
    strategy, why = chosen(large, 2, 40 * GIB, 8)
    assert strategy == "fsdp2" and why.endswith("more than 90 % of 40 GiB: a smaller data.batch_size is needed")


def test_choice_of_a_configuration():
    config = resolve(["recipe=demo", "data.batch_size=4", "encoder.depth=1", "predictor.depth=1"])
    assert choose(config, 16, 2**20, 8)[0] == "fsdp2"


def test_largest_micro_batch_fills_what_is_left():
    held = state(MODEL)
    fixed = sum(held.values()) - held["activations"]
    assert largest(MODEL, held, (fixed + 20000) / USABLE + 1) == 40
    assert largest(MODEL, held, fixed) == 0


def test_what_is_sent():
    assert sent(MODEL, "ddp", 1) == {} == sent(MODEL, "fsdp2", 1)
    assert sent(MODEL, "ddp", 4) == {"all-reduce of gradients": 2 * 3 / 4 * 4000}
    four = {
        "all-gather of parameters": 2 * 3 / 4 * 4000,
        "all-gather of the teacher": 3 / 4 * 3200,
        "reduce-scatter of gradients": 3 / 4 * 4000,
    }
    assert sent(MODEL, "fsdp2", 4) == four
    assert sent(MODEL, "hsdp", 8, 4) == four | {"all-reduce of gradients": 2 * 1 / 2 * 1000}
    again = sent(MODEL, "fsdp2", 4, accumulate=2)
    assert again["all-gather of the teacher"] == 2 * four["all-gather of the teacher"]
    assert again["reduce-scatter of gradients"] == four["reduce-scatter of gradients"]


def test_what_leaves_a_machine():
    ddp, fsdp2, hsdp = (sent(MODEL, name, 16, 8) for name in ("ddp", "fsdp2", "hsdp"))
    assert leaving(ddp, 8, 1, 8) == 0
    assert leaving(ddp, 16, 1, 8) == sum(ddp.values())
    assert leaving(fsdp2, 16, 16, 8) == sum(fsdp2.values())
    assert leaving(hsdp, 16, 8, 8) == 8 * hsdp["all-reduce of gradients"] == 2 * 1 / 2 * 4000
