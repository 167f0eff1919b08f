"""timm's models by name, and their weights from files that are at hand."""

import functools
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from jepakit.errors import first_line, nearest

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""Files with weights, in a folder in this order."""


def create(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A model with random weights.

    Raises:
        ValueError: for a name or an argument that timm does not know.
    """
    if ":" in name or not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}{nearest(name, _names())}")
    try:
        return timm.create_model(name, pretrained=False, **arguments)
    except TypeError as error:
        found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if found is None:
            raise
        module = sys.modules[timm.models.model_entrypoint(name).__module__]
        known = inspect.signature(getattr(module, found[1])).parameters if hasattr(module, found[1]) else ()
        raise ValueError(f"{name} has no argument {found[2]!r}{nearest(found[2], known)}") from error


def fill(model: nn.Module, path: str, head: bool) -> None:
    """Fill all of a model but its ``head`` from a file of timm's weights, or the one file in a folder.

    What the model has no place for is refused, but for the classifier. timm's own filters bring old names, and
    positions of another picture size, into the model's form.

    Raises:
        ValueError: where there is no such file, or where it lacks weights, has others, or some of another shape.
    """
    given = _adapted(model, _file(path))
    classifier = model.default_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    given = {k: v for k, v in given.items() if not any(k.startswith(f"{name}.") for name in classifier)}
    own = model.state_dict()
    free = {k for k in own if head and any(k.startswith(f"{name}.") for name in classifier)}
    lacking, strange = sorted(own.keys() - given.keys() - free), sorted(given.keys() - own.keys())
    other = sorted(k for k in own.keys() & given.keys() if own[k].shape != given[k].shape)
    for word, keys in (("lacks", lacking), ("has no place for", strange), ("has another shape for", other)):
        if keys:
            more = f" and {len(keys) - 1} more" * (len(keys) > 1)
            who = "the model" if word == "has no place for" else "the file"
            raise ValueError(f"pretrained={path}: {who} {word} {keys[0]}{more}")
    model.load_state_dict(given, strict=False)  # all of it, see above


def _adapted(model: nn.Module, file: Path) -> dict[str, Tensor]:
    """The file's tensors by the model's names."""
    try:
        found = timm.models.load_state_dict(str(file))
        adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        return dict(adapt(found, model) if adapt else found)
    except Exception as error:  # files of others fail in many ways
        raise ValueError(f"pretrained={file}: no weights of timm's: {first_line(error)}") from error


def _file(path: str) -> Path:
    at = Path(path).expanduser()
    if at.is_file():
        return at
    found = [each for suffix in SUFFIXES for each in sorted(at.glob(f"*{suffix}"))] if at.is_dir() else []
    if len({each.suffix for each in found}) > 1:
        found = [each for each in found if each.suffix == found[0].suffix]
    if len(found) != 1:
        what = f"the folder holds {len(found)} files with weights" if at.is_dir() else "there is no such file"
        raise ValueError(f"pretrained={path}: {what}; nothing is downloaded, name the file or its folder")
    return found[0]


@functools.cache
def _names() -> list[str]:
    return timm.list_models()
