"""Someone else's step, in a Python file, timed as ours is."""

import contextlib
import copy
import importlib.util
import itertools
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from jepakit.bench.sides import Side
from jepakit.bench.split import Now, Split, clock
from jepakit.errors import ConfigError, UserError, first_line

SHAPE = "a function prepare(config, device, part) that returns step(number) -> samples"
"""What such a file has."""


@contextlib.contextmanager
def of_file(
    path: Path, config: Mapping[str, Any], device: torch.device, now: Now = time.perf_counter
) -> Iterator[Side]:
    """``path`` is a Python file with a function ``prepare(config, device, part)``.

    It is given the configuration that it is timed beside, and returns ``step(number) -> samples``; within it ``with
    part("backward"):`` says what belongs to a part, see ``split.PARTS``. Raises ConfigError where it has no such
    function, and for whatever fails in it, with the line of the file.
    """
    split, numbers = Split(clock(device, now)), itertools.count()
    prepare = getattr(_module(path), "prepare", None)
    if not callable(prepare):
        raise ConfigError(f"against={path}: it has no function prepare(config, device, part)")
    prepared = _call(path, prepare, copy.deepcopy(dict(config)), device, split)
    if not callable(prepared):
        raise ConfigError(f"against={path}: prepare returned {prepared!r}; there must be {SHAPE}")

    def step() -> int:
        with split.step():
            samples = _call(path, prepared, next(numbers))
        if not isinstance(samples, int) or samples < 1:
            raise ConfigError(f"against={path}: a step returned {samples!r}, not the number of its samples")
        return samples

    yield Side(str(path), step, split, device, config, now=now)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"jepakit_bench_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"against={path}: there is no such Python file")
    module = importlib.util.module_from_spec(spec)
    _call(path, spec.loader.exec_module, module)
    return module


def _call(path: Path, call: Callable[..., Any], *args: Any) -> Any:
    """Whatever fails in their file is told in one line, with where that was."""
    try:
        return call(*args)
    except UserError:
        raise
    except Exception as error:
        lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
        lines += [error.lineno] if isinstance(error, SyntaxError) else []
        where = f", line {lines[-1]}" if lines else ""
        said = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f"against={path}{where}: {said}; there must be {SHAPE}") from error
