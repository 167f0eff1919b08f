"""A run that starts from weights: it goes on as the original would have, or nothing is touched."""

import copy
import dataclasses
import functools
from typing import Any

import pytest
import torch

from jepakit import train
from jepakit.build import Built, build
from jepakit.cli import main
from jepakit.errors import CheckpointError, ConfigError, UserError
from jepakit.optim import adamw
from jepakit.types import Weights
from jepakit.weights.start import begin
from tests.weights import made

CONFIG = made.config("start.weights=file")
LATER = range(10, 13)
"""Seeds of the steps after those that the weights come from."""


@pytest.fixture(scope="module")
def original() -> tuple[Weights, list[float]]:
    """Weights after a few steps, and the losses of the steps that followed."""
    built, optimizer = made.trained(CONFIG)
    found = made.weights(CONFIG, built, optimizer)
    return found, [made.advance(built, optimizer, seed) for seed in LATER]


@pytest.fixture
def found(original) -> Weights:
    return original[0]


@pytest.fixture
def file(monkeypatch):
    """Sets what the file holds."""

    def hold(weights: Weights) -> None:
        monkeypatch.setattr("jepakit.weights.read", lambda path: copy.deepcopy(weights))

    return hold


@functools.cache
def built(*settings: str) -> Built:
    return build(made.config(*settings))


class Begun:
    """A new model of another seed, begun with the weights of the file."""

    def __init__(self, *settings: str, **changes: Any):
        self.config = made.config("start.weights=file", "seed=1", *settings)
        self.config["start"] |= changes
        self.jepa, self.said = copy.deepcopy(built("seed=1", *settings).jepa), []
        self.built = built("seed=1", *settings)._replace(jepa=self.jepa)
        self.optimizer = adamw(self.jepa, self.config["optim"] | {"lr": 1e-2})
        self.before = made.states(self.jepa)

    def begin(self) -> "Begun":
        begin(self.jepa, self.optimizer, self.config, self.said.append)
        return self

    def untouched(self) -> bool:
        now = self.jepa.state_dict()
        return all(torch.equal(now[name], value) for name, value in self.before.items()) and not self.optimizer.state


def equal(module: torch.nn.Module, state: dict) -> bool:
    now = module.state_dict()
    return now.keys() == state.keys() and all(torch.equal(now[name], value) for name, value in state.items())


def test_its_losses_are_those_of_the_original_to_the_last_bit(original, file):
    found, expected = original
    file(found)
    run = Begun().begin()
    assert [made.advance(run.built, run.optimizer, seed).hex() for seed in LATER] == [each.hex() for each in expected]
    assert run.said == [
        "starts from file: online weights to the backbone, target weights to the teacher, predictor, "
        "moments of the optimizer"
    ]


def test_without_moments_only_the_first_loss_is_the_same(original, file):
    found, expected = original
    file(dataclasses.replace(found, optimizer={}))
    run = Begun().begin()
    losses = [made.advance(run.built, run.optimizer, seed) for seed in LATER]
    assert losses[0] == expected[0] and losses[1] != expected[1]
    assert run.said[0].endswith("no moments of the optimizer, which are not there")


def test_the_files_tensors_are_copied(found, file, monkeypatch):
    monkeypatch.setattr("jepakit.weights.read", lambda path: found)
    kept = copy.deepcopy(found)
    run = Begun().begin()
    made.advance(run.built, run.optimizer, 0)
    for now, before in ((found.backbones["target"], kept.backbones["target"]), (found.optimizer, kept.optimizer)):
        assert all(torch.equal(now[name], before[name]) for name in before)


def test_one_backbone_goes_to_both(found, file):
    file(dataclasses.replace(found, backbones={"target": found.backbones["target"]}))
    run = Begun(parts=["backbone"]).begin()
    assert equal(run.jepa.backbone, found.backbones["target"])
    assert equal(run.jepa.target_backbone, found.backbones["target"])
    assert run.said == ["starts from file: target weights, the only ones there, to the backbone and the teacher"]


def test_only_what_was_asked_for_is_taken(found, file):
    file(found)
    run = Begun(parts=["backbone", "optimizer"]).begin()
    names = {name for name, p in run.jepa.named_parameters() if p in run.optimizer.state}
    assert names == {name for name, _ in run.jepa.named_parameters() if name.startswith("backbone.")}
    assert torch.equal(run.jepa.predictor.mask_token, run.before["predictor.mask_token"])


def test_settings_of_the_training_may_differ(found, file):
    file(found)
    run = Begun("encoder.drop_path=0.1", "tokenizer.init_std=0.1").begin()
    assert equal(run.jepa.backbone, found.backbones["online"])


def test_another_normalisation_is_said(found, file):
    file(found)
    run = Begun("data.mean=[0.5,0.5,0.5]").begin()
    assert run.said[0].startswith("the weights were trained with data.mean=[0.485")


# Refused ------------------------------------------------------------------------------------------------------------


def refused(run: Begun, error: type[UserError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        run.begin()
    assert "\n" not in str(caught.value) and not run.said
    assert run.untouched()


@pytest.mark.parametrize(
    "settings, ways",
    [
        (["encoder.heads=2"], "encoder.heads=3"),
        (["encoder.width=12", "encoder.depth=2"], "encoder.width=24 encoder.depth=1"),
        (["tokenizer.patch=4"], "tokenizer.patch=8"),
        (["predictor.heads=1"], "predictor.heads=2"),
    ],
)
def test_another_model_is_refused_with_the_settings_of_the_file(found, file, settings, ways):
    file(found)
    refused(Begun(*settings), ConfigError, f"of another model than the configuration: go on with {ways}$")


def test_another_grid_is_refused_with_the_ways_to_go_on(found, file):
    file(found)
    said = (
        r"trained on a grid of 4 x 4, here it is 8 x 8: go on with "
        r"encoder.native=\[4,4\] predictor.native=\[4,4\], or data.size=32$"
    )
    refused(Begun("data.size=64"), ConfigError, said)
    refused(Begun("data.size=64", "encoder.native=[4,4]"), ConfigError, r"go on with predictor.native=\[4,4\], or")
    run = Begun("data.size=64", "encoder.native=[4,4]", "predictor.native=[4,4]").begin()
    assert equal(run.jepa.backbone, found.backbones["online"])


def test_a_part_that_the_file_lacks_is_refused(found, file):
    file(dataclasses.replace(found, predictor={}, optimizer={}))
    refused(Begun(), CheckpointError, r"has no predictor: leave it out with start.parts=\[backbone\]$")


@pytest.mark.parametrize(
    "parts, said",
    [(["bakcbone"], "did you mean 'backbone'"), ([], "takes no weights"), (["optimizer"], "takes no weights")],
)
def test_parts_that_there_are_not(found, file, parts, said):
    file(found)
    refused(Begun(parts=parts), ConfigError, said)


@pytest.mark.parametrize("place", ["target", "online", "predictor", "optimizer"])
@pytest.mark.parametrize("damage", ["missing", "left over", "wrong shape"])
def test_any_difference_is_refused_before_anything_is_loaded(found, file, place, damage):
    spoilt = copy.deepcopy(found)
    tensors = spoilt.backbones.get(place) or getattr(spoilt, place)
    name = next(each for each in tensors if each.endswith(("norm.weight", "norm.weight/exp_avg")))
    if damage == "left over":
        tensors[f"{name}.more"] = tensors[name]
    else:
        value = tensors.pop(name)
        if damage == "wrong shape":
            tensors[name] = value[:-1]
    file(spoilt)
    refused(Begun(), CheckpointError, f"{damage}: {name}")


# Whole runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr(train, "report", lambda *_: [])


def test_it_resumes_without_the_file(found, file, quiet, tmp_path, monkeypatch):
    file(found)
    config = made.config("start.weights=file", "trainer.steps=1")
    assert train.run(config, tmp_path) == 0
    assert "starts from file" in (tmp_path / "log.txt").read_text()

    def gone(path):
        raise CheckpointError(f"{path} is gone")

    monkeypatch.setattr("jepakit.weights.read", gone)
    config["trainer"]["steps"] = 2
    assert train.run(config, tmp_path) == 0
    assert "resumed at step 1" in (tmp_path / "log.txt").read_text()


def test_a_refused_start_leaves_no_run_behind(found, file, tmp_path, monkeypatch, capsys):
    file(found)
    monkeypatch.chdir(tmp_path)
    assert main(["train", *made.settings("encoder.heads=2", "start.weights=file")]) == 2
    assert "go on with encoder.heads=3" in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []
