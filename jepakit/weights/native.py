"""jepakit's own formats: a run folder, and one file with everything.

The file is a .safetensors file. Its tensors are named ``target/...``, ``online/...``, ``predictor/...``,
``optimizer/...`` and ``extra/...``, as in ``types.Weights``; its metadata holds under ``jepakit`` a JSON text with
``version``, ``config``, ``about`` and ``weights``, which of its backbones is meant where nothing is said. A companion
is such a file beside a model in someone else's format: it ``lacks`` what the model holds.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from jepakit.errors import CheckpointError, nearest
from jepakit.protocols import Content
from jepakit.types import Weights
from jepakit.weights.content import COMPANION, open_content

VERSION, KEY = 1, "jepakit"
NODES = {"tokenizer", "encoder", "data"}
BACKBONES, PARTS = ("target", "online"), ("target", "online", "predictor", "optimizer", "extra")
PLACES = (
    (re.compile(r"model\.backbone\.(.+)"), r"online/\1"),
    (re.compile(r"model\.predictor\.(.+)"), r"predictor/\1"),
    (re.compile(r"model\.anti_collapse\.strategies\.[^.]+\.teacher\.(.+)"), r"target/\1"),
    (re.compile(r"optimizer\.state\.(.+)\.(\w+)"), r"optimizer/\1/\2"),
)
"""Where the tensors of a checkpoint belong; what is left is state that only the run itself can use."""


class RunFolder:
    """A run folder, at its newest valid checkpoint."""

    title, parts, suffixes = "jepakit run", (), ()

    def recognise(self, content: Content) -> bool:
        return any(name.startswith("model.backbone.") for name in content.tensors)

    def summary(self, content: Content) -> dict[str, dict[str, Tensor]]:
        return by_part({_place(name): tensor for name, tensor in content.tensors.items()})

    def read(self, content: Content) -> Weights:
        found = self.summary(content)
        rest = [name for part, tensors in found.items() if part not in PARTS for name in tensors]
        about = {"format": self.title, **content.values, **({"left_out": rest} if rest else {})}
        return _weights(found, dict(content.config or {}), about | {"recipe": (content.config or {}).get("recipe")})

    def write(self, weights: Weights, which: str, out: Path) -> None:
        raise ValueError("a run is made by training: jepakit train start.weights=FILE begins one from weights")


class Exported:
    """One file with everything."""

    title, parts, suffixes = "jepakit file", PARTS, (".safetensors",)

    def recognise(self, content: Content) -> bool:
        return KEY in content.values and any(name.split("/")[0] in PARTS for name in content.tensors)

    def summary(self, content: Content) -> dict[str, dict[str, Tensor]]:
        return by_part(content.tensors)

    def read(self, content: Content) -> Weights:
        said, found = header(content), by_part(content.tensors)
        if unknown := [f"{part}/{name}" for part in found if part not in PARTS for name in found[part]]:
            raise ValueError(
                f"it holds {unknown[0]}{nearest(unknown[0].split('/')[0], PARTS)} ({len(unknown)} such keys)"
            )
        if said.get("lacks"):
            raise ValueError(
                f"it is the companion of a model in the same folder, without its {said['lacks']}; name that"
            )
        return _weights(found, said["config"], {**said["about"], "format": self.title})

    def write(self, weights: Weights, which: str, out: Path) -> None:
        save(weights, which, out)


def save(weights: Weights, which: str, out: Path, lacks: str = "", beside: Sequence[str] = ()) -> None:
    """Write a jepakit file; a companion leaves out the backbone that it ``lacks``, and what else lies ``beside`` it."""
    said = {"version": VERSION, "config": weights.config, "about": weights.about, "weights": which, "lacks": lacks}
    rest = {"predictor": weights.predictor, "optimizer": weights.optimizer, "extra": weights.extra}
    parts = {part: state for part, state in (weights.backbones | rest).items() if part not in (lacks, *beside)}
    tensors = {f"{part}/{name}": tensor.contiguous() for part, state in parts.items() for name, tensor in state.items()}
    save_file(_apart(tensors), out, {"format": "pt", KEY: json.dumps(said)})


def rejoin(folder: Path, weights: Weights) -> Weights:
    """Weights that were read from a folder, with what lies beside them in a companion, if one does.

    Raises CheckpointError where the two are not of one model.
    """
    file = folder / COMPANION
    if not folder.is_dir() or not file.is_file() or weights.about.get("format") == RunFolder.title:
        return weights
    content = open_content(file)
    said, found = header(content), by_part(content.tensors)
    if said["lacks"] not in BACKBONES or said["lacks"] in found:
        raise CheckpointError(f"{file} is no companion: it holds a whole model; name it by itself, or take it away")
    (main,) = weights.backbones.values()
    _refuse_other(file, said["config"], weights, next((found[part] for part in BACKBONES if part in found), main))
    found |= {said["lacks"]: main, "extra": {**found.get("extra", {}), **weights.extra}}
    found |= {"predictor": weights.predictor} if weights.predictor else {}
    return _weights(found, said["config"], {**said["about"], **weights.about})


def header(content: Content) -> dict[str, Any]:
    """What a jepakit file says of itself. Raises CheckpointError where it does not, or is of a newer version."""
    try:
        said = json.loads(content.values[KEY])
        if said["version"] > VERSION:
            newer = f"version {said['version']} of the format; this jepakit reads {VERSION}"
            raise CheckpointError(f"{content.path}: {newer}")
        complete = {"about", "weights", "lacks"} <= said.keys() and NODES <= said["config"].keys()
    except (KeyError, ValueError, TypeError, AttributeError):
        said, complete = {}, False
    if not complete:
        raise CheckpointError(f"{content.path}: its metadata is not what jepakit writes")
    return said


def by_part(tensors: Any) -> dict[str, dict[str, Tensor]]:
    """Tensors named ``part/name`` as dictionaries of a part each."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        found.setdefault(part, {})[rest] = tensor
    return dict(sorted(found.items(), key=lambda item: PARTS.index(item[0]) if item[0] in PARTS else len(PARTS)))


def _place(name: str) -> str:
    return next((match.expand(to) for pattern, to in PLACES if (match := pattern.fullmatch(name))), f"rest/{name}")


def _weights(found: dict[str, dict[str, Tensor]], config: dict[str, Any], about: dict[str, Any]) -> Weights:
    backbones = {part: found[part] for part in BACKBONES if part in found}
    if not backbones:
        raise ValueError("it holds neither a target nor an online encoder")
    predictor, optimizer, extra = (found.get(part, {}) for part in ("predictor", "optimizer", "extra"))
    return Weights(config, backbones, predictor, optimizer, about, extra)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that lie in one place, as some files have them, in a place each: the file holds both."""
    places: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor.clone() if tensor.data_ptr() in places else tensor
        places.add(tensor.data_ptr())
    return found


def _refuse_other(file: Path, config: dict[str, Any], weights: Weights, other: dict[str, Tensor]) -> None:
    """Settings, names and shapes of a model against those that its companion knows of."""
    (main,) = weights.backbones.values()
    for group in sorted(NODES | ({"predictor"} if weights.predictor else set())):
        for key, value in weights.config[group].items():
            known = config.get(group, {}).get(key, value)
            if known != value and not isinstance(value, float):  # ratios are read off shapes, and compared with them
                raise CheckpointError(f"{file} belongs to another model: {group}.{key} is {known} there, {value} here")
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (main, other)]
    if shapes[0] != shapes[1]:
        name = next(iter(dict(set(shapes[0].items()) ^ set(shapes[1].items()))))
        raise CheckpointError(f"{file} belongs to another model: {name} differs")
