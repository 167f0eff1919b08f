"""A source of which one sample hangs, or takes its process with it: a plugin, made for the tests beside it."""

import os
import signal
import time
from typing import Any

import torch

import jepakit


class Stubborn:
    """Noise; what sample ``at`` does is ``way``."""

    channels = 3

    def __init__(self, way: str = "sleep", at: int = 5, length: int = 40, side: int = 16):
        self.way, self.at, self.length, self.side = way, at, length, side
        self.classes: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, int | float]]:
        if index == self.at:
            getattr(self, self.way)()
        rng = torch.Generator().manual_seed(index)
        return torch.randint(256, (3, 1, self.side, self.side), dtype=torch.uint8, generator=rng), {}

    def describe(self, index: int) -> str:
        """Its number."""
        return f"noise {index}"

    def sleep(self) -> None:
        """As Python code that waits for what never comes, and takes no exception for an answer."""
        while True:
            try:
                time.sleep(60)
            except Exception:
                continue

    def deaf(self) -> None:
        """As a call into C that never returns: no alarm comes through."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(60)

    def die(self) -> None:
        """As where memory runs out, or a decoder crashes."""
        os.kill(os.getpid(), signal.SIGKILL)

    def slow(self) -> None:
        """Longer than a look takes, and well within its time."""
        time.sleep(0.5)


@jepakit.hookimpl
def jepakit_register(registrar: Any) -> None:
    """The source."""
    registrar.source("stubborn", Stubborn)
