"""Runs in this process, without the pictures that a finished run draws."""

import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pictures at the end of a run, and every signal handled as before."""
    import jepakit.train

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    monkeypatch.setattr(jepakit.train, "report", lambda *_: [])
    yield
    assert all(signal.getsignal(n) == before for n, before in handlers.items() if n != signal.SIGCHLD)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``at(7, act)`` calls ``act()`` once, in the middle of step 7 (steps are counted from 1)."""
    from jepakit.train import Trainer

    def arrange(step: int, act: Callable[[], Any]) -> None:
        original, done = Trainer.gradients, []

        @functools.wraps(original)
        def gradients(self: Any, *args: Any) -> Any:
            if self.step + 1 == step and not done:
                done.append(step)
                act()
            return original(self, *args)

        monkeypatch.setattr(Trainer, "gradients", gradients)

    return arrange


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[list, dict]]:
    """Log and last state of a run that nothing came in the way of; each configuration is run once."""
    from tests.train import tiny

    known: dict[str, tuple[list, dict]] = {}

    def run(**changes: Any) -> tuple[list, dict]:
        from jepakit import train

        if str(changes) not in known:
            made, folder = tiny.config(**changes), Path(tmp_path_factory.mktemp("undisturbed"))
            assert train.run(made, folder) == 0
            known[str(changes)] = tiny.lines(folder), tiny.saved(made, folder)[1]
        return known[str(changes)]

    return run
