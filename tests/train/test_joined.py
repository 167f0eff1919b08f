"""Four micro-batches are one batch where a loss is a statistic over samples: in float64, for each strategy."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepakit import joined, train
from jepakit.branch import Taken
from jepakit.options import ViewOptions
from jepakit.testing import check_anti_collapse
from jepakit.train import Trainer
from tests.train import tiny

PAIR = {
    "views": {"global": asdict(ViewOptions(count=2, crop_scale=[0.3, 1.0]))},
    "masker": {"name": "pair"},
    "predictor": {"name": "identity"},
    "distance": "l2",
}
"""Two views of a sample, each of which is asked about the other."""


def strategies(*names: str, **settings: Any) -> dict[str, Any]:
    """Those of a list; ``settings`` are the last one's."""
    return {name: {"name": name} | (settings if name == names[-1] else {}) for name in names}


CASES = {
    "vicreg": {"anti_collapse": strategies("vicreg")},
    "vicreg each": {"anti_collapse": strategies("vicreg", tokens="all", of="guess", invariance=1.0)},
    "C-JEPA": {"anti_collapse": strategies("ema", "vicreg", invariance=0.1)},
    "two that forbid": {"anti_collapse": strategies("stopgrad", "vicreg", "sigreg", slices=8)},
    "sigreg": {"anti_collapse": strategies("sigreg", tokens="each", slices=8)},
    "pair vicreg": PAIR | {"anti_collapse": strategies("vicreg"), "distance_weight": 25.0},
    "pair vicregl": PAIR | {"anti_collapse": strategies("vicregl", matches=(5, 3)), "distance_weight": 0.0},
    "pair barlow": PAIR | {"anti_collapse": strategies("barlow", tokens="each")},
    "pair sigreg": PAIR | {"anti_collapse": strategies("sigreg", slices=8), "masker": {"name": "mean"}},
}


def step(folder: Path, batch: int, count: int, **changes: Any) -> tuple[dict[str, Tensor], list[Tensor]]:
    """A step of 12 samples in float64: its values and gradients, and what was shown."""
    made = tiny.config(data__batch_size=batch, trainer__accumulate=count, encoder__drop_path=0.0, **changes)
    folder.mkdir()
    trainer = Trainer(made, folder)
    trainer.jepa.double()
    taken = []
    for branch, batches in next(trainer.stream(0, 1)):
        told = [tuple(how.double() for how in each.condition) for each in batches]
        views = [tuple(view.double() for view in each.views) for each in batches]
        taken.append(
            Taken(
                branch,
                [replace(each, views=v, condition=c) for each, v, c in zip(batches, views, told, strict=True)],
            )
        )
    values = trainer.gradients(taken)
    trainer.log.close()
    gradients = [p.grad for p in trainer.jepa.parameters() if p.requires_grad]
    assert all(gradient is not None for gradient in gradients)
    return values, gradients


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_are_one_batch(tmp_path, case):
    (values, expected), (found, gradients) = (
        step(tmp_path / str(count), 12 // count, count, **CASES[case]) for count in (1, 4)
    )
    assert values.keys() == found.keys() and len(values) > 2
    assert ("by_place" in values) == ("vicregl" in case), "it is told how views came about"
    for name, value in values.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert max(gradient.abs().max() for gradient in expected) > 1e-3


def test_a_mean_of_micro_batches_would_be_something_else(tmp_path, monkeypatch):
    """What the test above is worth."""
    case = CASES["vicreg"]
    whole, _ = step(tmp_path / "whole", 12, 1, **case)
    monkeypatch.setattr("jepakit.branch.Branch.joins", False)
    parts, _ = step(tmp_path / "parts", 3, 4, **case)
    assert abs(whole["variance"] - parts["variance"]) > 1e-3


def test_noise_is_the_same_in_both_passes_and_running_statistics_count_once():
    """Dropped features, a batch norm and a predictor's extra loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    data, seen = torch.randn(2, 6, 4), []

    def imagine(number: int, known: object = None) -> list[joined.Outcome]:
        torch.manual_seed(number)
        x = model(data[number]).unsqueeze(1)
        seen.append(x.detach())
        return [joined.Outcome(x, x.unsqueeze(1), x.unsqueeze(1), {"extra": x.square().mean()})]

    def judge(outcomes: list[joined.Outcome]) -> joined.Losses:
        (only,) = outcomes
        assert only.seen.shape == (12, 1, 4) and only.guess.shape == (12, 1, 1, 4)
        return joined.Losses.of([{"distance": only.seen.std(0).mean(), **only.losses}], [only[:3]])

    losses = joined.losses(model, imagine, judge, 2, weight=3.0)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert int(model[1].num_batches_tracked) == 2
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    x = torch.cat([imagine(number)[0].seen for number in range(2)])
    total = x.std(0).mean() + x.square().mean()
    (3 * total).backward()
    torch.testing.assert_close(losses.total, total)
    torch.testing.assert_close(found, [p.grad for p in model.parameters()])


def test_a_teacher_that_draws_noise_is_asked_again(tmp_path, monkeypatch):
    """Its noise is drawn before that of those who learn: without it these would drop other paths than before."""
    made = tiny.config(trainer__accumulate=2, encoder__depth=2, encoder__drop_path=0.5, **CASES["C-JEPA"])
    trainer = Trainer(made, tmp_path)
    imagine, seen = type(trainer.jepa).imagine, []

    def looked(self, *args):
        found = imagine(self, *args)
        seen.append((found[0].seen.detach(), args[3] is None))
        return found

    monkeypatch.setattr(type(trainer.jepa), "imagine", looked)
    trainer.gradients(next(trainer.stream(0, 1)))
    trainer.log.close()
    assert [asked for _, asked in seen] == [True, True, False, True, False, True]
    assert torch.equal(seen[0][0], seen[3][0]) and torch.equal(seen[1][0], seen[5][0])
    assert not torch.equal(seen[0][0], seen[2][0])


def test_a_run_says_so(tmp_path, capsys):
    made = tiny.config(trainer__accumulate=2, anti_collapse=strategies("vicreg"), trainer__steps=4)
    assert train.run(made, tmp_path) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "statistics are those of 16 samples: each micro-batch is encoded twice" in said
    assert tiny.lines(tmp_path)[-1]["variance"] > 0


def test_a_strategy_that_looks_at_the_batch_has_to_say_so():
    class Silent(nn.Module):
        def prepare(self, backbone, steps): ...
        def targets(self, backbone, view):
            return backbone(view)

        def penalty(self, seen, guess, truth):
            return {"spread": seen.std(0).mean()}

        def after_step(self, backbone, step): ...

    from tests.properties.test_anti_collapse import backbone

    with pytest.raises(AssertionError, match="'spread' depends on which samples share a batch: say statistics = True"):
        check_anti_collapse(Silent(), backbone(), torch.randn(4, 3, 1, 16, 16))
