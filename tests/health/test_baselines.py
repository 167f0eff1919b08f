"""What a guess has to beat: exact where it can be written out, absent where it means nothing."""

import pytest
import torch
from torch.nn import functional as F

from jepakit.health.baselines import baselines, closest, known
from jepakit.health.figures import figures
from jepakit.types import Grid, Mask, take

GRID = Grid(1, 4, 4)


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masked(count: int = 12, **changes: object) -> Mask:
    order = torch.arange(16).expand(count, -1)
    return Mask(order[:, :6], order[:, 8:].unflatten(1, (2, 4)))._replace(**changes)


def test_a_perfect_guess_knows_all_and_one_that_is_always_the_same_nothing():
    truth = features(12, 1, 5, 8) + 2 * features(1, 1, 5, 8, seed=1)
    places = torch.arange(5).expand(12, -1)
    unit = F.normalize(truth, dim=-1)
    at_place = unit.mean(0, keepdim=True).expand_as(truth)
    assert known(truth, truth, places, 5) == pytest.approx(1.0, abs=1e-5)
    assert abs(known(at_place, truth, places, 5)) < 0.15, "it knows the place, not the sample"
    assert F.cosine_similarity(at_place, truth, dim=-1).mean() > 0.6
    half = known(unit + at_place, truth, places, 5)
    assert 0.3 < half < 1.0
    assert known(5 * truth, truth, places, 5) == pytest.approx(1.0, abs=1e-5)


def test_known_written_out_pair_by_pair():
    guess, truth = features(4, 1, 3, 6), features(4, 1, 3, 6, seed=1)
    places = torch.tensor([[0, 1, 2], [1, 1, 3], [2, 0, 3], [9, 1, 0]])
    told = whole = 0.0
    for b in range(4):
        for i in range(3):
            there = [(c, j) for c in range(4) for j in range(3) if c != b and places[c, j] == places[b, i]]
            if there:
                cos = [F.cosine_similarity(guess[b, 0, i], truth[c, 0, j], dim=0) for c, j in there]
                same = [F.cosine_similarity(truth[b, 0, i], truth[c, 0, j], dim=0) for c, j in there]
                told += F.cosine_similarity(guess[b, 0, i], truth[b, 0, i], dim=0) - torch.stack(cos).mean()
                whole += 1 - torch.stack(same).mean()
    assert known(guess, truth, places, 10) == pytest.approx(float(told / whole), rel=1e-5)
    assert known(guess, truth, torch.arange(12).view(4, 3), 12).isnan(), "no two samples at one place"


def test_the_nearest_context_token_is_copied():
    mask, seen, truth = masked(), features(12, 6, 8), features(12, 2, 4, 8, seed=1)
    found = baselines(seen, truth, truth, mask, GRID)
    nearest, steps = closest(mask.context, mask.target.flatten(1), GRID)
    for place, chosen in zip(range(8, 16), nearest[0].tolist(), strict=True):
        ways = [((place // 4 - k // 4) ** 2 + (place % 4 - k % 4) ** 2) ** 0.5 for k in range(6)]
        assert ways[chosen] == min(ways)
    copy = take(seen, nearest).view_as(truth)
    assert found["copy_nearest"] == pytest.approx(float(F.cosine_similarity(copy, truth, dim=-1).mean()))
    assert found["copy_steps"] == pytest.approx(float(steps)) and found["known"] == pytest.approx(1.0, abs=1e-5)
    assert (found["context_tokens"], found["target_tokens"], found["context_share"]) == (6, 8, 6 / 16)


def test_time_counts_as_rows_and_columns_do():
    nearest, steps = closest(torch.tensor([[0, 5]]), torch.tensor([[7, 2]]), Grid(2, 2, 2))
    assert nearest.tolist() == [[1, 0]] and steps == 1


@pytest.mark.parametrize(
    ("mask", "seen", "there", "missing"),
    [
        (masked(), features(12, 6, 4), "copy_steps", "copy_nearest"),  # features of another width than the answers
        (masked(target_view=1), features(12, 6, 8), "known", "copy_nearest"),
        (masked(target_view=(0, 1)), features(12, 6, 8), "known", "copy_nearest"),
        (masked(context=None), features(12, 16, 8), "known", "context_tokens"),
    ],
)
def test_absent_rather_than_wrong(mask, seen, there, missing):
    truth = features(12, 2, 4, 8, seed=1)
    found = baselines(seen, truth, truth, mask, GRID)
    assert there in found and missing not in found


def test_whole_views_single_samples_and_answers_of_another_shape():
    truth = features(12, 1, 1, 8)
    whole = baselines(features(12, 1, 8), truth, truth, Mask(None, None), GRID)
    assert set(whole) == {"known"} and whole["known"] == pytest.approx(1.0, abs=1e-5)
    alone = baselines(features(1, 6, 8), features(1, 2, 4, 8), features(1, 2, 4, 8), masked(1), GRID)
    assert "known" not in alone and "copy_nearest" in alone
    assert baselines(features(12, 6, 8), truth, features(12, 1, 2, 8), Mask(None, None), GRID) == {}


def test_recalled_tokens_are_not_asked_for():
    mask = masked(recall=2)
    found = baselines(features(12, 6, 8), features(12, 2, 2, 8), features(12, 2, 2, 8), mask, GRID)
    assert found["target_tokens"] == 4 and "copy_nearest" in found


def test_distances_are_the_runs_own():
    from jepakit.distance import distance

    mask, seen, truth = masked(), features(12, 6, 8), features(12, 2, 4, 8, seed=1)
    found = baselines(seen, truth, truth, mask, GRID, distance("l1", 3.0))
    nearest = closest(mask.context, mask.target.flatten(1), GRID)[0]
    copy = take(seen, nearest).view_as(truth)
    assert found["distance_copy"] == pytest.approx(3 * float((copy - truth).abs().mean()))
    mean = truth.flatten(0, -2).mean(0)
    assert found["distance_mean"] == pytest.approx(3 * float((truth - mean).abs().mean()), rel=1e-5)


def test_a_line_has_them_where_they_mean_something_for_every_mask():
    seen, truth = features(12, 6, 8), features(12, 2, 4, 8, seed=1)
    one, other = masked(), masked(target_view=1)
    both = figures([(seen, truth, truth)] * 2, [one, other], GRID)
    alone = figures([(seen, truth, truth)], [one], GRID)
    assert "copy_nearest" in alone and "copy_nearest" not in both and "known" in both
    assert not {"known", "context_tokens"} & figures([(seen, truth, truth)]).keys()
