"""``jepakit features``: frozen features of a folder of pictures or videos, or of any source, in one safetensors file.

    features       n D; with pool=none n N D; float32
    index          n, the numbers of the samples in their source
    label.<name>   n, one for each label that the source has

Its metadata hold the rest, each entry as JSON: ``paths`` of the samples in order (below ``root``), ``classes`` of the
labels, ``skipped`` (what could not be read, and why), ``encoder``, ``grid`` and ``preprocessing``.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from jaxtyping import Float, Int
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from jepakit.catalog import collect
from jepakit.config import assignments, resolve
from jepakit.data import open_source, read_options
from jepakit.data.loader import evaluation_batches
from jepakit.data.views import RESIZE_FOR
from jepakit.device import autocast, pick_device
from jepakit.errors import ConfigError, DataError, nearest
from jepakit.evaluate.data import override
from jepakit.evaluate.features import WORKERS_PAY, Reading, pool, samples
from jepakit.protocols import Source
from jepakit.runs import open_run
from jepakit.weights.model import Frozen, load
from jepakit.weights.rows import Rows, beside, room


@dataclass
class FeatureOptions:
    """What ``jepakit features`` understands, beside ``data`` and ``data.<key>``."""

    run: str | None = None
    """Run folder whose encoder it is; without ``data.<key>`` also whose pictures."""
    file: str | None = None
    """In place of ``run``: a file of any format that ``jepakit inspect`` can name."""
    out: str | None = None
    """The file that is written."""
    weights: str = "target"
    """target (the teacher, where there is one) | online"""
    pool: str = "mean"
    """mean: one vector a picture, as evaluations see it | none: all tokens of the last layer"""
    size: int | None = None
    """Side of the pictures, in pixels; null: as in training."""
    heads: int | None = None
    """Attention heads, for a foreign file that does not say it."""
    limit: int | None = None
    """Samples, at most, drawn from a fixed permutation; null: all."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N"""
    precision: str = "fp32"
    """fp32 | bf16 (autocast)"""


CHOICES = {"weights": ("target", "online"), "pool": ("mean", "none"), "precision": ("fp32", "bf16")}
OWNED = ("size", "mean", "std")
"""Keys of ``data`` that belong to the encoder."""
CLIP = ("frames", "stride", "fps")
"""Keys of ``data`` that say which clip is taken of a video: the encoder's, where nothing else is asked for."""
BAD_SHARE, BAD, REASON = 0.01, 1000, 256
"""There is room in the file for as many reasons of so many bytes: a share of the samples, and a number beside."""


class Part(NamedTuple):
    """A batch's readable samples, and a line for each of the others."""

    images: Float[Tensor, "n C T H W"]
    rows: Int[Tensor, "n"]
    labels: dict[str, Tensor]
    skipped: list[str]


def command(argv: list[str], files: list[Path]) -> int:
    """Write the features that a command line asks for; returns 0.

    Raises UserError for what the person who asks can put right. ``out`` is whole, or it is not there.
    """
    collect(files)
    options, given = read_command(argv)
    out = free(options.out)
    options.device = str(pick_device(options.device))
    path = options.run or options.file or ""
    encoder = load(path, options.weights, options.size, options.device, options.heads)
    data = override(_config(options, encoder), given)
    source = open_source(data)
    reading = Reading(data | {key: encoder.data[key] for key in OWNED}, options.device, options.precision)
    rows = samples(len(source), options.limit)
    for line in write(out, encoder, source, reading, rows, options.pool):
        print(line)
    return 0


def read_command(argv: list[str]) -> tuple[FeatureOptions, dict[str, Any]]:
    """Typed options, and the keys of ``data``. Raises ConfigError for what is unknown, missing or of a wrong type."""
    words = assignments(argv)
    given = {key.partition(".")[2] or "name": words.pop(key) for key in list(words) if key.split(".")[0] == "data"}
    known = [each.name for each in fields(FeatureOptions)]
    for key in words:
        if key not in known:
            raise ConfigError(f"unknown option {key!r}{nearest(key, known)}; known: {', '.join(known)}, data.<key>")
    for key in OWNED:
        if key in given:
            way = ": write size=N" if key == "size" else ""
            raise ConfigError(f"data.{key} has no place here, it belongs to the encoder{way}")
    try:
        made: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(FeatureOptions), words))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    for key, allowed in CHOICES.items():
        if (value := getattr(made, key)) not in allowed:
            raise ConfigError(f"unknown {key} {value!r}{nearest(value, allowed)}; known: {', '.join(allowed)}")
    if bool(made.run) == bool(made.file):
        raise ConfigError("features needs an encoder: run=FOLDER, or file=FILE (one of them)")
    if made.limit is not None and made.limit < 1:
        raise ConfigError(f"limit={made.limit}: it must be above 0")
    return made, given


def free(name: str | None) -> Path:
    """Where features may be written. Raises ConfigError for a name that is taken, or in no folder."""
    out = Path(name or "")
    if out.suffix != ".safetensors":
        raise ConfigError(
            f"features are written to a .safetensors file: {f'not out={name}' if name else 'give out=FILE'}"
        )
    if out.exists():
        raise ConfigError(f"out={name}: it is there already; name another")
    if not out.parent.is_dir():
        raise ConfigError(f"out={name}: there is no folder {out.parent}")
    return out


def write(
    out: Path, encoder: Frozen, source: Source, reading: Reading, rows: Int[Tensor, "n"], pooling: str = "mean"
) -> list[str]:
    """Write the features of the samples ``rows``; returns what there is to say of the file.

    Raises DataError where none can be read, the disk is too small, or ``out`` cannot be written.
    """
    about = describe(encoder, source, reading, pooling)
    kept: list[Part] = []
    skipped: dict[str, None] = {}
    file: Rows | None = None
    with beside(out) as stream:
        for part in parts(source, reading, rows):
            skipped |= dict.fromkeys(part.skipped)
            if not len(part.rows):
                continue
            x = compute(encoder, part.images, reading.precision, pooling)
            about["grid"] = list(encoder.backbone.grid(part.images))
            file = file or _begun(stream, out, x, part, about | {"paths": _paths(source, rows, about["root"])})
            file.add(x)
            kept.append(part._replace(images=part.images[:0], skipped=[]))
        if file is None:
            raise DataError(f"none of {len(rows)} samples can be read; first: {next(iter(skipped), '')}")
        index = torch.cat([part.rows for part in kept])
        labels = {f"label.{name}": torch.cat([part.labels[name] for part in kept]) for name in kept[0].labels}
        about |= {"paths": _paths(source, index, about["root"]), "skipped": list(skipped)}
        file.finish({"index": index, **labels}, _json(about))
    return _said(out, file, encoder, list(skipped))


def parts(source: Source, reading: Reading, rows: Int[Tensor, "n"]) -> Iterator[Part]:
    """The samples ``rows`` batch by batch, in order, less those that cannot be read."""
    data = dict(reading.data)
    if data.get("workers") is None and len(rows) < WORKERS_PAY:
        data["workers"] = 0
    batches = evaluation_batches(source, data, reading.device, rows.tolist())
    for wanted, batch in zip(rows.split(read_options(data).batch_size), batches, strict=True):
        good = batch.index == wanted
        skipped = [f"{bad['path']}: {bad['reason']}" for bad in batch.replaced if bad["index"] in wanted[~good]]
        labels = {name: _storable(values.cpu()[good]) for name, values in batch.labels.items()}
        yield Part(batch.views[0][good.to(reading.device)], wanted[good], labels, skipped)


def compute(encoder: Frozen, images: Float[Tensor, "n C T H W"], precision: str, pooling: str) -> Float[Tensor, "n *D"]:
    """Features on the CPU, float32: ``n D``, or all tokens of the last level, ``n N D``, where ``pooling`` is none."""
    with torch.inference_mode(), autocast(images.device, precision):
        features = encoder(images)
    last = features[-1] if isinstance(features, tuple) else features
    return (pool(features) if pooling == "mean" else last.float()).cpu()


def describe(encoder: Frozen, source: Source, reading: Reading, pooling: str) -> dict[str, Any]:
    """What there is to know of the features, but for the samples themselves and their grid."""
    view = f"short side to {int(encoder.size * RESIZE_FOR)} pixels, centre crop; a picture of this size as it is"
    return {
        "encoder": {**encoder.about, "precision": reading.precision},
        "pool": pooling,
        "layer": "last",
        "preprocessing": {key: reading.data[key] for key in (*OWNED, *CLIP) if key in reading.data} | {"view": view},
        "root": str(getattr(source, "root", "")),
        "classes": {name: list(values) for name, values in source.classes.items()},
    }


def _begun(stream: BinaryIO, out: Path, x: Tensor, first: Part, about: Mapping[str, Any]) -> Rows:
    """The file, once the first features show what it will hold. Raises DataError where the disk is too small."""
    count = len(about["paths"])
    spare = REASON * min(count, int(BAD + BAD_SHARE * count))
    free = room(count * (8 + 8 * len(first.labels)), _json(about), spare)
    needed = free + count * x[0].nbytes
    shape = " x ".join(map(str, (count, *x.shape[1:])))
    if (there := shutil.disk_usage(out.parent).free) < needed:
        raise DataError(f"out={out}: features {shape} take {needed:,} bytes, {there:,} are free")
    print(f"features {shape}, float32: {needed:,} bytes", file=sys.stderr)
    return Rows(stream, "features", free)


def _config(options: FeatureOptions, encoder: Frozen) -> dict[str, Any]:
    """The configuration that ``data.<key>`` changes: the run's; for a file that of a folder of pictures or videos."""
    if options.run:
        return open_run(Path(options.run)).config
    if encoder.frames == 1:
        return resolve(["data=folder"], complete=False)
    config = resolve(["data=video"], complete=False)
    return config | {"data": config["data"] | {key: encoder.data[key] for key in CLIP if key in encoder.data}}


def _paths(source: Source, rows: Int[Tensor, "n"], root: str) -> list[str]:
    below = root.rstrip(os.sep) + os.sep
    return [source.describe(i).removeprefix(below) for i in rows.tolist()]


def _storable(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values.long()


def _json(about: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, default=str) for key, value in about.items()}


def _said(out: Path, file: Rows, encoder: Frozen, skipped: list[str]) -> list[str]:
    shape = " x ".join(map(str, (file.count, *file.shape)))
    said = [f"written to {out}: features {shape} ({encoder.about['weights']} weights of {encoder.about['from']})"]
    if skipped:
        said.append(f"{len(skipped)} samples could not be read and are left out; first: {skipped[0]}")
    return said
