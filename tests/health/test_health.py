import math

import pytest
import torch

from jepakit.health import effective_rank, figures, verdict


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


def test_figures_do_not_raise_on_what_is_not_finite():
    assert figures([(made() * torch.nan,) * 3])["rank"].isnan()


def course(ranks, std=0.5, **more):
    return [
        {"step": i, "loss": 1.0, "rank": r, "std": std, "cosine": 0.9, "cosine_mean": 0.5} | more
        for i, r in enumerate(ranks)
    ]


@pytest.mark.parametrize(
    ("history", "word", "reason"),
    [
        (course([14.0] * 12), "healthy", "effective rank 14.0"),
        (course([14.0] * 6 + [7.0] * 6), "watch", "50% of its first 14.0"),
        (course([14.0] * 6 + [3.0] * 6), "collapsing", "effective rank 3.0"),
        (course([14.0] * 6 + [3.0] + [14.0] * 5), "healthy", "effective rank 14.0"),
        (course([14.0] * 12, std=1e-4), "collapsing", "std 0.0001"),
        (course([14.0] * 12, cosine=0.4), "watch", "no closer than the mean token"),
        (course([14.0] * 3, cosine=0.4), "healthy", "effective rank"),
        (course([14.0] * 12) + [{"step": 12, "loss": math.nan}], "collapsing", "not finite at step 12"),
        (course([14.0] * 3) + [{"step": 3, "loss": math.inf}] + course([14.0] * 3), "watch", "not finite"),
        ([{"step": 0, "knn": 0.3}], "watch", "no health figures"),
        ([], "watch", "no health figures"),
    ],
)
def test_verdict(history, word, reason):
    said = verdict(history)
    assert said[0] == word and reason in said[1]


def test_a_line_that_holds_null_is_not_finite():
    lines = [{"step": step, "loss": 1.0, "std": 0.5, "rank": 20.0} for step in range(5)]
    word, reason = verdict([*lines, {"step": 5, "loss": None, "std": 0.5, "rank": 20.0}])
    assert word == "collapsing" and "step 5" in reason
