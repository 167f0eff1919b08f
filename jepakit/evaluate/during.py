"""Any protocol while training: on the target encoder as it is, without a trace in the run's numbers."""

import random
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from jepakit.catalog import collect
from jepakit.errors import DataError
from jepakit.evaluate import table
from jepakit.evaluate.entry import Asked, Table, read, table_of, tables


class Due(NamedTuple):
    """A table that is made again and again, and its data, opened once."""

    asked: Asked
    module: Table
    data: Any


class Line(NamedTuple):
    """What a table comes to: numbers by protocol, and the same in words, beside the controls."""

    scores: dict[str, float]
    words: list[str]


class During:
    """The tables of ``names``, each written into the run's folder like those of ``jepakit eval``.

    Args:
        config: the run's.
        folder: where it lies.
        model: that is trained.
        names: of protocols; of none there is nothing to do.
        limit: fit samples and test samples of each, at most.

    Raises UserError, before anything is trained, for protocols that there are not or that the data has nothing for.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        model: nn.Module,
        device: torch.device,
        names: Sequence[str],
        limit: int | None,
    ):
        self.folder, self.due = folder, []
        if not names:
            return
        words = {"protocol": list(names), "limit": limit, "device": str(device)}
        words["precision"] = config["trainer"]["precision"] if device.type == "cuda" else "fp32"
        common, protocols, _ = read(words, collect())
        with aside():
            for together in tables(protocols):
                asked, module = Asked(folder, dict(config), common, together, {}, during=True), table_of(together)
                self.due.append(Due(asked, module, module.opened(asked, model)))

    def __call__(self, model: nn.Module, step: int) -> list[Line]:
        """Score the model at ``step``. A protocol that refuses its features has no number, and says why."""
        with aside():
            return [self._line(due, model, step) for due in self.due]

    def _line(self, due: Due, model: nn.Module, step: int) -> Line:
        names = [each.name for each in due.asked.protocols]
        try:
            outcome = due.module.scored(due.asked, due.module.live(due.asked, model, step), due.data)
        except DataError as error:
            return Line({name: float("nan") for name in names}, [f"{', '.join(names)}: no score: {error}"])
        table.write(outcome, self.folder, "+".join(names))
        return Line({name: outcome["rows"][0][name]["score"] for name in names}, [_said(n, outcome) for n in names])


def _said(name: str, outcome: Mapping[str, Any]) -> str:
    trained, *controls = outcome["rows"]
    beside = ", ".join(f"{each['name']} {each[name]['score']:.3f}" for each in controls)
    cell = trained[name]
    ends = "" if cell.get("low") is None else f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    return f"{name} {cell['score']:.3f}{ends}; {beside}"


@contextmanager
def aside() -> Any:
    """Put back every global random state, whatever is done inside."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
