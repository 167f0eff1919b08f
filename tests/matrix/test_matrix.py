"""Whatever goes together trains; whatever does not is refused by name, with a reason."""

import re
from typing import Any

import pytest
import torch

from jepakit import matrix
from jepakit.errors import ConfigError
from jepakit.matrix import KINDS, Combination
from jepakit.plugins import discover
from tests.matrix.training import trained

ACCIDENTS = re.compile(
    r"Type-check|size of tensor|must match|target size|normalized_shape|mat1|shape '|out of range|positional argument"
    r"|keyword argument|has no attribute|subscriptable|Traceback|Expected|object is not",
    re.IGNORECASE,
)
"""What torch, Python and shape checks say where nobody has thought of a combination."""

VICREG = Combination("pictures", "patch", "vit", "pair", "identity", "vicreg")
IJEPA = Combination("pictures", "patch", "vit", "multiblock", "vit_predictor", "ema")
VJEPA = Combination("clips", "joint", "vit", "tubes", "vit_predictor", "ema")
FACTS = {
    VICREG: "",
    IJEPA: "",
    VJEPA: "",
    IJEPA._replace(anti_collapse="ema+vicreg"): "",
    VICREG._replace(tokenizer="whole", encoder="timm", masker="mean", anti_collapse="sigreg"): "",
    VICREG._replace(
        anti_collapse="vicregl", data="clips"
    ): "anti_collapse 'vicregl': vicregl matches places of pictures",
    VICREG._replace(masker="multiblock"): "predictor 'identity': identity says again what was seen",
    VICREG._replace(anti_collapse="pixels"): "predictor 'identity': .* wide: they need a predictor that learns",
    IJEPA._replace(tokenizer="whole", encoder="timm"): "encoder 'timm': .* encodes whole pictures",
    IJEPA._replace(encoder="timm"): "encoder 'timm': .* eats the pixels themselves",
    IJEPA._replace(tokenizer="whole"): "encoder 'vit': vit reads tokens that are vectors",
    IJEPA._replace(data="clips"): "masker 'multiblock': multiblock masks single frames",
    IJEPA._replace(anti_collapse="ema+pixels"): "anti_collapse: ema and pixels each say what the target features are",
}


def test_what_goes_together_trains(whole):
    """A few real steps: losses are finite, gradients are where they belong, teachers do what they should."""
    assert not whole.wrong, next(f"{each}: {fault}" for each, fault in whole.wrong.items())
    worked = [trial.combination for trial in (*whole.alone, *whole.beside) if trial.works]
    assert len(worked) > 200
    for kind, names in matrix.axes(discover()).items():
        there = {name for each in worked for name in getattr(each, kind).split("+")}
        assert there == set(names), f"of {kind} {set(names) - there} is in no combination that works"


def test_what_does_not_is_refused_with_a_reason(whole):
    refused = [trial for trial in (*whole.alone, *whole.beside) if not trial.works]
    assert refused
    for trial in refused:
        parts = [f"{kind} {name!r}" for kind, name in zip(KINDS, trial.combination, strict=True)]
        assert trial.who in (*parts, "anti_collapse"), trial
        assert "\n" not in trial.reason and not ACCIDENTS.search(trial.reason), trial
        assert len(trial.reason.split()) > 3, trial


def test_every_combination_is_tried(whole):
    names = matrix.axes(discover())
    tried = {trial.combination[1:] for trial in whole.alone}
    assert tried == {each[1:] for each in matrix.combinations(names)}
    count = len(names["anti_collapse"])
    assert len(whole.beside) == count * (count - 1) // 2


def test_a_part_of_the_backbone_refuses_whatever_else_is_chosen(whole):
    """It is then not built with the other predictors and strategies: here one more of them is."""
    refused = {re.sub(r"\d+", "*", f"{trial.who}: {trial.reason}"): trial for trial in whole.alone if not trial.works}
    theirs = [trial for trial in refused.values() if trial.who.partition(" ")[0] in matrix.BACKBONE]
    assert len(theirs) > 5
    for trial in theirs:
        other = trial.combination._replace(predictor="vit_predictor", anti_collapse="vicreg")
        assert matrix.build_one(discover(), other).who == trial.who


def _no_number(*_: object) -> dict[str, torch.Tensor]:
    return {"distance": torch.tensor(float("nan"), requires_grad=True)}


@pytest.mark.parametrize(
    ("part", "change", "fault"),
    [
        ("", {"distance": _no_number}, "step 0: the loss is nan"),
        ("", {"after_step": lambda step: None}, "the teacher has not moved"),
        ("", {"distance": lambda guess, _, __: {"distance": 0 * guess.sum()}}, "step 0: all gradients are zero"),
        ("target_backbone.encoder.norm.bias", {"requires_grad": True}, "step 0: the gradient of anti_collapse"),
    ],
)
def test_what_is_wrong_with_training_is_seen(part, change, fault):
    trial = matrix.build_one(discover(), IJEPA)
    changed: Any = trial.built.jepa
    for name in filter(None, part.split(".")):
        changed = getattr(changed, name)
    for name, value in change.items():
        setattr(changed, name, value)
    assert trained(trial).startswith(fault)


@pytest.mark.parametrize("combination", FACTS, ids=str)
def test_facts(combination):
    trial = matrix.build_one(discover(), combination)
    said = f"{trial.who}: {trial.reason}" if trial.reason else ""
    assert re.match(FACTS[combination], said) and bool(said) == bool(FACTS[combination]), said
    assert bool(trial.built) == trial.works


PLUGIN = """
import jepakit


class Halves:
    tiny = {"turned": False}

    def __init__(self, turned: bool):
        self.turned = turned

    def __call__(self, grid, batch_size, rng):
        import torch

        if grid.t > 1:
            raise ValueError("halves are those of pictures")
        every = torch.arange(grid.size).expand(batch_size, -1)
        halves = every[:, : grid.size // 2], every[:, grid.size // 2 :]
        return [jepakit.Mask(halves[self.turned], halves[not self.turned][:, None])]


class Careless(Halves):
    def __init__(self, turned: bool):
        super().__init__(turned)
    tiny = {"turnd": False}


class Strange(Halves):
    def __init__(self):
        super().__init__(False)
    tiny = True


@jepakit.hookimpl
def jepakit_register(registrar):
    registrar.masker("halves", Halves)
    registrar.masker("careless", Careless)
    registrar.masker("strange", Strange)
    registrar.encoder("absent", "not_there_at_all:Encoder")
"""


def test_what_a_plugin_brings_joins_by_itself(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    found = discover([path])
    assert {"halves", "careless", "strange"} <= set(matrix.axes(found)["masker"])
    fits = IJEPA._replace(masker="halves")
    assert matrix.build_one(found, fits).works
    for changes, said in (
        ({"masker": "halves", "data": "clips"}, ("masker 'halves'", "halves are those of pictures")),
        ({"masker": "halves", "predictor": "identity"}, ("predictor 'identity'", "identity says again")),
        ({"masker": "careless"}, ("masker 'careless'", "its attribute tiny has 'turnd', which is no argument (did")),
        ({"masker": "strange"}, ("masker 'strange'", "its attribute tiny is a bool, it should be a dict of argum")),
        ({"encoder": "absent"}, ("encoder 'absent' of plugin 'mine'", "No module named 'not_there_at_all'")),
    ):
        trial = matrix.build_one(found, fits._replace(**changes))
        assert (trial.who, trial.reason[: len(said[1])]) == said


def test_what_is_asked_for_has_to_be_there():
    found = discover()
    assert matrix.axes(found, {"masker": ["tubes", "pair"]})["masker"] == ["pair", "tubes"]
    with pytest.raises(ConfigError, match=r"^no masker is named 'tubs' \(did you mean 'tubes'\?\); there are: block, "):
        matrix.axes(found, {"masker": ["tubs"]})
    with pytest.raises(ConfigError, match=r"^the matrix has no 'maskr' \(did you mean 'masker'\?\); it has: data, "):
        matrix.axes(found, {"maskr": ["tubes"]})
