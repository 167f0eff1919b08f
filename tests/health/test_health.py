import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from jepakit.health.figures import figures, sample_cosine
from jepakit.health.spectra import effective_rank, octaves, spectrum


def made(count: int = 32, n: int = 16, d: int = 24, rank: int = 24, scale: float = 1.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return scale * torch.randn(count, n, rank, generator=rng) @ torch.randn(rank, d, generator=rng)


def test_effective_rank_of_known_spectra():
    assert effective_rank(torch.eye(10)) == pytest.approx(10, rel=1e-3)
    assert effective_rank(torch.ones(50, 8)) == pytest.approx(1, rel=1e-3)
    shares = torch.tensor([0.7, 0.2, 0.1])
    expected = math.exp(-sum(p * math.log(p) for p in shares.tolist()))
    assert effective_rank(torch.diag(shares)) == pytest.approx(expected, rel=1e-3)
    assert effective_rank(torch.diag(shares) * 1e4) == pytest.approx(expected, rel=1e-3)
    assert effective_rank(torch.full((4, 4), torch.nan)).isnan()


def test_healthy_features_stand_out_from_collapsed_ones():
    healthy, flat, constant = made(), made(rank=2), torch.ones(32, 16, 24)
    seen = {
        name: figures([(x, x[:, None], x[:, None])])
        for name, x in {"healthy": healthy, "flat": flat, "constant": constant}.items()
    }
    assert seen["healthy"]["rank"] > 15 > 3 > seen["flat"]["rank"] > seen["constant"]["rank"] - 1e-3
    assert seen["healthy"]["std"] > 0.7 and seen["constant"]["std"] < 1e-6
    assert seen["constant"]["cosine_mean"] == pytest.approx(1.0) and seen["healthy"]["cosine_mean"] < 0.5
    assert all(value.ndim == 0 for each in seen.values() for value in each.values())


def test_std_ignores_scale_and_sees_samples_not_positions():
    position_only = torch.randn(1, 16, 24, generator=torch.Generator().manual_seed(1)).expand(32, -1, -1)
    of = lambda x: figures([(x, x, x)])  # noqa: E731
    assert of(position_only)["std"] < 1e-6 < 1 < of(position_only)["rank"]
    assert of(made(scale=100.0))["std"] == pytest.approx(float(of(made())["std"]), rel=1e-4)
    assert of(made(scale=100.0))["std_raw"] == pytest.approx(100 * float(of(made())["std_raw"]), rel=1e-4)


def test_cosine_beside_that_of_the_mean_token():
    truth = made()[:, None] + 3.0
    mean = truth.flatten(0, -2).mean(0).expand_as(truth)
    lazy, good = figures([(truth, mean, truth)]), figures([(truth, truth, truth)])
    assert lazy["cosine"] == pytest.approx(float(lazy["cosine_mean"]), abs=1e-5)
    assert good["cosine"] == pytest.approx(1.0) and good["cosine_mean"] < 0.999


def test_pyramids_several_masks_and_a_batch_of_one():
    x = made()
    pyramid = figures([((x[:, :4] * 0, x), x, (x[:, :4] * 0, x)), (x, x, x)])
    assert pyramid["rank"] == pytest.approx(float(figures([(x, x, x)])["rank"]))
    assert figures([(x[:1], x[:1], x[:1])])["std"] > 0.1
    assert figures([]) == {}


def test_a_context_that_masks_share_is_looked_at_once(monkeypatch):
    import jepakit.health.figures as health

    asked, x, y = [], made(), made(rank=3)
    original = health.spectrum
    monkeypatch.setattr(health, "spectrum", lambda x: asked.append(len(x)) or original(x))
    shared = figures([(x, x, x), (x, y, y), (y, y, y), (x, x, y)])
    assert len(asked) == 2
    apart = figures([(x, x, x), (x.clone(), y, y), (y, y, y), (x.clone(), x, y)])
    assert all(torch.equal(shared[name], apart[name]) for name in apart) and shared.keys() == apart.keys()


def test_figures_do_not_raise_on_what_is_not_finite():
    assert figures([(made() * torch.nan,) * 3])["rank"].isnan()


@given(st.integers(2, 12), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_sample_cosine_is_the_mean_over_all_pairs(count, n, d, seed):
    x = torch.randn(count, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    means = x.mean(1)
    pairs = [F.cosine_similarity(means[i], means[j], dim=0) for i in range(count) for j in range(count) if i != j]
    assert sample_cosine(x) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-9)
    assert sample_cosine(x[:1].expand(count, -1, -1)) == pytest.approx(1.0)
    assert sample_cosine(x * 1e-3) == pytest.approx(float(sample_cosine(x)), abs=1e-6)


def test_sample_cosine_of_unrelated_samples_and_of_one_alone():
    assert abs(sample_cosine(made(count=512))) < 0.01
    assert sample_cosine(torch.ones(1, 1, 8)) == 0 and sample_cosine(torch.ones(1, 3, 8)) == pytest.approx(1.0)


@given(st.integers(2, 20), st.integers(1, 20), st.floats(1e-3, 1e3), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_spectrum_is_that_of_the_covariance_and_what_the_mean_leaves(n, d, scale, seed):
    x = scale * (1 + torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
    found = spectrum(x)
    expected = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0).reshape(d, d)).flip(0)[: min(n, d)]
    square = x.double().square().sum(1).mean()
    torch.testing.assert_close(found.double(), expected / square, atol=1e-5, rtol=1e-3)
    assert found.sum() == pytest.approx(1 - float(x.double().mean(0).square().sum() / square), abs=1e-4)
    assert found.diff().max() <= 1e-7 if len(found) > 1 else True


def test_spectrum_falls_as_a_whole_or_at_its_end():
    healthy, flat = spectrum(made().flatten(0, 1)), spectrum(made(rank=2).flatten(0, 1))
    alike = spectrum(1e-3 * made().flatten(0, 1) + 1)
    assert healthy.sum() > 0.9 and flat[:2].sum() > 0.9 and flat[2:].max() < 1e-9 < healthy[-1]
    assert 0 < alike.sum() < 1e-3 and (spectrum(torch.ones(9, 4)) == 0).all()
    assert spectrum(torch.full((4, 4), torch.nan)).isnan().all() and (spectrum(torch.zeros(4, 4)) == 0).all()


def test_a_line_holds_the_spectrum_at_powers_of_two():
    x = made()
    line, whole = figures([(x, x, x)]), spectrum(x.flatten(0, 1))
    kept = {name: value for name, value in line.items() if name.startswith("spectrum/")}
    assert list(kept) == [f"spectrum/{index}" for index in (1, 2, 4, 8, 16)]
    assert all(value == whole[int(name.rpartition("/")[2]) - 1] for name, value in kept.items())
    assert list(octaves(torch.ones(1))) == ["spectrum/1"] and len(octaves(torch.ones(4))) == 3
    mixed = figures([(x, x, x), (x[..., :4], x, x)])
    assert "spectrum/4" in mixed and "spectrum/8" not in mixed


def test_whether_the_gradient_reaches_the_answers():
    x = made(count=4).requires_grad_()
    assert [float(figures([(x, x, y)])["target_grad"]) for y in (x, x.detach(), x.bfloat16())] == [1, 0, 1]
    assert not any(value.requires_grad for value in figures([(x, x, x)]).values())
