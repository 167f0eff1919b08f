"""Every kernel gives what the formula gives, forward and backward, to the rounding of its type."""

import copy
import ctypes
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from jepakit import kernels
from jepakit.device import CAPACITIES, REMEMBERED, autocast, keep_pages, remember_fewer

ROWS, WIDTH, OUT = (3, 70), 160, 96
ROUNDING = {torch.float32: 3e-6, torch.bfloat16: 2e-2}


@pytest.fixture
def chosen(monkeypatch):
    """Whatever the processor, our own kernels are taken where PyTorch has what they are made of."""
    works = {dtype: kernels._works(dtype) for dtype in ROUNDING}
    monkeypatch.setattr(kernels, "_pays", lambda dtype: works.get(dtype, False))
    if not all(works.values()):
        pytest.skip("this PyTorch has no oneDNN")


def near(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> None:
    assert one.shape == other.shape
    one, other = one.detach().double(), other.detach().double()
    assert (one - other).norm() <= ROUNDING[dtype] * other.norm()


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=rng).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("out, many", [(OUT, kernels.MANY), (2 * WIDTH, kernels.MANY), (OUT, 0)])
@pytest.mark.parametrize("kernel, formula", [("linear", F.linear), ("linear_gelu", lambda *a: F.gelu(F.linear(*a)))])
def test_a_linear_layer(kernel, formula, out, many, precision, bias, chosen, monkeypatch):
    monkeypatch.setattr(kernels, "MANY", many)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    given = leaves((*ROWS, WIDTH), (out, WIDTH), (out,))[: 2 + bias]
    exact = [each.detach().double().requires_grad_() for each in given]
    with autocast(torch.device("cpu"), precision):
        found = getattr(kernels, kernel)(*given)
        with torch.no_grad():
            alone = getattr(kernels, kernel)(*given)
    expected = formula(*exact)
    assert found.dtype == alone.dtype == dtype
    near(found, expected, dtype)
    near(alone, expected, dtype)
    found.float().square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(given, exact, strict=True):
        assert one.grad.dtype == torch.float32
        near(one.grad, other.grad, dtype)


def test_small_ones_and_other_types_are_left_to_pytorch(chosen, monkeypatch):
    monkeypatch.setattr(kernels, "product", None)
    x, w = leaves((4, WIDTH), (OUT, WIDTH))
    assert torch.equal(kernels.linear(x, w), F.linear(x, w))
    x, w = leaves((*ROWS, WIDTH), (OUT, WIDTH), dtype=torch.float64)
    assert torch.equal(kernels.linear(x, w), F.linear(x, w))
    assert kernels.linear(x.to("meta"), w.to("meta")).is_meta


def test_no_second_derivative_is_made_up(chosen):
    x, w = leaves((*ROWS, WIDTH), (OUT, WIDTH))
    (first,) = torch.autograd.grad(kernels.linear(x, w).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_operations_are_counted(chosen):
    x, w = leaves((*ROWS, WIDTH), (OUT, WIDTH))
    with FlopCounterMode(display=False) as counter:
        kernels.linear(x, w).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * ROWS[0] * ROWS[1] * WIDTH * OUT


def test_every_linear_layer_is_fitted_and_nothing_else():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2, bias=False)), Own(2, 2), nn.LayerNorm(2))
    names, x = list(model.state_dict()), torch.randn(3, 4)
    expected = model(x)
    assert kernels.fit(model) is model
    assert [type(each) for each in model.modules() if isinstance(each, nn.Linear)] == [kernels.Linear] * 2 + [Own]
    assert list(model.state_dict()) == names and torch.equal(model(x), expected)
    assert torch.equal(copy.deepcopy(model)(x), expected)


@pytest.mark.parametrize("many", [kernels.MANY, 0])
@pytest.mark.parametrize("tokens, asked", [(64, 64), (95, 95), (66, 20), (33, 33), (7, 7), (41, 1)])
def test_attention_of_16_bits(tokens, asked, many, monkeypatch):
    """Also of rows that end within a vector, for some of the tokens alone, and head by head."""
    monkeypatch.setattr(kernels, "MANY", many)
    given = leaves((2, 3, asked, 16), (2, 3, tokens, 16), (2, 3, tokens, 16), dtype=torch.bfloat16)
    exact = [each.detach().double().requires_grad_() for each in given]
    found, expected = kernels.attend(*given), F.scaled_dot_product_attention(*exact)
    near(found, expected, torch.bfloat16)
    found.float().square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(given, exact, strict=True):
        near(one.grad, other.grad, torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(kernels.attend(*given), found)
    near(kernels.attend(*(each.detach() for each in given)), expected, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_added_to_stays(dtype):
    x, y = leaves((3, 5), (3, 5))
    given = x.detach().clone(), y.detach().to(dtype)
    found = kernels.plus(x, y.to(dtype))
    assert found.dtype == torch.float32 and torch.equal(found, given[0] + given[1])
    found.square().sum().backward()
    assert torch.equal(x.grad, 2 * found) and torch.equal(y.grad, x.grad.to(dtype).float())
    assert torch.equal(x, given[0])
    x, y = given
    assert torch.equal(kernels.plus(x, y), found) and torch.equal(x + y, found)


def test_attention_head_by_head(chosen, monkeypatch):
    """Of what autograd hands on: heads that lie side by side, and a gradient that does not lie in order."""
    monkeypatch.setattr(kernels, "LEAST", 0)
    (qkv,) = leaves((2, 40, 3, 3, 16))
    exact = qkv.detach().double().requires_grad_()
    found, expected = (
        attend(*each.permute(2, 0, 3, 1, 4))
        for attend, each in ((kernels.attend, qkv), (F.scaled_dot_product_attention, exact))
    )
    near(found, expected, torch.float32)
    weight = torch.randn(2, 40, 3, 16).transpose(1, 2)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    near(qkv.grad, exact.grad, torch.float32)
    with torch.no_grad():
        near(kernels.attend(*qkv.permute(2, 0, 3, 1, 4)), expected, torch.float32)


def test_what_is_chosen_can_be_said():
    assert set(kernels.chosen("cpu")) == {"linear fp32", "linear bf16", "attention fp32", "attention bf16"}
    assert set(kernels.chosen("meta")) == {"linear", "attention"}


def test_pages_are_kept_where_the_library_of_c_can():
    assert keep_pages() is hasattr(ctypes.CDLL(None), "mallopt")


def test_fewer_kernels_are_remembered():
    """As many as are said: the first one is there no more after that many others, and is made again."""
    if not kernels._works(torch.float32):
        pytest.skip("this PyTorch has no oneDNN")
    code = f"""
import torch
from jepakit.device import remember_fewer
from jepakit.kernels import product
remember_fewer()
for rows in (*range(1, {REMEMBERED + 2}), {REMEMBERED}, 1):
    product(torch.ones(rows, 8), torch.ones(4, 8))
"""
    env = {name: value for name, value in os.environ.items() if name not in CAPACITIES} | {"ONEDNN_VERBOSE": "all"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    made = [line for line in found.stdout.splitlines() if ",create:cache_miss," in line and "inner_product" in line]
    assert len(made) == REMEMBERED + 2


def test_what_a_user_says_of_kernels_stays(monkeypatch):
    for name in CAPACITIES:
        monkeypatch.setenv(name, "7")
    remember_fewer()
    assert {os.environ[name] for name in CAPACITIES} == {"7"}
