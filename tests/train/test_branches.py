"""Several figures over one backbone: what they share, what each has for itself, and that the run goes on exactly."""

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jepakit import checkpoint, train
from jepakit.branches import branches
from jepakit.build import build
from jepakit.config import resolve
from jepakit.errors import ConfigError, DataError
from jepakit.jepa import Branched, Jepa
from jepakit.train import Trainer
from tests.train import tiny

TWO = (
    "data=world data.length=40 data.side=16 data.size=16 data.batch_size=8 data.workers=0 tokenizer=patch4".split(),
    "masker=multiblock masker.min_keep=0 encoder=vit encoder.width=32 encoder.depth=1 encoder.heads=2".split(),
    "predictor=vit_predictor predictor.width=16 predictor.depth=1 predictor.heads=2 optim.warmup=1".split(),
    "trainer.steps=6 trainer.precision=fp32 trainer.device=cpu trainer.threads=1 trainer.log_every=1".split(),
    "logger.tensorboard=false evaluate.every=0".split(),
    ["+data@branches.there.data=world", "branches.there.data.length=24", "branches.there.data.seed=7"],
    "branches.there.data.side=16 branches.there.data.size=32 branches.there.data.batch_size=4".split(),
    ["branches.there.data.workers=0", "+masker@branches.there.masker=random"],
)


RECIPE = """\
branches:
  here: {weight: 0.5}
  there: {weight: 2, start: 0.4}
"""


@pytest.fixture(scope="module", autouse=True)
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Settings are composed where ``two.yaml`` lies."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "two.yaml").write_text(RECIPE)
    with contextlib.chdir(folder):
        yield


def settings(*more: str) -> dict[str, Any]:
    """The two branches, and what ``more`` says otherwise."""
    said = {key(each) for each in more}
    return resolve(["recipe=two.yaml", *(each for each in sum(TWO, []) if key(each) not in said), *more])


def key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def begun(folder: Path, *more: str) -> Trainer:
    trainer = Trainer(settings(*more), folder)
    trainer.log.close()
    return trainer


def test_each_branch_is_a_configuration_of_its_own():
    found = branches(settings())
    assert list(found) == ["here", "there"]
    assert found["here"]["data"]["size"] == 16 and found["there"]["data"]["size"] == 32
    assert found["there"]["masker"]["name"] == "random" and found["here"]["masker"]["name"] == "multiblock"
    assert found["here"]["encoder"] is found["there"]["encoder"]
    assert branches({"seed": 0}) == {"": {"seed": 0}}


def test_parts_are_shared_unless_they_are_named():
    built = build(settings())
    one, other = built.figures["here"].jepa, built.figures["there"].jepa
    assert isinstance(built.jepa, Branched) and isinstance(one, Jepa)
    assert one.backbone is other.backbone and one.predictor is other.predictor
    assert one.anti_collapse is other.anti_collapse and not list(built.jepa.own)
    alone = build({**settings(), "branches": {}}).jepa
    assert alone.state_dict().keys() == built.jepa.state_dict().keys()
    assert built.figures["here"].grid.size == 16 and built.figures["there"].grid.size == 64


def test_parts_that_are_named_are_the_branchs_own():
    built = build(settings("+predictor@branches.there.predictor=vit_predictor", "branches.there.predictor.heads=2"))
    one, other = built.figures["here"].jepa, built.figures["there"].jepa
    assert one.predictor is not other.predictor and one.anti_collapse is other.anti_collapse
    own = {name for name in built.jepa.state_dict() if name.startswith("own.")}
    assert own == {f"own.there.predictor.{name}" for name in other.predictor.state_dict()}
    names = [name for name, _ in built.jepa.named_parameters()]
    assert len(names) == len(set(names)) == len({id(p) for p in built.jepa.parameters()})


def test_a_step_is_the_weighted_sum_over_branches(tmp_path):
    trainer = begun(tmp_path)
    assert (trainer.epoch_steps, [b.first for b in trainer.branches]) == (5.0, [0, 2])
    first = next(trainer.stream(0, 1))
    assert [(each.branch.name, len(each.batches[0].index)) for each in first] == [("here", 8)]
    taken = next(trainer.stream(2, 3))
    assert [(each.branch.name, each.batches[0].views[0].shape[-1]) for each in taken] == [("here", 16), ("there", 32)]
    trainer.step = 2
    totals = [each.branch.losses(each.batches[0], 2, 0).total for each in taken]
    wanted = torch.autograd.grad(
        0.5 * totals[0] + 2 * totals[1], [p for p in trainer.jepa.parameters() if p.requires_grad], retain_graph=True
    )
    parts = trainer.gradients(taken)
    found = [p.grad for p in trainer.jepa.parameters() if p.requires_grad]
    torch.testing.assert_close(found, list(wanted))
    assert parts["here/loss"] == totals[0].detach() and parts["there/loss"] == totals[1].detach()
    torch.testing.assert_close(parts["loss"], (0.5 * totals[0] + 2 * totals[1]).detach())


def test_a_teacher_that_is_shared_moves_once(tmp_path):
    trainer = begun(tmp_path)
    slow = next(trainer.jepa.target_backbone.parameters())
    before, fast = slow.clone(), next(trainer.jepa.backbone.parameters())
    with torch.no_grad():
        fast.add_(1.0)
    trainer.jepa.after_step(0)
    torch.testing.assert_close(slow, 0.996 * before + 0.004 * fast)


def resumed(config: dict[str, Any], folder: Path, at: Any, step: int) -> list[dict[str, Any]]:
    """The log of a run that was stopped at a step and went on, held against one that was not stopped."""
    for name in ("through", "stopped"):
        (folder / name).mkdir()
    assert train.run(config, folder / "through") == 0
    at(step, lambda: signal.raise_signal(signal.SIGINT))
    assert [train.run(config, folder / "stopped") for _ in range(2)] == [train.INTERRUPTED, 0]
    assert tiny.lines(folder / "stopped") == tiny.lines(folder / "through")
    states = [tiny.saved(config, folder / name) for name in ("through", "stopped")]
    assert states[0][0] == 6 and tiny.same(states[0][1], states[1][1])
    return tiny.lines(folder / "through")


def test_it_goes_on_as_if_it_had_not_been_stopped(tmp_path, at):
    lines = resumed(settings(), tmp_path, at, 4)
    assert ["there/loss" in line for line in lines] == [False, False, True, True, True, True]
    assert "rank" in lines[-1] and "there/rank" in lines[-1] and "here/rank" not in lines[-1]


def test_branches_that_take_turns(tmp_path, at):
    trainer = begun(tmp_path, "trainer.alternate=true", "trainer.steps=12")
    taken = [[each.branch.name for each in step] for step in trainer.stream(0, 8)]
    assert taken == [["here"], ["here"], ["here"], ["there"], ["here"], ["there"], ["here"], ["there"]]
    for branch in trainer.branches:
        counts = [trainer.turns.before(branch, step) for step in range(9)]
        assert counts == [sum(names == [branch.name] for names in taken[:step]) for step in range(9)]
    whole, rest = list(trainer.stream(0, 8)), list(trainer.stream(5, 8))
    for (one,), (other,) in zip(whole[5:], rest, strict=True):
        assert one.branch is other.branch and torch.equal(one.batches[0].index, other.batches[0].index)


def test_turns_go_on_as_if_they_had_not_been_stopped(tmp_path, at):
    lines = resumed(settings("trainer.alternate=true", "trainer.log_every=2"), tmp_path, at, 4)
    assert [[name for name in ("here", "there") if f"{name}/loss" in line] for line in lines] == [
        ["here"],
        ["here"],
        ["there"],
    ]


OWN = ("+predictor@branches.there.predictor=vit_predictor", "branches.there.predictor.heads=2")


def test_what_is_a_branchs_own_has_a_rate_and_a_clip_of_its_own(tmp_path):
    trainer = begun(
        tmp_path, *OWN, "branches.there.lr=1e-4", "branches.there.clip=0.01", "optim.clip=5", "optim.lr=1e-3"
    )
    own = {id(p) for p in trainer.jepa.own["there"].parameters()}
    train_step = trainer.step = 2
    taken = next(trainer.stream(train_step, train_step + 1))
    trainer.gradients(taken)
    rest = [p for p in trainer.jepa.parameters() if p.grad is not None and id(p) not in own]
    mine = [p for p in trainer.jepa.own["there"].parameters() if p.grad is not None]
    before = [torch.nn.utils.get_total_norm([p.grad for p in some]).item() for some in (rest, mine)]
    assert before[1] > 0.01 and 5 > (before[0] ** 2 + 0.01**2) ** 0.5
    found = trainer.gradient_norm()
    after = [torch.nn.utils.get_total_norm([p.grad for p in some]).item() for some in (rest, mine)]
    assert after == pytest.approx([before[0], 0.01], rel=1e-3)
    assert found.item() == pytest.approx((before[0] ** 2 + before[1] ** 2) ** 0.5, rel=1e-5), "as it was"
    trainer.train_step(taken)
    rates = {bool(own & {id(p) for p in group["params"]}): group["lr"] for group in trainer.optimizer.param_groups}
    assert rates[True] == pytest.approx(0.1 * rates[False]) and rates[True] > 0


def test_what_was_not_stepped_yet_is_no_part_of_a_checkpoint(tmp_path, at):
    """A branch that joins after the stop, with a predictor of its own."""
    lines = resumed(settings(*OWN, "branches.there.start=0.9"), tmp_path, at, 2)
    assert ["there/loss" in line for line in lines] == [False, False, False, False, True, True]


def test_a_branch_that_is_like_another(tmp_path):
    more = "+data@branches.more.data=world branches.more.data.length=16 branches.more.data.side=16".split()
    more += "branches.more.data.size=16 branches.more.data.batch_size=2 branches.more.data.workers=0".split()
    trainer = begun(
        tmp_path, *OWN, *more, "branches.more.like=there", "branches.there.start=0", "branches.there.lr=1e-4"
    )
    here, more, there = (trainer.jepa.figures[name] for name in ("here", "more", "there"))
    assert more.predictor is there.predictor is not here.predictor and more.anti_collapse is here.anti_collapse
    assert list(trainer.jepa.own) == ["there"] and trainer.jepa.predictor is here.predictor
    assert branches(trainer.config)["more"]["masker"]["name"] == "random"
    assert [len(each.batches[0].index) for each in next(trainer.stream(0, 1))] == [8, 4, 2]
    names = list(trainer.jepa.state_dict())
    assert len(names) == len(set(names)) and not any("more" in name for name in names)


def test_views_of_a_branchs_own(tmp_path):
    views = "+branches.there.views={one: {count: 2, flip: true}, other: {size: 16}}"
    trainer = begun(tmp_path, views, "+masker@branches.there.masker=random")
    here, there = trainer.branches
    assert (len(here.loader.views), len(there.loader.views)) == (1, 3)
    batch = next(there.loader.batches(0, 1))
    assert [view.shape[-1] for view in batch.views] == [32, 32, 16]
    assert branches(settings())["there"]["views"] == {}


def test_one_branch_of_the_whole_run_is_the_run_without_branches(tmp_path):
    (tmp_path / "flat").mkdir(), (tmp_path / "one").mkdir()
    flat = {**settings("trainer.steps=2"), "branches": {}}
    one = {**flat, "branches": {"only": settings()["branches"]["here"] | {"weight": 1.0}}}
    assert train.run(flat, tmp_path / "flat") == train.run(one, tmp_path / "one") == 0
    first = [tiny.lines(tmp_path / name)[0] for name in ("flat", "one")]
    assert first[1]["loss"] == first[1]["only/loss"] != first[0]["loss"], "its masks and noise have a key of their own"
    assert first[0]["epoch"] == first[1]["epoch"]


def test_the_teachers_of_a_run_with_branches_are_read_as_of_any_other(tmp_path):
    assert train.run(settings("trainer.steps=2"), tmp_path) == 0
    jepa, step = checkpoint.load_newest_model(tmp_path, settings("trainer.steps=2"))
    assert step == 2 and jepa.target_backbone is jepa.anti_collapse.teacher


def test_what_cannot_be_read_is_listed_by_branch(tmp_path):
    trainer = begun(tmp_path)
    here, there = (branch.quarantine for branch in trainer.branches)
    there.budget = 1.0
    there.add([{"path": "x", "reason": "broken", "index": 3, "instead": 4}])
    assert json.loads((tmp_path / "quarantine-there.jsonl").read_text())["path"] == "x"
    assert len(here) == 0 and not here.file.exists()


REFUSED = {
    "branches.there.weight=0": "branches.there.weight=0.0 is out of range: it has to be above 0, and finite",
    "branches.there.start=-1": "branches.there.start=-1.0 is out of range: it has to be at least 0, and finite",
    "branches.there.like=heer": "branches.there.like=heer is no choice (did you mean 'here'?)",
    "branches.there.like=there": "branches.there.like=there: it has to be another branch, which is like none itself",
    "branches.there.lr=0": "branches.there.lr=0.0 is out of range: it has to be above 0",
    "branches.there.clip=1": "branches.there.clip=1.0 is out of range: it has to be null: all that it trains is shared",
    "+branches.there.views={one: {sise: 3}}": "unknown key 'branches.there.views.one.sise' (did you mean 'size'?)",
    "+branches.there.views={one: {count: 0}}": "branches.there.views.one.count=0 is out of range",
    "branches.there.distance=l3": "branches.there.distance=l3 is no choice",
    "branches.there.wait=3": "unknown key 'branches.there.wait' (did you mean 'weight'?)",
    "+branches.there.wait=3": "unknown key 'branches.there.wait' (did you mean 'weight'?)",
    "branches.there.masker.ratoi=3": "unknown key 'branches.there.masker.ratoi' (did you mean 'ratio'?)",
    "branches.there.masker=random": "no way to choose: write masker@branches.there.masker=NAME",
    "branches.there.masker.name=random": "no way to choose: write masker@branches.there.masker=NAME",
    "+masker@branches.there.masker=randon": "no masker 'randon' (did you mean 'random'?)",
    "branches.there.data.max_bad=-1": "branch there: data.max_bad=-1.0 is out of range",
    "+branches.third.weight=1": "there is no branch 'third' yet: give it a part of its own, "
    "+data@branches.third.data=NAME",
    "branches={third: {}}": "there is no branch 'third' yet: give it a part of its own, +data@branches.third.data=NAME",
    "+masker@branches.Two.masker=random": "branches.Two: a branch's name is small letters, digits and _, and "
    "begins with a letter",
    "+data@branches.here.data=folder": "branches.here.data.root is not set, and data=folder has no default",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_is_wrong_is_said_with_its_place(override):
    with pytest.raises(ConfigError) as caught:
        settings(override)
    assert REFUSED[override] in str(caught.value), caught.value


def test_a_rate_that_would_be_a_share_of_nothing():
    with pytest.raises(ConfigError, match="branches.there.lr=0.1 has no effect beside optim.lr=0"):
        settings(*OWN, "branches.there.lr=0.1", "optim.lr=0", "optim.start_lr=0", "optim.final_lr=0")


def test_a_branch_that_cannot_be_built_says_which_it_is(tmp_path):
    with pytest.raises(ConfigError, match="^branch there: tokenizer 'patch': a clip of 1 x 18 x 18"):
        build(settings("branches.there.data.size=18"))
    with pytest.raises(DataError, match="24 samples, fewer than the 32"):
        Trainer(settings("branches.there.data.batch_size=32"), tmp_path)


def test_a_branch_that_never_joins(tmp_path):
    trainer = begun(tmp_path, "branches.here.start=100", "branches.there.start=0")
    assert [each.branch.name for each in next(trainer.stream(0, 1))] == ["there"]
    (tmp_path / "run").mkdir()
    assert train.run(settings("branches.here.start=100", "branches.there.start=0"), tmp_path / "run") == 0
    assert all("there/rank" in line and "here/loss" not in line for line in tiny.lines(tmp_path / "run"))
    with pytest.raises(ConfigError, match="no branch is there from the beginning"):
        begun(tmp_path, "branches.here.start=3", "branches.there.start=2")


def test_hydra_wants_overrides_last(tmp_path):
    lines = ["defaults:", "  - override /tokenizer: patch", "  - /data@branches.a.data: world"]
    (tmp_path / "late.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="late.yaml: /data@branches.a.data has to stand before the lines with"):
        resolve([f"recipe={tmp_path / 'late.yaml'}"])
