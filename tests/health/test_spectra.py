"""alpha-ReQ and LiDAR, against known spectra and formulas written out in double precision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepakit.health.spectra import DELTA, EPS, FIT, decay, has_decay, lidar, spectrum


@given(st.floats(0.1, 6.0), st.integers(16, 300), st.floats(1e-6, 1e3))
@settings(max_examples=25, deadline=None)
def test_the_exponent_of_a_power_law_is_found_whatever_its_scale(alpha, count, scale):
    shares = scale * torch.arange(1, count + 1, dtype=torch.float64) ** -alpha
    assert decay(shares) == pytest.approx(alpha, rel=1e-6)


def test_a_fit_in_logarithms_written_out():
    rng = torch.Generator().manual_seed(0)
    shares = torch.rand(40, generator=rng, dtype=torch.float64).sort(descending=True).values
    index = range(FIT[0], 41)
    x, y = [math.log(i) for i in index], [math.log(float(shares[i - 1])) for i in index]
    w = [1 / i for i in index]
    mean = lambda v: sum(a * b for a, b in zip(w, v, strict=True)) / sum(w)  # noqa: E731
    slope = mean([a * b for a, b in zip(x, y, strict=True)]) - mean(x) * mean(y)
    assert decay(shares) == pytest.approx(-slope / (mean([a * a for a in x]) - mean(x) ** 2))
    outliers = torch.cat([shares[:2] * 1e6, shares[2:]])
    assert decay(outliers) == decay(shares), "the first two do not count"


def test_no_power_law_of_a_few_values_or_of_what_is_not_finite():
    assert not has_decay(torch.ones(9)) and decay(torch.ones(9)).isnan() and has_decay(torch.ones(10))
    assert decay(torch.full((20,), torch.nan)).isnan() and decay(torch.ones(20)) == pytest.approx(0.0)
    rng = torch.Generator().manual_seed(0)
    white, few = torch.randn(400, 64, generator=rng), torch.randn(400, 64, generator=rng) * torch.arange(1, 65) ** -2.0
    assert decay(spectrum(white)) < 0.5 < 3 < decay(spectrum(few)) < 5


def written_out(x: torch.Tensor) -> float:
    """LiDAR as the paper has it: scatter matrices, inverse square root, eigenvalues."""
    x = x.double()
    n, q, d = x.shape
    mean, means = x.mean((0, 1)), x.mean(1)
    between, within = torch.zeros(d, d, dtype=x.dtype), torch.zeros(d, d, dtype=x.dtype)
    for i in range(n):
        between += torch.outer(means[i] - mean, means[i] - mean) / n
        for j in range(q):
            within += torch.outer(x[i, j] - means[i], x[i, j] - means[i]) / (n * q)
    values, vectors = torch.linalg.eigh(within + DELTA * torch.eye(d, dtype=x.dtype))
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    found = torch.linalg.eigvalsh(root @ between @ root).clamp_min(0)
    shares = found / found.sum() + EPS
    return float((-(shares * shares.log()).sum()).exp())


@given(st.integers(4, 20), st.integers(2, 5), st.integers(2, 12), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_lidar_is_the_papers(n, q, d, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, d, generator=rng) + 0.3 * torch.randn(n, q, d, generator=rng)
    assert lidar(x) == pytest.approx(written_out(x), rel=1e-4)


def test_lidar_counts_what_tells_samples_apart_not_views():
    rng = torch.Generator().manual_seed(0)
    signal, noise = torch.zeros(200, 1, 32), torch.randn(200, 8, 32, generator=rng)
    signal[..., :5] = 3 * torch.randn(200, 1, 5, generator=rng)
    noise[..., :5] *= 0.1
    assert 4 < lidar(signal + noise) < 7, "five directions, however much views scatter along the others"
    loud = noise.clone()
    loud[..., 5:] *= 10
    assert lidar(signal + loud) == pytest.approx(float(lidar(signal + noise)), rel=0.1)
    assert lidar(torch.full((5, 2, 3), torch.nan)).isnan() and lidar(torch.ones(5, 2, 3)).isfinite()
