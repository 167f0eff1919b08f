"""``jepakit plan recipe=NAME gpus=16``: what a command line asks for. Mistakes in it are told without torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jepakit.catalog import Root
from jepakit.config import assignments, resolve
from jepakit.errors import ConfigError, nearest
from jepakit.launch import arguments
from jepakit.peaks import PEAKS, known

OWN: dict[str, Any] = {"gpus": 1, "per_machine": 8, "gpu": "h100", "memory": None, "mfu": 0.4, "network": 25.0}
"""Settings of the hardware with their defaults; that of ``gpus`` is ``trainer.devices``, of ``memory`` the device's.
Llama 3 was trained at an MFU of .38 to .43 (arXiv 2407.21783, table 4); a DGX A100 has 200 Gbit/s for each GPU."""
OTHERS = ("images", "strategy", "out")
WHOLE = ("gpus", "per_machine", "images")


def command(argv: Sequence[str], files: Sequence[Path] = ()) -> int:
    """Print a plan, and write it to ``out=FILE.json``. Returns 0.

    Raises ConfigError for a command line that cannot be meant, and for a configuration that cannot be built.
    """
    flags = arguments(argv)
    given, overrides = _own(flags.overrides)
    config = resolve(overrides, files, [Path(flags.config_dir)] if flags.config_dir else [], complete=False)
    numbers, out = _numbers(given, config), _file(given.get("out"))
    from jepakit.plan import estimate, page

    found = estimate.plan(config, estimate.Hardware(**numbers), given.get("images"))
    page.show(found, " ".join(overrides) or "the defaults")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        print(f"written to {out}")
    return 0


def _own(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Settings of a plan, and those of the configuration, of which ``strategy`` is one."""
    keys = (*OWN, *OTHERS)
    given = assignments([word for word in words if word.partition("=")[0] in keys])
    rest = [word for word in words if word.partition("=")[0] not in keys]
    top = {each.name for each in fields(Root)} | {"recipe"}
    for word in rest:
        key = word.partition("=")[0]
        if key.isidentifier() and key not in top:
            own = f"its own settings are: {', '.join(keys)}; all others are those of train"
            raise ConfigError(f"plan knows no {key!r}{nearest(key, [*keys, *top])}; {own}")
    for key in given:
        _check(key, given[key])
    return given, rest + [f"trainer.strategy={given[key]}" for key in given if key == "strategy"]


def _check(key: str, value: Any) -> None:
    """Raise ConfigError for a number that cannot be meant."""
    if key in WHOLE and (type(value) is not int or value < 1):
        raise ConfigError(f"{key}={value}: a whole number of at least 1 is needed")
    if key in ("memory", "mfu", "network") and (type(value) not in (int, float) or not 0 < value < float("inf")):
        raise ConfigError(f"{key}={value}: a number above 0 is needed")
    if key == "mfu" and value > 1:
        raise ConfigError(f"mfu={value}: it is a share of the device's peak, at most 1")


def _numbers(given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The hardware: what is given, else defaults. Raises ConfigError for a device that nobody knows the peak of."""
    name = str(given.get("gpu", OWN["gpu"]))
    device = known(name)
    if device is None:
        raise ConfigError(f"gpu={name}{nearest(name, PEAKS)} is not known; there are: {', '.join(PEAKS)}")
    own = {"gpus": config["trainer"]["devices"] or OWN["gpus"], "memory": PEAKS[device].memory}
    found = {key: given.get(key, own.get(key, default)) for key, default in OWN.items()}
    return found | {"gpu": device}


def _file(out: Any) -> Path | None:
    if out is not None and Path(str(out)).suffix != ".json":
        raise ConfigError(f"out={out}: what is written is JSON, give it a name that ends in .json")
    return None if out is None else Path(str(out))
