"""What goes with what: every combination of the registered components, built at tiny size or refused with the reason.

A combination is a kind of data, one component of each kind, and one strategy or several (``ema+vicreg``). It is built
as a run would build it, with one step rehearsed. Components have the arguments of their class attribute ``tiny``
(``tiny = {"width": 24, "depth": 1}``), and their defaults where it has none: what they make of ``SIZE`` pixels and
``BATCH`` samples. So what is registered by anyone is in the matrix by itself. A component that can be set up in several
ways is in it as ``tiny`` has it.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from jepakit.build import Built, build
from jepakit.catalog import Root
from jepakit.errors import ConfigError, first_line, nearest
from jepakit.options import DataOptions
from jepakit.plugins import Component, Plugins

SIZE, BATCH = 32, 4
DATA = {"pictures": {}, "clips": {"frames": 4}}
"""Kinds of data, and what sets them apart."""

BACKBONE = ("tokenizer", "masker", "encoder")
"""What these refuse they refuse before anyone else is asked, so that it holds for every predictor and strategy."""


class Combination(NamedTuple):
    """Names of a kind of data and of components; of several strategies with ``+`` between."""

    data: str
    tokenizer: str
    encoder: str
    masker: str
    predictor: str
    anti_collapse: str

    def __str__(self) -> str:
        return " ".join(f"{kind}={name}" for kind, name in zip(KINDS, self, strict=True))


KINDS = Combination._fields


class Trial(NamedTuple):
    """A combination that was built, or ``who`` refused it and why."""

    combination: Combination
    built: Built | None = None
    who: str = ""
    reason: str = ""

    @property
    def works(self) -> bool:
        return not self.reason


def axes(found: Plugins, only: Mapping[str, Sequence[str]] | None = None) -> dict[str, list[str]]:
    """Names by kind: all that are registered, of the kinds in ``only`` those that it lists.

    Raises:
        ConfigError: for a kind or a name that there is not.
    """
    every = {kind: list(DATA) if kind == "data" else found.names(kind) for kind in KINDS}
    for kind, names in (only or {}).items():
        if kind not in KINDS:
            raise ConfigError(f"the matrix has no {kind!r}{nearest(kind, KINDS)}; it has: {', '.join(KINDS)}")
        for name in names:
            if name not in every[kind]:
                there = f"{nearest(name, every[kind])}; there are: {', '.join(every[kind])}"
                raise ConfigError(f"no {kind} is named {name!r}{there}")
        every[kind] = [name for name in every[kind] if name in names]
    return every


def combinations(names: Mapping[str, Sequence[str]]) -> Iterator[Combination]:
    """All of them, those with the same backbone and masker one after the other."""
    return itertools.starmap(Combination, itertools.product(*(names[kind] for kind in KINDS)))


def build_all(found: Plugins, asked: Iterator[Combination]) -> Iterator[Trial]:
    """Build each that is asked for. Where a part of the backbone or the masker has refused, the same data, tokenizer,
    encoder and masker are not built with other predictors and strategies: it refuses them all."""
    refused: dict[tuple[str, ...], Trial] = {}
    for each in asked:
        begun = each[: KINDS.index("predictor")]
        if begun in refused:
            yield refused[begun]._replace(combination=each)
            continue
        trial = build_one(found, each)
        if trial.who.partition(" ")[0] in BACKBONE:
            refused[begun] = trial
        yield trial


def together(found: Plugins, alone: Sequence[Trial]) -> Iterator[Trial]:
    """Two strategies against collapse beside each other, every pair of them once: in the first combination in which
    each of them works alone."""
    working = [each.combination for each in alone if each.works]
    for one, other in itertools.combinations(dict.fromkeys(each.combination.anti_collapse for each in alone), 2):
        fits = {each[:-1] for each in working if each.anti_collapse == other}
        places = (each for each in working if each.anti_collapse == one and each[:-1] in fits)
        if (place := next(places, None)) is not None:
            yield build_one(found, place._replace(anti_collapse=f"{one}+{other}"))


def build_one(found: Plugins, combination: Combination) -> Trial:
    """Build one, as a run would."""
    try:
        return Trial(combination, build(configuration(found, combination)))
    except ConfigError as error:
        return Trial(combination, None, *_told(error))


def configuration(found: Plugins, combination: Combination) -> dict[str, Any]:
    """What a run would be configured with.

    Raises:
        ConfigError: where a component cannot be loaded, or its ``tiny`` is none.
    """
    options = asdict(Root(data=asdict(DataOptions(size=SIZE, batch_size=BATCH, workers=0))))
    options["data"] |= DATA[combination.data]
    for kind in ("tokenizer", "encoder", "masker", "predictor"):
        options[kind] = node(found.get(kind, getattr(combination, kind)))
    strategies = [found.get("anti_collapse", name) for name in combination.anti_collapse.split("+")]
    return options | {"anti_collapse": {each.name: node(each) for each in strategies}}


def node(component: Component) -> dict[str, Any]:
    """A component's node, with the arguments of its ``tiny``. Raises ConfigError where it has no such arguments."""
    tiny, known = getattr(component.load(), "tiny", {}), [each.name for each in component.arguments()]
    who = f"{component.kind} {component.name!r}"
    if not isinstance(tiny, Mapping):
        raise ConfigError(f"{who}: its attribute tiny is a {type(tiny).__name__}, it should be a dict of arguments")
    for name in tiny:
        if name not in known:
            raise ConfigError(f"{who}: its attribute tiny has {name!r}, which is no argument{nearest(name, known)}")
    return {"name": component.name, **tiny}


def _told(error: ConfigError) -> tuple[str, str]:
    """Who refused, and why."""
    line, cause = str(error), first_line(error.__cause__) if error.__cause__ else ""
    who, mark, reason = line.rpartition(f": {cause}") if cause else line.partition(": ")
    if not mark or (cause and reason):
        who, _, reason = line.partition(": ")
    return who.partition(" does not go with ")[0].partition(" (")[0], cause or reason or line
