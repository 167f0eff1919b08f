"""Tables of frozen features: pooled layers or all tokens, read once for all protocols that are asked for."""

import dataclasses
import datetime
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from jepakit.data.views import alone, middle_view, side_views
from jepakit.device import pick_device
from jepakit.errors import ConfigError
from jepakit.evaluate import cache, controls, features, table
from jepakit.evaluate.data import Division, Part, divide
from jepakit.evaluate.entry import Asked
from jepakit.evaluate.features import Extracted, Reading
from jepakit.evaluate.layers import layers
from jepakit.evaluate.protocol import TOKENS, Protocol


class Models(NamedTuple):
    """What is compared: the trained backbone and one as it was before training."""

    trained: nn.Module
    random: nn.Module
    step: int


def prepared(asked: Asked) -> tuple[Models, Division]:
    """Models of a run as it lies in its folder, and its data, which is opened first."""
    data = opened(asked)
    return loaded(asked), data


def opened(asked: Asked, model: Any = None) -> Division:
    """What is fitted on and what is tested on."""
    return divide(asked.config, asked.given, asked.options.fit_root, asked.label, asked.options.limit)


def loaded(asked: Asked) -> Models:
    """Of a run as it lies in its folder."""
    return load(asked.run, asked.config, asked.options.weights)


def live(asked: Asked, model: nn.Module, step: int) -> Models:
    """Of a training that goes on; nothing of ``model`` is changed."""
    from jepakit.build import build_backbone

    trained: Any = model.target_backbone if asked.options.weights == "target" else model.backbone
    return Models(trained, build_backbone(asked.config)[0], step)


def drawn(asked: Asked, models: Models, data: Division, outcome: dict[str, Any]) -> list[Path]:
    """No pictures."""
    return []


def load(run: Path, config: Mapping[str, Any], weights: str) -> Models:
    """The newest checkpoint's backbone, and one freshly initialised from the run's seed."""
    from jepakit.build import build_backbone
    from jepakit.checkpoint import load_newest_model

    jepa, step = load_newest_model(run, config)
    trained = jepa.target_backbone if weights == "target" else jepa.backbone
    return Models(trained, build_backbone(config)[0], step)


def scored(asked: Asked, models: Models, division: Division) -> dict[str, Any]:
    """The whole result: the rows, a column for each protocol, and what has to be known to read them."""
    o, config = asked.options, asked.config
    device = pick_device(o.device)
    whole = asked.protocols[0].reads == TOKENS
    protocols = [_fitted(each, config) for each in asked.protocols]
    reading = Reading(config["data"], device, o.precision, asked.label, o.memory, alone=alone(config))
    readings = _readings(reading, division, asked)
    clips = features.moving(division.test.source, reading, division.test.rows)
    rows, skipped = [], ((), ())
    kept = cache.Cache(asked.run / "evaluate" / "features", o.cache)
    for name, reader in _readers(models, whole, clips, kept, asked.during).items():
        if not asked.during:
            print(f"{name}: reading {len(division.fit.rows):,} + {len(division.test.rows):,} samples", file=sys.stderr)
        fit, test = (reader(part, each) for part, each in zip(division[:2], readings, strict=True))
        rows.append(table.row(name, fit, test, division.classes, protocols, device))
        skipped = fit.skipped, test.skipped
    return table.result(rows, protocols, about(models, division, asked) | data_of(asked, division, *skipped))


def _fitted(protocol: Protocol, config: Mapping[str, Any]) -> Protocol:
    """An attentive probe has the encoder's heads where nobody says otherwise."""
    own = (config.get("encoder") or {}).get("heads")
    if getattr(protocol.settings, "heads", own) is not None or own is None:
        return protocol
    return protocol._replace(settings=dataclasses.replace(protocol.settings, heads=own))


def _readings(reading: Reading, division: Division, asked: Asked) -> tuple[Reading, Reading]:
    """How fit and test samples are looked at. Raises ConfigError for clips of data that has none to choose from.

    An attentive probe learns from one answer for each fit sample, and is asked for several of a test sample.
    """
    o, size = asked.options, reading.data["size"]
    across = getattr(asked.protocols[0].settings, "across", True)
    if o.clips > 1 and not all(hasattr(part.source, "several") for part in (division.fit, division.test)):
        raise ConfigError(
            f"clips={o.clips}: the data has one of each sample; data=video chooses several, views= looks at parts"
        )
    test = reading._replace(views=side_views(size, o.views), clips=o.clips, across=across)
    if asked.protocols[0].reads != TOKENS:
        return test, test
    return test._replace(views=(middle_view(size, o.views),), clips=o.clips if across else 1), test


def _readers(
    models: Models, whole: bool, clips: bool, kept: cache.Cache, during: bool
) -> dict[str, Callable[[Part, Reading], Extracted]]:
    """How each row of the table gets its features: vectors for each sample, or ``whole``, all tokens.

    Features of weights that change all the time are not kept.
    """
    read, what = (features.tokens, "tokens") if whole else (layers, "layers")

    def encoded(backbone: nn.Module, kept: cache.Cache) -> Callable[[Part, Reading], Extracted]:
        own = cache.weights(backbone) if kept.limit else ""
        return lambda part, how: kept(
            cache.key(what, part, how, own), lambda: read(backbone.to(how.device), part.source, how, part.rows)
        )

    def pixels(change: features.Change | None) -> Callable[[Part, Reading], Extracted]:
        if whole:
            return lambda part, how: controls.pixel_tokens(models.trained, part.source, how, part.rows, change)
        return lambda part, how: features.raw_pixels(part.source, how, part.rows, change=change)

    own = kept._replace(limit=0.0) if during else kept
    rows = [encoded(models.trained, own), encoded(models.random, kept), pixels(None)]
    rows += [pixels(controls.mean_frame), pixels(controls.frame_difference)] if clips else []
    return dict(zip(table.ROWS + table.CLIP_ROWS, rows, strict=False))


def about(models: Models, division: Division, asked: Asked) -> dict[str, Any]:
    """What a result says of the run, the weights, and how samples were looked at."""
    o, config = asked.options, asked.config
    return {
        **{key: config.get(key) for key in ("run", "recipe", "seed")},
        "step": models.step,
        "weights": o.weights,
        "label": asked.label,
        "classes": division.classes,
        "precision": o.precision,
        "clips": o.clips,
        "views": o.views,
        "across": getattr(asked.protocols[0].settings, "across", True),
        "view": {key: config["data"][key] for key in ("size", "mean", "std")},
        "time": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def data_of(asked: Asked, division: Division, *skipped: tuple[str, ...]) -> dict[str, Any]:
    """What a result says of its fit and test samples, and of those that could not be read."""
    more = {"fit": {"root": asked.options.fit_root}}
    more["test"] = {"given": {key: str(value) for key, value in asked.given.items()}}
    return {
        name: {"text": part.text, "samples": len(part.rows), "skipped": list(left), **more[name]}
        for name, part, left in zip(("fit", "test"), division[:2], skipped, strict=True)
    }


def shown(outcome: dict[str, Any]) -> None:
    """Print the table."""
    table.show(outcome)
