"""In which settings runs differ."""

from collections.abc import Sequence
from typing import Any

from jepakit.evaluate.recorded import Recorded
from jepakit.evaluate.sheet import Part, text

MOST = 4
"""Settings that have a column; where runs differ in more, the others are listed below the table."""

ASIDE = (
    *("evaluate.", "data.workers", "trainer.device", "trainer.threads", "trainer.log_every"),
    *("trainer.checkpoint_every", "trainer.keep", "trainer.verify", "trainer.max_skips"),
)
"""Settings (or their beginnings) that never have one: a run is not another one for them."""


def differences(found: Sequence[Recorded]) -> Part:
    """A column for each setting in which runs differ; what belongs to one component among several is said below."""
    keys = list(dict.fromkeys(key for run in found for key in run.settings))
    differing = [key for key in keys if _differs(key, found)]
    shown = [key for key in differing if not key.startswith(ASIDE)][:MOST]
    listed = ((key, ", ".join(_setting(run, key) for run in found)) for key in differing if key not in shown)
    remarks = [f"also different: {key}: {values}" for key, values in listed]
    unequal = [key for key in keys if key not in differing and len({_setting(run, key) for run in found}) > 1]
    owners: dict[str, list[str]] = {}
    for run in found:
        own = ", ".join(f"{key}={_setting(run, key)}" for key in unequal if key in run.settings)
        owners.setdefault(own, []).append(run.name)
    remarks += [f"of {', '.join(names)} alone: {own}" for own, names in owners.items() if own]
    records = [{key: _setting(run, key) for key in differing + unequal if key in run.settings} for run in found]
    return Part(_shortened(shown), [[_setting(run, key) for key in shown] for run in found], records, remarks)


def _differs(key: str, found: Sequence[Recorded]) -> bool:
    """Whether runs of the same component differ in a setting; that other components have others is no news."""
    group = key.partition(".")[0]
    values: dict[Any, set[str]] = {}
    for run in found:
        if key in run.settings:
            component = run.settings.get(group) if key != group else None
            values.setdefault(component, set()).add(_setting(run, key))
    return any(len(each) > 1 for each in values.values())


def _setting(run: Recorded, key: str) -> str:
    return text(run.settings[key]) if key in run.settings else "-"


def _shortened(keys: Sequence[str]) -> list[str]:
    """The last two parts of each key, where that tells them apart."""
    short = [".".join(key.split(".")[-2:]) for key in keys]
    return [each if short.count(each) == 1 else key for each, key in zip(short, keys, strict=True)]
