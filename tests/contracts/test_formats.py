"""Every registered format keeps its contract: a new one joins by itself."""

import pytest
import torch

from jepakit.plugins import discover
from jepakit.protocols import Content, Format
from jepakit.types import Weights

PARTS = {"target", "online", "backbone", "predictor", "optimizer"}
FOREIGN = {
    "": {},
    "state": {"layer.weight": torch.zeros(2, 2)},
    "nested": {"encoder/0/weight": torch.zeros(2, 3, 4, 4)},
}


@pytest.fixture(params=discover().names("format"))
def form(request) -> Format:
    return discover().get("format", request.param).load()()


def test_form(form):
    assert isinstance(form, Format)
    assert form.title and {*form.parts} <= PARTS and all(each.startswith(".") for each in form.suffixes)
    assert form.parts or not form.suffixes, "it writes nothing, and says how what it writes ends"


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_not_its_own(form, name, tmp_path):
    assert form.recognise(Content(tmp_path, FOREIGN[name], {})) is False


def test_what_it_cannot_write_it_refuses_first(form, tmp_path):
    """Parts of another kind: the reason is given, and nothing is written."""
    nodes = {part: {"name": "of another kind", "width": 8} for part in ("tokenizer", "encoder", "predictor")}
    other = Weights({**nodes, "data": {"size": 8, "mean": [0.5], "std": [0.5]}}, {"target": {"weight": torch.zeros(1)}})
    with pytest.raises(ValueError, match=r"\w"):
        form.write(other, "target", tmp_path / "out")
    assert not list(tmp_path.iterdir())
