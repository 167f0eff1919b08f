"""Schedules, token picking and keys: what holds for any arguments."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jepakit import seeds
from jepakit.schedule import cosine, warmup_cosine
from jepakit.types import take, take_blocks
from tests.properties.shared import quick

KEYS = {
    (): 8_238_016_292_129_134_938,
    (0, "init"): 7_797_302_695_267_191_734,
    ("masks", 0, 0, 0): 5_987_085_032_850_640_339,
    (1, 23): 7_543_420_914_151_829_276,
    (12, 3): 5_165_888_602_479_025_321,
}
rates = st.floats(1e-8, 1.0)


@quick
@given(rates, rates, st.integers(2, 200), st.data())
def test_a_learning_rate_rises_then_falls_to_its_end(one, other, total, data):
    warmup = data.draw(st.integers(0, total - 1))
    (low, peak), final = sorted((one, other)), min(one, other) / 10
    found = [warmup_cosine(step, low, peak, final, warmup, total) for step in range(total)]
    top = max(0, warmup - 1)
    slack = 1e-12 * peak
    assert all(b >= a - slack for a, b in zip(found[:top], found[1 : top + 1], strict=True))
    assert all(b <= a + slack for a, b in zip(found[top:-1], found[top + 1 :], strict=True))
    assert found[-1] == pytest.approx(final, rel=1e-6, abs=1e-12)
    assert all(min(low, final) <= rate <= peak * (1 + 1e-12) for rate in found)
    if warmup:
        assert found[warmup - 1] == pytest.approx(peak)


@quick
@given(rates, rates, st.integers(1, 200))
def test_a_cosine_goes_one_way_from_end_to_end(start, end, total):
    found = [start] + [cosine(step, (start, end), total) for step in range(total)]
    sign, slack = (1 if end >= start else -1), 1e-12
    assert all(sign * (b - a) >= -slack for a, b in zip(found, found[1:], strict=False))
    assert found[-1] == pytest.approx(end, rel=1e-9)
    assert all(min(start, end) - slack <= value <= max(start, end) + slack for value in found)


@quick
@given(rates, st.integers(1, 50), st.integers(0, 200))
def test_no_schedule_leaves_its_range_after_its_end(peak, total, extra):
    slack = 1 + 1e-12
    assert peak / 10 / slack <= warmup_cosine(total + extra, 0.0, peak, peak / 10, 0, total) <= peak * slack
    assert 0.04 / slack <= cosine(total + extra, (0.04, 0.4), total) <= 0.4 * slack


shapes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.lists(st.integers(1, 3), max_size=3))


def tokens_of(batch: int, n: int, rest: list[int], seed: int) -> torch.Tensor:
    return torch.randn(batch, n, *rest, generator=torch.Generator().manual_seed(seed))


@quick
@given(shapes, st.integers(1, 9), st.integers(0, 99))
def test_take_picks_row_by_row(shape, count, seed):
    batch, n, rest = shape
    x = tokens_of(batch, n, rest, seed)
    index = torch.randint(n, (batch, count), generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([torch.stack([x[b, i] for i in index[b].tolist()]) for b in range(batch)])
    assert torch.equal(take(x, index), expected)
    assert take(x, None) is x
    assert torch.equal(take(take(x, index), torch.arange(count).expand(batch, -1)), expected)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_token_that_there_is_not_is_not_taken_from_the_next_row(wrong):
    with pytest.raises(IndexError, match=f"tokens {min(0, wrong)} to {max(4, wrong)} are asked for, of 0 to 4"):
        take(torch.randn(2, 5, 3), torch.tensor([[0, 4], [4, wrong]]))


def test_of_no_tokens_none_are_taken():
    assert take(torch.empty(2, 0, 3), torch.empty(2, 0, dtype=torch.long)).shape == (2, 0, 3)


def test_what_is_taken_hands_its_gradient_back():
    x = torch.randn(2, 5, 3, requires_grad=True)
    take(x, torch.tensor([[0, 4, 4], [1, 2, 3]])).sum().backward()
    assert x.grad[..., 0].tolist() == [[1, 0, 0, 0, 2], [0, 1, 1, 1, 0]]


@quick
@given(shapes, st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_take_blocks_picks_block_by_block(shape, blocks, count, seed):
    batch, n, rest = shape
    x = tokens_of(batch, n, rest, seed)
    index = torch.randint(n, (batch, blocks, count), generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([take(x, index[:, m]) for m in range(blocks)], dim=1)
    assert torch.equal(take_blocks(x, index), expected)
    assert torch.equal(take_blocks(x, None), x[:, None])
    pyramid = take_blocks((x, x * 2), index)
    assert isinstance(pyramid, tuple) and torch.equal(pyramid[1], expected * 2)


def test_keys_are_the_same_on_every_machine():
    """Written down, because runs that are resumed elsewhere depend on them."""
    assert {parts: seeds.key(*parts) for parts in KEYS} == KEYS
    assert seeds.generator(0, "init").initial_seed() == KEYS[0, "init"]


@quick
@given(st.lists(st.integers() | st.text("abc", min_size=1), min_size=1, max_size=4))
def test_keys_fit_a_generator_and_tell_orders_apart(parts):
    assert 0 <= seeds.key(*parts) < 2**63
    assert seeds.key(*parts) != seeds.key(*parts, 0) and seeds.key(*parts) != seeds.key("x", *parts)
    drawn = [torch.rand(2, generator=seeds.generator(*parts)) for _ in range(2)]
    assert torch.equal(*drawn)
