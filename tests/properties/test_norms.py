"""Norms are what 64 bits say, however rows are spread over shards."""

import pytest
import torch

from jepakit.norms import norm, squares


@pytest.mark.parametrize("shape", [(96, 768), (7,), (16, 3, 4, 4), ()])
def test_a_norm_is_that_in_64_bits(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert float(norm([x])) == pytest.approx(float(x.double().norm()), rel=1e-7)


def test_it_does_not_matter_where_rows_lie():
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(64, 96, generator=rng), torch.randn(64, generator=rng)
    parts = [weight[:0], weight[:5], weight[5:40], weight[40:], bias[:9], bias[9:]]
    assert torch.equal(norm([weight, bias]), norm(parts))
    assert squares([weight, bias]).dtype == torch.float64


def test_of_nothing_there_is_none():
    with pytest.raises(ValueError, match="of no tensors"):
        norm([])
