"""``jepakit eval``: a finished or running training, its score, and the controls beside it."""

import dataclasses
import datetime
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from jepakit.data.views import alone, middle_view, side_views
from jepakit.device import pick_device
from jepakit.errors import ConfigError, nearest
from jepakit.evaluate import controls, features, table
from jepakit.evaluate.attentive import Settings
from jepakit.evaluate.data import Division, Part, divide
from jepakit.evaluate.features import Extracted, Reading
from jepakit.evaluate.protocols import NAMES, Vote


@dataclass(frozen=True)
class EvalOptions:
    """What ``jepakit eval`` understands, beside ``run`` and ``data.<key>``."""

    protocol: str = "all"
    """knn | linear | all (both) | attentive (slow: it learns) | flow (flow_entry.py)"""
    weights: str = "target"
    """target (the teacher, where there is one) | online"""
    fit_root: str | None = None
    """Folder that the probe is fitted on; null: see ``data.divide``."""
    label: str = "class"
    """Label to predict."""
    limit: int | None = 50_000
    """Fit samples and test samples that are looked at, at most; null: all."""
    clips: int = 1
    """Clips of each video, evenly spread over it."""
    views: int = 1
    """Views of each picture or clip: 1 from its centre, or several along its longer side, from end to end."""
    k: int = Vote().k
    temperature: float = Vote().temperature
    """Of the k-NN vote."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N"""
    precision: str = "fp32"
    """fp32 | bf16 (autocast)"""
    probe_depth: int = Settings().depth
    """Of the attentive probe: 1 is V-JEPA's, 4 (three blocks before the query looks) is V-JEPA 2's."""
    probe_heads: int | None = Settings().heads
    """Its heads; null: as many as the encoder's."""
    probe_epochs: int = Settings().epochs
    probe_batch: int = Settings().batch_size
    """Passes over the fit samples, and samples for each step."""
    probe_lr: tuple[float, ...] = Settings().lrs
    probe_wd: tuple[float, ...] = Settings().weight_decays
    """Learning rates and weight decays that are tried, each with each: probe_lr=[1e-3,3e-4]"""
    probe_across: bool = True
    """Its query looks at all clips of a video at once; false: at each by itself, and the answers are averaged."""
    probe_seed: int = Settings().seed
    """Of its weights and the order of samples."""
    probe_memory: float = 8.0
    """GiB that the tokens of the fit samples may take, and those of the test samples."""


PROTOCOLS = (*NAMES, "attentive", "flow", "all")
CHOICES = {"protocol": PROTOCOLS, "weights": ("target", "online"), "precision": ("fp32", "bf16")}
POSITIVE = ("k", "temperature", "limit", "probe_depth", "probe_heads", "probe_epochs", "probe_batch", "probe_lr")
POSITIVE += ("probe_memory", "clips", "views", "size", "speeds")
Options = TypeVar("Options")


class Models(NamedTuple):
    """What is compared: the trained backbone and one as it was before training."""

    trained: nn.Module
    random: nn.Module
    step: int


def command(run: Path, options: Mapping[str, Any]) -> int:
    """Evaluate a run: print the table, write it into the run folder, return 0.

    Args:
        run: the run folder.
        options: keys as on the command line, values plain: fields of ``EvalOptions``, and ``data``, the keys of
            the run's data that are others for the test data.

    Raises UserError (see ``jepakit.errors``) for whatever the person who asks can put right.
    """
    from jepakit.runs import open_run

    if options.get("protocol") == "flow":
        from jepakit.evaluate import flow_entry

        return flow_entry.command(Path(run), options)
    chosen, given = read(options)
    config = open_run(Path(run)).config
    division = divide(config, given, chosen.fit_root, chosen.label, chosen.limit)
    models = load(Path(run), config, chosen.weights)
    outcome = compare(models, division, config, chosen)
    outcome["test"] |= {"given": {key: str(value) for key, value in given.items()}}
    outcome["fit"] |= {"root": chosen.fit_root}
    table.show(outcome)
    name = "+".join(outcome["protocols"])
    print(f"\nwritten to {table.write(outcome, Path(run), name)}")
    return 0


def read(options: Mapping[str, Any]) -> tuple[EvalOptions, dict[str, Any]]:
    """Typed options, and the keys of ``data``. Raises ConfigError for what is unknown or of the wrong type."""
    chosen, given = filled(EvalOptions, options)
    if min(chosen.probe_wd) < 0:
        raise ConfigError(f"probe_wd={chosen.probe_wd}: it must not be below 0")
    return chosen, given


def filled(kind: type[Options], options: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """The same for the options of any protocol, which are the fields of a dataclass."""
    given = dict(options.get("data") or {})
    rest = {key: value for key, value in options.items() if key != "data"}
    known = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    for key in rest:
        if key not in known:
            raise ConfigError(f"unknown option {key!r}{nearest(key, known)}; known: {', '.join(known)}, data.<key>")
    chosen = kind(**{key: _typed(key, value, known[key].type) for key, value in rest.items()})
    for key, allowed in CHOICES.items():
        if (value := getattr(chosen, key)) not in allowed:
            raise ConfigError(f"unknown {key} {value!r}{nearest(value, allowed)}; known: {', '.join(allowed)}")
    for key in POSITIVE:
        value = getattr(chosen, key, None)
        if value is not None and min(value if isinstance(value, tuple) else (value,)) <= 0:
            raise ConfigError(f"{key}={value}: it must be above 0")
    return chosen, given


def load(run: Path, config: Mapping[str, Any], weights: str) -> Models:
    """The newest checkpoint's backbone, and one freshly initialised from the run's seed."""
    from jepakit.build import build_backbone
    from jepakit.checkpoint import load_newest_model

    jepa, step = load_newest_model(run, config)
    trained = jepa.target_backbone if weights == "target" else jepa.backbone
    return Models(trained, build_backbone(config)[0], step)


def compare(models: Models, division: Division, config: Mapping[str, Any], options: EvalOptions) -> dict[str, Any]:
    """The whole result: the rows, a column for each protocol, and what has to be known to read them."""
    device, whole = pick_device(options.device), options.protocol == "attentive"
    reading = Reading(config["data"], device, options.precision, options.label, alone=alone(config))
    reading = reading._replace(memory=options.probe_memory) if whole else reading
    readings = _readings(reading, division, options, whole)
    clips = features.moving(division.test.source, reading, division.test.rows)
    names = NAMES if options.protocol == "all" else (options.protocol,)
    how = _settings(options, config, device) if whole else Vote(options.k, options.temperature)
    rows, skipped = [], ((), ())
    for name, reader in _readers(models, whole, clips).items():
        print(f"{name}: reading {len(division.fit.rows):,} + {len(division.test.rows):,} samples", file=sys.stderr)
        fit, test = (reader(part, each) for part, each in zip(division[:2], readings, strict=True))
        rows.append(table.row(name, fit, test, division.classes, names, how))
        skipped = fit.skipped, test.skipped
    about = _about(models, division, config, options) | _data(division, *skipped)
    return table.result(rows, names, how, about)


def _readings(reading: Reading, division: Division, options: EvalOptions, whole: bool) -> tuple[Reading, Reading]:
    """How fit and test samples are looked at. Raises ConfigError for clips of data that has none to choose from.

    An attentive probe learns from one answer for each fit sample, and is asked for several of a test sample.
    """
    o, size = options, reading.data["size"]
    if o.clips > 1 and not all(hasattr(part.source, "several") for part in (division.fit, division.test)):
        raise ConfigError(
            f"clips={o.clips}: the data has one of each sample; data=video chooses several, views= looks at parts"
        )
    test = reading._replace(views=side_views(size, o.views), clips=o.clips, across=o.probe_across)
    if not whole:
        return test, test
    return test._replace(views=(middle_view(size, o.views),), clips=o.clips if o.probe_across else 1), test


def _readers(models: Models, whole: bool, clips: bool) -> dict[str, Callable[[Part, Reading], Extracted]]:
    """How each row of the table gets its features: one vector for each sample, or ``whole``, all tokens."""
    read = features.tokens if whole else features.extract

    def encoded(backbone: nn.Module) -> Callable[[Part, Reading], Extracted]:
        return lambda part, reading: read(backbone.to(reading.device), part.source, reading, part.rows)

    def pixels(change: features.Change | None) -> Callable[[Part, Reading], Extracted]:
        if whole:
            return lambda part, how: controls.pixel_tokens(models.trained, part.source, how, part.rows, change)
        return lambda part, how: features.raw_pixels(part.source, how, part.rows, change=change)

    rows = [encoded(models.trained), encoded(models.random), pixels(None)]
    rows += [pixels(controls.mean_frame), pixels(controls.frame_difference)] if clips else []
    return dict(zip(table.ROWS + table.CLIP_ROWS, rows, strict=False))


def _settings(options: EvalOptions, config: Mapping[str, Any], device: torch.device) -> Settings:
    """The attentive probe's; it has the encoder's heads where nobody says otherwise."""
    o, own = options, (config.get("encoder") or {}).get("heads")
    return Settings(
        o.probe_depth, o.probe_heads or own, o.probe_epochs, o.probe_batch, o.probe_lr, o.probe_wd, o.probe_seed, device
    )


def _about(models: Models, division: Division, config: Mapping[str, Any], options: EvalOptions) -> dict[str, Any]:
    return {
        "run": config.get("run"),
        "recipe": config.get("recipe"),
        "seed": config.get("seed"),
        "step": models.step,
        "weights": options.weights,
        "label": options.label,
        "classes": division.classes,
        "precision": options.precision,
        "clips": options.clips,
        "views": options.views,
        "across": options.probe_across,
        "view": {key: config["data"][key] for key in ("size", "mean", "std")},
        "time": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _data(division: Division, fit_skipped: tuple[str, ...], test_skipped: tuple[str, ...]) -> dict[str, Any]:
    return {
        "fit": {"text": division.fit.text, "samples": len(division.fit.rows), "skipped": list(fit_skipped)},
        "test": {"text": division.test.text, "samples": len(division.test.rows), "skipped": list(test_skipped)},
    }


def _typed(key: str, value: Any, wanted: Any) -> Any:
    """A value of the type of its option; words of the command line become numbers."""
    if value in (None, "null", "none") and "None" in str(wanted):
        return None
    if "tuple" in str(wanted):
        words = value.strip("[]()").split(",") if isinstance(value, str) else value
        words = words if isinstance(words, list | tuple) and words else [words]
        return tuple(_typed(key, word, float) for word in words)
    if wanted is bool:
        if str(value).lower() not in ("true", "false"):
            raise ConfigError(f"{key}={value}: it must be true or false")
        return str(value).lower() == "true"
    kind = next(kind for kind in (int, float, str) if kind.__name__ in str(wanted))
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{key}={value}: it must be a {'whole ' if kind is int else ''}number") from None
