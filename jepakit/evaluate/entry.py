"""``jepakit eval``: a finished or running training, its scores, and the controls beside them."""

import importlib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jepakit.catalog import Catalog, collect
from jepakit.evaluate import table
from jepakit.evaluate.protocol import LAYERS, MAPS, PAIRS, PIXELS, TOKENS, Protocol, chosen, made, positive, typed


@dataclass(frozen=True)
class EvalOptions:
    """What ``jepakit eval`` understands, beside ``run``, ``data.<key>`` and the settings of the protocols asked for."""

    protocol: tuple[str, ...] = ("all",)
    """Files of configs/protocol by name, or paths of others; all: those that take no time."""
    weights: Literal["target", "online"] = "target"
    """target (the teacher, where there is one) | online"""
    fit_root: str | None = None
    """Folder that the probe is fitted on; null: see ``data.divide``."""
    label: str | None = None
    """Label to predict; null: the protocol's, else class."""
    limit: int | None = 50_000
    """Fit samples and test samples that are looked at, at most; null: all."""
    clips: int = 1
    """Clips of each video, evenly spread over it."""
    views: int = 1
    """Views of each picture or clip: 1 from its centre, or several along its longer side, from end to end."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32 | bf16 (autocast)"""
    memory: float = 8.0
    """GiB that the features of the fit samples may take, and those of the test samples."""
    cache: float = 2.0
    """GiB of features that are kept in the run's folder, to be used again; 0: none."""

    def __post_init__(self) -> None:
        positive(self, "limit", "clips", "views", "memory")


class Asked(NamedTuple):
    """One table that is asked for: protocols that read the same, of one label, of one run."""

    run: Path
    config: dict[str, Any]
    options: EvalOptions
    protocols: list[Protocol]
    given: dict[str, Any]
    """Keys of the run's data that are others for the test data."""
    during: bool = False
    """While training: weights change all the time, and the console belongs to the training."""

    @property
    def label(self) -> str:
        """What is predicted."""
        return self.options.label or self.protocols[0].label or "class"


@typing.runtime_checkable
class Table(typing.Protocol):
    """A module that makes the tables of protocols that read alike."""

    def prepared(self, asked: Asked) -> tuple[Any, Any]: ...
    def live(self, asked: Asked, model: Any, step: int) -> Any: ...
    def opened(self, asked: Asked, model: Any) -> Any: ...
    def scored(self, asked: Asked, models: Any, data: Any) -> dict[str, Any]: ...
    def shown(self, outcome: dict[str, Any]) -> None: ...
    def drawn(self, asked: Asked, models: Any, data: Any, outcome: dict[str, Any]) -> list[Path]: ...


TABLES = {LAYERS: "probes", TOKENS: "probes", MAPS: "dense_entry", PIXELS: "finetune_entry", PAIRS: "flow_entry"}
"""Which module makes the table of protocols that read so."""


def command(run: Path, options: Mapping[str, Any], files: Sequence[Path] = ()) -> int:
    """Evaluate a run: print a table for all protocols that read alike, write it into the run folder, return 0.

    Args:
        run: the run folder.
        options: keys as on the command line, values plain: fields of ``EvalOptions``, settings of the protocols, and
            ``data``, the keys of the run's data that are others for the test data.
        files: plugins by path.

    Raises UserError (see ``jepakit.errors``) for whatever the person who asks can put right.
    """
    from jepakit.runs import open_run

    common, protocols, given = read(options, collect(files))
    config = open_run(Path(run)).config
    for number, together in enumerate(tables(protocols)):
        asked, module = Asked(Path(run), config, common, together, given), table_of(together)
        models, data = module.prepared(asked)
        outcome = module.scored(asked, models, data)
        path = table.write(outcome, Path(run), "+".join(outcome["protocols"]))
        print("\n" * bool(number), end="")
        module.shown(outcome)
        print(f"\nwritten to {path}")
        for picture in module.drawn(asked, models, data, outcome):
            print(picture)
    from jepakit.pictures.report import refresh

    if page := refresh(Path(run)):
        print(page)
    return 0


def table_of(together: Sequence[Protocol]) -> Table:
    """The module that makes the table of these protocols."""
    found: Any = importlib.import_module(f"jepakit.evaluate.{TABLES[together[0].reads]}")
    return found


def read(options: Mapping[str, Any], catalog: Catalog) -> tuple[EvalOptions, list[Protocol], dict[str, Any]]:
    """Typed options, the protocols with their settings, and the keys of ``data``.

    Raises ConfigError for what is unknown or of the wrong type.
    """
    hints = typing.get_type_hints(EvalOptions)
    rest = {key: value for key, value in options.items() if key not in hints and key != "data"}
    common = {key: typed(key, value, hints[key]) for key, value in options.items() if key in hints}
    settings = made(EvalOptions, common, "eval")
    return settings, chosen(catalog, settings.protocol, rest, list(hints)), dict(options.get("data") or {})


def tables(protocols: Sequence[Protocol]) -> list[list[Protocol]]:
    """Protocols that stand in one table: they read the same, of one label or one map."""
    found: dict[Any, list[Protocol]] = {}
    for each in protocols:
        found.setdefault((each.reads, each.label, each.kind * (each.reads == MAPS)), []).append(each)
    return list(found.values())
