"""The matrix, and a few steps of everything in it that is not refused: ``python -m tests.matrix.whole OUT``.

A process of its own, in which shapes are not checked at every call as they are in the tests: it takes a third of the
time, and says what a person is told.
"""

import itertools
import pickle
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from jepakit import matrix
from jepakit.matrix import Combination, Trial
from jepakit.plugins import discover
from tests.matrix.training import trained


class Whole(NamedTuple):
    """What became of every strategy, and of pairs of them; and what was wrong with the training of some."""

    alone: list[Trial]
    beside: list[Trial]
    wrong: dict[Combination, str]


def whole() -> Whole:
    """On pictures every combination there is. On clips those of each tokenizer, encoder, masker and predictor with one
    strategy, each in its turn; and with every strategy where pictures do not work and clips do."""
    found, wrong = discover(), {}
    names = matrix.axes(found)

    def through(asked: Iterable[Combination], trials: Iterator[Trial] | None = None) -> Iterator[Trial]:
        for trial in trials or matrix.build_all(found, iter(asked)):
            if trial.built and (fault := _trained(trial)):
                wrong[trial.combination] = fault
            yield trial._replace(built=None)

    alone = list(through(matrix.combinations(names | {"data": ["pictures"]})))
    working = {trial.combination[1:-1] for trial in alone if trial.works}
    turns = itertools.cycle(names["anti_collapse"])
    some = matrix.combinations(names | {"data": ["clips"], "anti_collapse": [""]})
    clips = list(through(each._replace(anti_collapse=next(turns)) for each in some))
    only = [trial.combination for trial in clips if trial.works and trial.combination[1:-1] not in working]
    every = itertools.product(only, names["anti_collapse"])
    rest = (each._replace(anti_collapse=name) for each, name in every if name != each.anti_collapse)
    alone += [*clips, *through(rest)]
    return Whole(alone, list(through((), matrix.together(found, alone))), wrong)


def _trained(trial: Trial) -> str:
    try:
        return trained(trial)
    except Exception as error:  # whatever a part may raise, it is told which combination it was
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(sys.argv[1]).write_bytes(pickle.dumps(tuple(whole())))
