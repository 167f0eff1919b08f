"""What a file of weights holds, for people: its family, its parts with their shapes, and what to do with it."""

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepakit import listing
from jepakit.build import build_backbone, make, view_shape
from jepakit.compose import Together
from jepakit.config import resolve
from jepakit.errors import UserError
from jepakit.protocols import Content, Format
from jepakit.types import Weights
from jepakit.weights.content import COMPANION, open_content
from jepakit.weights.formats import ask, interpret, recognise
from jepakit.weights.start import TRAINING

NAMES = {"target": "target encoder", "online": "encoder", "backbone": "encoder", "optimizer": "optimiser"}
"""What people call the parts."""
SETTINGS = ("tokenizer", "encoder", "predictor")
WIDTH = 100


def report(place: Path, given: Mapping[str, Any], recipe: str | None, files: Sequence[Path], everything: bool) -> int:
    """Print what lies there, and how it differs from a recipe's model; 1 where it does, else 0.

    Args:
        given: what the file does not say.
        everything: list every tensor, not its kinds.
    """
    wanted = resolve([f"recipe={recipe}"], files, complete=False) if recipe else None
    content = open_content(place, given, shapes_only=True)
    _, form = recognise(content)
    parts = ask(place, form.summary, content)
    print(f"{place}: {form.title}")
    listing.table(("part", "tensors", "numbers", "type"), [_row(part, state) for part, state in parts.items()])
    _shapes(parts, everything)
    _values(content)
    weights, why = _readable(content)
    print(f"\nevaluate: {advice(parts, form)}")
    print(f"import:   {_importable(place, weights, why)}")
    if wanted is None:
        return 0
    found = ["the file cannot be read as a model"] if weights is None else differences(weights, wanted, everything)
    print(f"recipe {recipe}: {'another model' if found else 'the same model'}")
    print(textwrap.indent("\n".join(found), "  "), end="\n" if found else "")
    return 1 if found else 0


def advice(parts: Mapping[str, Any], form: Format) -> str:
    """Which of its weights an evaluation should use."""
    if "target" in parts and "online" in parts:
        return "the target encoder (weights=target), as the papers do; the encoder that learns is the other one"
    if "online" in parts:
        return "the encoder, the only one there is (weights=online)"
    if "target" in parts:
        return "the target encoder (weights=target)"
    if "backbone" in parts:
        return "the only encoder there is (weights=target); the file does not say which one it was"
    return f"nothing: this {form.title} holds no encoder"


def differences(weights: Weights, config: Mapping[str, Any], everything: bool = True) -> list[str]:
    """Every name, shape and setting in which a model is not the one that a configuration asks for, a line each; else
    a line for those that differ in the number of their block only."""
    wanted, lines = model_shapes(config), _settings(weights.config, config)
    pairs: list[tuple[str, str]] = []
    state = next(iter(weights.backbones.values()))
    for part, found in (("backbone", state), ("predictor", weights.predictor)):
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if not shapes:
            lines.append(f"{part}: the file has none")
            continue
        for name in dict.fromkeys([*wanted[part], *shapes]):
            here, there = shapes.get(name), wanted[part].get(name)
            if here != there:
                pairs.append((f"{part}.{name}", f"{_shape(here)} in the file, {_shape(there)} in the recipe"))
    return lines + (_lines(pairs) if everything else _kinds(pairs))


def model_shapes(config: Mapping[str, Any]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of a configuration's ``backbone`` and ``predictor``; nothing is computed."""
    with torch.device("meta"):
        backbone, grid = build_backbone(config)
        known = {"channels": view_shape(config["data"])[0], "encoder_width": backbone.width, "grid": grid}
        known |= {"view_shape": view_shape(config["data"]), "batch_ratio": 1.0}
        strategies = {name: make("anti_collapse", node, **known) for name, node in config["anti_collapse"].items()}
        known["target_width"] = Together(strategies).width(backbone)
        predictor = make("predictor", config["predictor"], **known)
    parts = {"backbone": backbone, "predictor": predictor}
    return {part: {k: tuple(v.shape) for k, v in each.state_dict().items()} for part, each in parts.items()}


def _settings(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Settings in which two models differ, those that shapes do not show among them, but for how they are trained."""
    lines = []
    for group in (*SETTINGS, "data"):
        here, there = found.get(group) or {}, wanted.get(group) or {}
        keys = ("size", "mean", "std") if group == "data" else [key for key in here if key in there]
        for key in (each for each in keys if each not in TRAINING):
            if here.get(key) != there.get(key) and here:
                lines.append(f"{group}.{key}: {here.get(key)} in the file, {there.get(key)} in the recipe")
    return lines


def _readable(content: Content) -> tuple[Weights | None, str]:
    """The model, shapes only; or why it cannot be had."""
    try:
        return interpret(content), ""
    except UserError as error:
        return None, str(error).removeprefix(f"{content.path}: ")


def _importable(place: Path, weights: Weights | None, why: str) -> str:
    if weights is None:
        return f"no: {why}"
    encoder, (_, frames, size, _) = weights.config["encoder"], view_shape(weights.config["data"])
    known = [f"{key} {encoder[key]}" for key in ("width", "depth", "heads") if key in encoder]
    known.append(f"pictures of {size} x {size}" if frames == 1 else f"clips of {frames} x {size} x {size}")
    beside = f", with {COMPANION}" if place.is_dir() and (place / COMPANION).is_file() else ""
    ways = " and ".join(f"{key}=N" for key in weights.about.get("assumed", {}))
    unsaid = f" (the file does not say it: {ways})" if ways else ""
    return f"yes{beside}: {encoder['name']} encoder, {', '.join(known)}{unsaid}"


def _row(part: str, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    numbers = sum(tensor.numel() for tensor in state.values())
    return NAMES.get(part, part), f"{len(state):,}", f"{numbers:,}", ", ".join(kinds)


def _shapes(parts: Mapping[str, Mapping[str, Tensor]], everything: bool) -> None:
    """The tensors of each part: all of them, or a line for those that differ in a number only."""
    seen: dict[str, str] = {}
    for part, state in parts.items():
        pairs = [(name, _shape(tensor.shape)) for name, tensor in state.items()]
        lines = _lines(pairs) if everything else _moments(state) if part == "optimizer" else _kinds(pairs)
        text = "\n".join(lines)
        print(f"\n{NAMES.get(part, part)}" + (f": as the {seen[text]}" if text in seen and not everything else ""))
        if everything or text not in seen:
            print(textwrap.indent(text, "  "))
        seen.setdefault(text, NAMES.get(part, part))


def _lines(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names and what is said of each, aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name.ljust(width)}  {said}" for name, said in pairs]


def _kinds(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Of names that differ in a number only, and of which the same is said, one, with ``*`` for the number."""
    counts = Counter((re.sub(r"(?<=[./])\d+(?=[./]|$)", "*", name), said) for name, said in pairs)
    return _lines([(n, said + (f"  ({count} of them)" if count > 1 else "")) for (n, said), count in counts.items()])


def _moments(state: Mapping[str, Tensor]) -> list[str]:
    """An optimiser's tensors: what it keeps of how many parameters."""
    kinds = [name.rpartition("/")[2] for name in state]
    return [f"{kind} of {kinds.count(kind):,} parameters" for kind in dict.fromkeys(kinds)]


def _values(content: Content) -> None:
    """Whatever plain values there are, short ones."""
    short = {key: value for key, value in content.values.items() if len(str(value)) <= WIDTH}
    found = {key: value for key, value in short.items() if not key.startswith("opt/") and key != "format"}
    if found:
        print("\nvalues")
        print(textwrap.indent("\n".join(f"{key}: {value}" for key, value in found.items()), "  "))


def _shape(shape: Sequence[int] | None) -> str:
    return "none" if shape is None else " x ".join(map(str, shape)) or "a number"
