"""Several branches over one backbone: each a whole configuration, most of which it shares.

``branches.<name>`` names what is a branch's own, of ``PARTS``; all else is that of the branch that it is ``like``, then
that of the top level, and is shared: not another predictor with the same settings, but the same one.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from jepakit.errors import ConfigError

PARTS = ("data", "masker", "predictor", "anti_collapse")
"""What a branch may have for itself."""
SETTINGS = ("distance", "distance_weight", "distance_levels", "views")
"""And what of it is no part."""


def branches(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration of each branch, as if there were no other; a run without branches is one that has no name.

    Those that train on the top level's data come first: epochs and the run's health are those of the first branch.
    """
    every = config.get("branches") or {}
    named = sorted(every.items(), key=lambda item: item[1].get("data") is not None)
    found = {
        name: {**config, **own(every.get(each.get("like"), {})), **own(each), "branches": {}} for name, each in named
    }
    return found or {"": dict(config)}


def owner(config: Mapping[str, Any], name: str, part: str) -> str:
    """Whose a part of a branch is: its own, that of the one it is ``like``, or, without a name, the top level's."""
    like = config["branches"][name].get("like") if name else None
    for each in filter(None, (name, like)):
        if config["branches"][each][part] is not None:
            return each
    return ""


def own(branch: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``branches.<name>`` takes the place of the top level's."""
    return {key: branch[key] for key in (*PARTS, *SETTINGS) if branch.get(key) not in (None, {})}


def place(name: str, path: str) -> str:
    """A setting's key, for one branch: ``branches.image.data.size``."""
    return f"branches.{name}.{path}" if name else path


def chosen_part(path: str) -> str:
    """The part of a branch that a key stands for as a whole, or by its name; empty where it stands for something else.

    ``branches.image.masker`` and ``branches.image.masker.name`` are both the masker, and chosen as such.
    """
    match path.removesuffix(".name").split("."):
        case ["branches", name, part] if part in PARTS:
            return f"branches.{name}.{part}"
    return ""


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """What is refused says in which branch, where there are several."""
    try:
        yield
    except ConfigError as error:
        if not name:
            raise
        raise ConfigError(f"branch {name}: {error}") from error
