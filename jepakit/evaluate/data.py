"""Which samples a probe is fitted on, and which it is tested on."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from jepakit.data import open_source
from jepakit.errors import DataError
from jepakit.evaluate.features import check_label, samples, split
from jepakit.options import DataOptions
from jepakit.protocols import Source


class Part(NamedTuple):
    """Samples of a source, and one line that says where they come from."""

    source: Source
    rows: Int[Tensor, "n"]
    text: str


class Division(NamedTuple):
    """What to fit on and what to test on."""

    fit: Part
    test: Part
    classes: int


Names = Callable[[Source, str], tuple[str, ...]]
"""The values that a label of a source has, or the classes of a map; raises DataError where the source has it not."""


def divide(
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    fit_root: str | None,
    label: str,
    limit: int | None,
    names_of: Names = check_label,
) -> Division:
    """Test data: ``given`` if any, else the run's held-out data, else a part of its training data.

    The probe is fitted on ``fit_root``; without it, where another source is given that knows a held-out part, on that
    source, and tested on the part; else on the run's training data where its classes are those of the test
    data; otherwise on the larger part of a fixed split of the test data, and tested on the rest.

    Args:
        config: the run's configuration.
        given: keys of its ``data`` that the command line sets for the test data.
        label: that is predicted, by ``names_of`` a label or a map.
        limit: samples of each part, at most.

    Raises:
        DataError: unlabelled data, or fit and test data whose classes differ.
    """
    own = open_source(config["data"])
    test = open_source(override(config, given)) if given else held_out(own)
    whose = "the data given" if given else "the run's held-out data"
    if test is None:
        return _one(own, "the run's own training data, which has no held-out part", label, limit, names_of)
    if same(test, own) and not fit_root:  # the same samples, though what is drawn in them may be given anew
        return _one(test, f"{whose}, which is the run's own training data", label, limit, names_of)
    names = names_of(test, label)
    unseen = held_out(test) if given.get("name", config["data"]["name"]) != config["data"]["name"] else None
    if unseen is not None and not fit_root:
        return Division(_part(test, whose, limit), _part(unseen, f"{whose}, held out", limit), len(names))
    fit = open_source(override(config, {**given, "root": fit_root})) if fit_root else own
    if fit_root and names_of(fit, label) != names:
        raise DataError(f"fit_root={fit_root}: its classes are not those of the test data")
    if fit_root and same(fit, test):
        raise DataError(f"fit_root={fit_root} is the test data itself: leave it out for a split of the test data")
    if not _has(fit, label, names, names_of):
        return _one(test, f"{whose}, whose classes are not those of the training data", label, limit, names_of)
    source = "fit_root" if fit_root else "the run's training data"
    return Division(_part(fit, source, limit), _part(test, whose, limit), len(names))


def tested(config: Mapping[str, Any], given: Mapping[str, Any], limit: int | None) -> Part:
    """What is scored where nothing is fitted: ``given`` if any, else the run's held-out data, else its own."""
    if given:
        return _part(open_source(override(config, given)), "the data given", limit)
    own = open_source(config["data"])
    unseen = held_out(own)
    if unseen is None:
        return _part(own, "the run's own training data, which has no held-out part", limit)
    return _part(unseen, "the run's held-out data", limit)


def override(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The run's ``data`` with other keys. Another source starts from its own defaults, and ``root`` means a folder
    where the run's source has none. Raises ConfigError for keys that the source does not read.
    """
    from omegaconf import OmegaConf

    from jepakit.catalog import collect
    from jepakit.strict import check

    data, catalog = config["data"], collect()
    name = given.get("name", data["name"] if "root" in data or "root" not in given else "folder")
    start = dict(data) | ({"held_out": None} if "held_out" in data else {})
    if name != data["name"]:
        common = {field.name for field in dataclasses.fields(DataOptions)}
        schema = catalog.schema("data", catalog.plugins.get("source", name).name)
        defaults = OmegaConf.to_container(OmegaConf.structured(schema))
        start = defaults | {key: value for key, value in data.items() if key in common}
    return check(dict(config) | {"data": start | dict(given) | {"name": name}}, catalog)["data"]


def held_out(source: Source) -> Source | None:
    """The held-out part that a source knows of, if any."""
    known = getattr(source, "held_out_source", None)
    return known() if known else None


def same(a: Source, b: Source) -> bool:
    """Whether two sources hold the same samples, as far as their ends tell."""
    ends = (0, len(a) - 1)
    return len(a) == len(b) and all(os.path.realpath(a.describe(i)) == os.path.realpath(b.describe(i)) for i in ends)


def _has(source: Source, label: str, names: tuple[str, ...], names_of: Names) -> bool:
    try:
        return names_of(source, label) == names
    except DataError:
        return False


def _one(source: Source, whose: str, label: str, limit: int | None, names_of: Names) -> Division:
    names = names_of(source, label)
    rows = samples(len(source), None if limit is None else 2 * limit)
    fit, test = split(len(rows))
    share = "a fixed {:.0%} of " + whose
    parts = (
        Part(source, rows[part], _count(len(part), len(source), share.format(len(part) / len(rows))))
        for part in (fit, test)
    )
    return Division(*parts, len(names))


def _part(source: Source, whose: str, limit: int | None) -> Part:
    rows = samples(len(source), limit)
    return Part(source, rows, _count(len(rows), len(source), whose))


def _count(rows: int, of: int, whose: str) -> str:
    return f"{rows:,} samples" + (f" of {of:,}" if rows < of else "") + f", {whose}"
