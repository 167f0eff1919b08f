"""A plugin by file, for runs of the tests: no pictures at the end, and in a worker what QUIET asks for.

``QUIET=data@3``: the second process finds bad data in step 3; ``QUIET=bug@3``: it makes a mistake there.
"""

import functools
import os

import jepakit

WORKERS = ("RANK", "SLURM_PROCID", "SUBMITIT_EXECUTOR")


class Nobody:
    """Brought so that this is a plugin."""


@jepakit.hookimpl
def jepakit_register(registrar):
    registrar.masker("nobody", Nobody)
    if any(name in os.environ for name in WORKERS):  # what only composes needs no torch
        import jepakit.train

        jepakit.train.report = lambda *_: []
        _disturb(jepakit.train.Trainer, *os.environ.get("QUIET", "").partition("@")[::2])


def _disturb(trainer, how: str, step: str) -> None:
    original = trainer.train_step

    @functools.wraps(original)
    def train_step(self, taken):
        if how and self.step + 1 == int(step) and os.environ["RANK"] == "1":
            raise jepakit.errors.DataError("a shelf is empty") if how == "data" else ZeroDivisionError("by nobody")
        return original(self, taken)

    trainer.train_step = train_step
