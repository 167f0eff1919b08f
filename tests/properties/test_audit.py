"""An audit counts what it is given, and warns of what is there and of nothing else."""

import pytest
import torch
from jepakit_multiblock.multiblock import Multiblock

from jepakit.audit import Counts, audit
from jepakit.seeds import key
from jepakit.starved import findings, lean, lost, named, starved, worth
from jepakit.types import Grid, Mask

GRID = Grid(1, 4, 4)


class Coin:
    """Context is token 0 in three samples of four, else token 1; targets are tokens 4, 5 and 5, 6."""

    def __call__(self, grid, batch_size, rng):
        first = (torch.rand(batch_size, 1, generator=rng) > 0.75).long()
        return [Mask(first, torch.tensor([[4, 5], [5, 6]]).expand(batch_size, -1, -1))]


class Cut:
    """Contexts are the first 1 to 5 tokens, cut to the batch's shortest; the target is what is left of the grid."""

    def __call__(self, grid, batch_size, rng):
        shortest = int(torch.randint(1, 6, (batch_size,), generator=rng).min())
        order = torch.arange(grid.size).expand(batch_size, -1)
        return [Mask(order[:, :shortest], order[:, None, 5:])]


class Scattered:
    """Any 6 tokens are context, any 3 others target; with ``tied`` the whole batch has the same ones."""

    def __init__(self, tied: bool = False):
        self.tied = tied

    def __call__(self, grid, batch_size, rng):
        rows = torch.rand(1 if self.tied else batch_size, grid.size, generator=rng).argsort(1).expand(batch_size, -1)
        return [Mask(rows[:, :6], rows[:, None, 6:9])]


class Fixed:
    """The same masks every time."""

    def __init__(self, *masks):
        self.masks = masks

    def __call__(self, grid, batch_size, rng):
        return [mask._replace(**{k: v for k, v in grown(mask, batch_size).items()}) for mask in self.masks]


def grown(mask: Mask, batch: int) -> dict:
    return {k: v.expand(batch, *v.shape[1:]) for k, v in mask._asdict().items() if isinstance(v, torch.Tensor)}


def one(masker, grid=GRID, batch=32, batches=50, singles=400) -> Counts:
    (counts,) = audit(masker, grid, batch, batches, 0, singles)
    return counts


def warned(counts: Counts) -> dict[str, str]:
    return {each.rule: each.text for each in findings(counts) if each.warning}


def test_shares_are_those_of_the_masker():
    counts = one(Coin(), batch=100)
    context, target = counts.context.mean(0).flatten(), counts.target.mean(0).flatten()
    assert context[0] == pytest.approx(0.75, abs=0.03) and context[0] + context[1] == pytest.approx(1)
    assert context[2:].max() == 0 and target.nonzero().flatten().tolist() == [4, 5, 6] and target.max() == 1
    assert (counts.kept == 1).all() and (counts.asked == 2).all() and counts.asked.shape == (50, 2)
    assert counts.uncut.flatten()[0] == pytest.approx(0.75, abs=0.1)


def test_lengths_before_and_after_the_cut():
    counts = one(Cut(), batch=3)
    assert set(counts.whole.tolist()) == {1, 2, 3, 4, 5} and counts.whole.double().mean() == pytest.approx(3, abs=0.3)
    shortest = sum((k / 5) ** 3 for k in range(1, 6))  # mean of the shortest of three
    assert counts.kept.double().mean() == pytest.approx(shortest, abs=0.4)
    part, error = lost(counts)
    assert part > error and part == pytest.approx(1 - shortest / 3, abs=0.2)
    part, error = lost(one(Scattered()))
    assert part == error == 0


def test_masks_are_those_of_a_runs_first_steps():
    seeds = []

    def spy(grid, batch_size, rng):
        seeds.append(rng.initial_seed())
        return Scattered()(grid, batch_size, rng)

    audit(spy, GRID, 4, 3, seed=7, singles=2)
    assert seeds[:3] == [key("masks", 7, step, 0) for step in range(3)]


def test_masks_that_share_context_and_views_are_one_question():
    context, target = torch.tensor([[0, 1]]), torch.tensor([[[4, 5]]])
    same = [Mask(context, target), Mask(context, target + 4)]
    found = audit(same_context(same), GRID, 4, 2, 0, 2)
    assert len(found) == 1 and found[0].target.mean(0).flatten().nonzero().flatten().tolist() == [4, 5, 8, 9]
    kinds = audit(Fixed(same[0], same[1]._replace(kind=1)), GRID, 4, 2, 0, 2)
    assert [each.kind for each in kinds] == [0, 1]
    views = audit(Fixed(Mask(None, None, 0, (1, 2)), Mask(context, target)), GRID, 4, 2, 0, 2)
    assert views[0].context is views[0].target is None and views[0].views == (0, (1, 2))
    assert [each.text for each in findings(views[0])][0] == "context: the whole view, nothing is cut"


def same_context(masks):
    def masker(grid, batch_size, rng):
        context = masks[0].context.expand(batch_size, -1)
        return [Mask(context, mask.target.expand(batch_size, -1, -1)) for mask in masks]

    return masker


def test_a_number_of_masks_that_changes_is_refused():
    def masker(grid, batch_size, rng):
        return Scattered()(grid, batch_size, rng) * batch_size

    with pytest.raises(ValueError, match="number of its masks changes"):
        audit(lambda g, b, rng: [m._replace(kind=i) for i, m in enumerate(masker(g, b, rng))], GRID, 2, 2, 0, 2)


def test_clips_are_counted_slice_by_slice():
    grid = Grid(3, 2, 2)
    counts = one(Fixed(Mask(torch.tensor([[0, 1, 4]]), torch.tensor([[[8]]]))), grid, 2, 12, 5)
    found = counts.numbers()
    assert found["profiles"]["context"] == {"row": [0.5, 0.0], "column": [0.33333, 0.16667], "time": [0.5, 0.25, 0.0]}
    assert found["maps"]["context"] == [[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]]
    assert found["lengths"]["context"] == {"3": 12} and found["lengths"]["target_block"] == {"1": 12}
    assert "lean time" in warned(counts)


@pytest.mark.parametrize("side, batch, batches", [(14, 16, 160), (16, 128, 90)])
def test_the_released_collator_is_exposed(side, batch, batches):
    counts = one(Multiblock(mode="official"), Grid(1, side, side), batch, batches, 50)
    found = warned(counts)
    last = f"the last row ({side - 1}) and the last column ({side - 1}), {2 * side - 1} tokens"
    assert found["never context"] == f"never context: {last}" and found["never target"] == f"never target: {last}"
    assert "context leans to the top half" in found["lean row"]
    assert lean(counts.context, 2)[0] > (0.3 if batch < 128 else 0.5) > 0.2 > abs(lean(counts.context, 3)[0])


@pytest.mark.parametrize("side, batch", [(14, 128), (16, 16), (28, 64)])
def test_the_unbiased_mode_raises_no_warning(side, batch):
    counts = one(Multiblock(), Grid(1, side, side), batch, 50, 150)
    assert warned(counts) == {} and lost(counts)[0] > 0.1


@pytest.mark.parametrize("tied", [False, True])
def test_noise_raises_no_warning(tied):
    for batches in (1, 2, 10, 30):
        for seed in range(4):
            (counts,) = audit(Scattered(tied), Grid(1, 8, 8), 8, batches, seed, 20)
            assert warned(counts) == {}, (batches, seed)
            assert (batches < 10) == any(each.rule == "few" for each in findings(counts))


def test_samples_that_are_all_alike_are_worth_one():
    apart, tied = (one(Scattered(tied), Grid(1, 8, 8), 16, 100).context for tied in (False, True))
    assert worth(apart, 16) == pytest.approx(1600, rel=0.2)
    assert worth(tied, 16) == pytest.approx(100, rel=0.2)
    assert worth(tied[:1], 16) == 1


def test_starved_is_what_its_mirror_image_is_not():
    """Two corners are rare: both on the left, against the right ones; with all four nothing is wrong."""
    share = torch.full((40, 1, 6, 6), 0.5)
    share[:, 0, 0, 0] = share[:, 0, -1, 0] = 0.02
    found = starved(share, 100)
    assert found.lopsided.nonzero().tolist() == [[0, 0, 0], [0, 5, 0]] and not found.rare.any()
    share[:, 0, 0, -1] = share[:, 0, -1, -1] = 0.02
    found = starved(share, 100)
    assert found.rare.sum() == 4 and not found.lopsided.any() and not found.never.any()
    share[:, 0, 2, 3] = 0
    assert starved(share, 100).never.nonzero().tolist() == [[0, 2, 3]]
    assert starved(share[:2], 2).unsure.nonzero().tolist() == [[0, 2, 3]]


def test_tokens_are_named():
    tokens = torch.zeros(1, 4, 6, dtype=torch.bool)
    tokens[0, 2] = True
    assert named(tokens) == "row 2, 6 tokens"
    tokens[0, :, 5] = True
    assert named(tokens) == "row 2 and the last column (5), 9 tokens"
    tokens[0, 1] = True
    tokens[0, 3, 0] = True
    assert named(tokens) == "rows 1, 2 and the last column (5) and 1 other token in row 3, 15 tokens"
    assert named(torch.eye(4, dtype=torch.bool)[None]) == "4 tokens"
    clip = torch.zeros(3, 2, 2, dtype=torch.bool)
    clip[0] = True
    assert named(clip) == "time slice 0, 4 tokens"
