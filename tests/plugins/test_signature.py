"""A constructor read as configuration: the same from the class and from its source, and refused with a reason."""

from dataclasses import MISSING
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from jepakit.errors import ConfigError
from jepakit.plugins import Component, discover
from jepakit.signature import arguments, dataclass_of, literals

SOURCE = """
import torch_that_is_not_installed as torch
from typing import Literal
from torch_that_is_not_installed import Tensor

SCALE = (0.15, 0.2)

class Base(torch.Module):
    def __init__(self, encoder_width: int, cell: int, scale: tuple[float, float] = SCALE, ratio: float = 4 / 3,
                 mode: Literal["a", "list"] = "list", depth: "int | None" = None, net: Tensor | None = None, *,
                 std: float = 1, levels: list[list[int]] = [[1, 2], [3]], either: int | float = 2): ...

class Derived(Base): ...
class Plain(torch.Module): ...
class Stars:
    def __init__(self, **settings): ...
class Odd:
    def __init__(self, kind=torch.float32): ...
class Named:
    def __init__(self, name: str = "x"): ...
class Unfit:
    def __init__(self, cell: int = 2.5): ...
"""


NOTHING = object()


def component(target: Any) -> Component:
    return Component("masker", "x", target, "toy", "toy-dist", "1.0")


@pytest.fixture
def source(install) -> None:
    install("unused", {"far/__init__.py": "raise RuntimeError('imported')", "far/away.py": SOURCE})
    install("unused", {"far/door.py": "from .away import Derived as Shown\n"})


@pytest.mark.parametrize("target", ["far.away:Base", "far.away:Derived", "far.door:Shown"])
def test_read_from_source_without_importing(source, target) -> None:
    found = {each.name: (each.annotation, each.default) for each in arguments(component(target))}
    assert found == {
        "cell": (int, MISSING),
        "scale": (tuple[float, float], (0.15, 0.2)),
        "ratio": (float, 4 / 3),
        "mode": (Literal["a", "list"], "list"),
        "depth": (int | None, None),
        "net": (Any, None),
        "std": (float, 1),
        "levels": (list[list[int]], [[1, 2], [3]]),
        "either": (int | float, 2),
    }


def test_dataclass_holds_types_and_defaults(source) -> None:
    config = OmegaConf.structured(dataclass_of(component("far.away:Base")))
    assert OmegaConf.is_missing(config, "cell")
    plain = OmegaConf.to_container(config)
    assert plain["name"] == "x"
    assert plain["scale"] == [0.15, 0.2]
    assert plain["std"] == 1.0
    config.scale = [1, 2]
    config.depth = 3
    config.std = 2
    assert (list(config.scale), config.depth, config.std) == ([1.0, 2.0], 3, 2.0)
    for key, wrong in {"cell": "two", "scale": ["a"], "levels": [1], "either": "x", "std": None}.items():
        with pytest.raises(Exception, match="(?i)could not be|invalid|incompatible|not Optional"):
            config[key] = wrong


def test_literals(source) -> None:
    assert literals(component("far.away:Base")) == {"mode": ("a", "list")}

    class Maybe:
        def __init__(self, mode: Literal["a", "b"] | None = None): ...

    assert literals(component(Maybe)) == {"mode": ("a", "b", None)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Stars", r"takes \*\*settings"),
        ("Odd", "the default of 'kind', torch.float32, is not plain data"),
        ("Named", "'name', which is the key"),
        ("Unfit", "a default does not fit its type"),
        ("Bose", r"no class 'Bose' \(did you mean 'Base'\?\)"),
    ],
)
def test_refused_with_a_reason_and_an_owner(source, name, message) -> None:
    with pytest.raises(ConfigError, match=r"masker 'x' of plugin 'toy' \(toy-dist 1.0\).*" + message):
        dataclass_of(component(f"far.away:{name}"))


def test_class_without_arguments(source) -> None:
    from torch import nn

    class Module(nn.Module): ...

    assert arguments(component(Module)) == arguments(component("far.away:Plain")) == ()


def test_class_refused_as_its_source_is() -> None:
    class Stars:
        def __init__(self, *sizes: int): ...

    class Odd:
        def __init__(self, where: Any = NOTHING): ...

    for target, message in ((Stars, r"\*sizes"), (Odd, "the default of 'where' is a object")):
        with pytest.raises(ConfigError, match=message):
            arguments(component(target))


def test_source_and_class_agree_for_every_registered_component() -> None:
    lazy = [each for each in discover().components.values() if isinstance(each.target, str)]
    assert lazy
    for each in lazy:
        assert arguments(each) == arguments(component(each.load())), str(each)
        dataclass_of(each)
