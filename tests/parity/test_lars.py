"""LARS against the update of VICReg's released code, written out; its rates, and its state through a checkpoint."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepakit import checkpoint
from jepakit.config import resolve
from jepakit.errors import ConfigError
from jepakit.optim import TRUST, make_optimizer, set_schedules

OPTIM: dict[str, Any] = resolve(["optim.name=lars", "optim.lr=0.4", "optim.weight_decay=[1e-2,1e-2]"])["optim"]
STEPS, EPOCH = 8, 4.0


def model() -> nn.Module:
    """Matrices, vectors, and a matrix of zeros: what has no norm is not adapted to it."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Conv2d(3, 2, 2), nn.Linear(4, 3, bias=False)).double()
    nn.init.zeros_(made[3].weight)
    return made


def gradients(made: nn.Module, step: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return {name: torch.randn(p.shape, generator=draw, dtype=p.dtype) for name, p in made.named_parameters()}


def advance(made: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict[str, float]:
    """One step of training, as the loop does it."""
    rates = set_schedules(optimizer, OPTIM, step, STEPS, EPOCH)
    for name, gradient in gradients(made, step).items():
        made.get_parameter(name).grad = gradient.clone()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return rates


def by_hand(p: Tensor, gradient: Tensor, before: Tensor | None, rates: dict[str, float]) -> tuple[Tensor, Tensor]:
    """Parameter and momentum after one step: g = gradient + decay p, g (trust |p| / |g|), m = .9 m + g, p - lr m."""
    if p.ndim > 1:
        gradient = gradient + rates["weight_decay"] * p
        if p.norm() > 0 and gradient.norm() > 0:
            gradient = gradient * (1e-3 * p.norm() / gradient.norm())
    moved = gradient if before is None else 0.9 * before + gradient
    return p - rates["lr"] * moved, moved


def test_steps_are_the_released_ones():
    made, momenta = model(), {}
    optimizer = make_optimizer(made, OPTIM)
    for step in range(STEPS):
        expected = {name: p.detach().clone() for name, p in made.named_parameters()}
        rates = advance(made, optimizer, step)
        for name, gradient in gradients(made, step).items():
            expected[name], momenta[name] = by_hand(expected[name], gradient, momenta.get(name), rates)
        for name, p in made.named_parameters():
            assert torch.allclose(p, expected[name], rtol=1e-12, atol=1e-15), (step, name)


def test_a_decay_without_a_gradient_is_adapted_as_well():
    """The released code takes the norm of both together: what has no gradient shrinks by lr times the trust."""
    made = nn.Linear(3, 3, bias=False).double()
    optimizer, before = make_optimizer(made, OPTIM), made.weight.detach().clone()
    rates = set_schedules(optimizer, OPTIM, 0, STEPS, EPOCH)
    made.weight.grad = torch.zeros_like(before)
    optimizer.step()
    assert torch.allclose(made.weight, before * (1 - rates["lr"] * TRUST), rtol=1e-12)


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_a_run_goes_on_from_its_checkpoint_to_the_last_bit(tmp_path, stop):
    """Before the first step as well, where there is no momentum yet."""
    made, other = model().float(), model().float()
    with torch.no_grad():
        other[0].weight.add_(1)
    first, second = make_optimizer(made, OPTIM), make_optimizer(other, OPTIM)
    unbroken = copy.deepcopy(made)
    alone = make_optimizer(unbroken, OPTIM)
    for step in range(stop):
        advance(made, first, step)
        advance(unbroken, alone, step)
    checkpoint.save(tmp_path, made, first, stop, keep=1)
    assert checkpoint.restore(tmp_path, other, second) == stop
    for step in range(stop, STEPS):
        advance(unbroken, alone, step)
        advance(other, second, step)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    momenta = [[each["momentum_buffer"] for each in one.state.values()] for one in (alone, second)]
    assert len(momenta[0]) == len(momenta[1]) == 7
    assert sorted(m.norm().item() for m in momenta[0]) == sorted(m.norm().item() for m in momenta[1])


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"^optim.name=larc is no choice \(did you mean 'lars'\?\); there are: adamw"):
        resolve(["optim.name=larc"])
    with pytest.raises(ConfigError, match=r"^optim.momentum=1.0 is out of range: it has to be below 1$"):
        resolve(["optim.momentum=1.0"])
