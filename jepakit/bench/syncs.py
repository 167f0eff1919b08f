"""Where a step waits for the GPU: until all that was asked of it is done, nothing more can be asked."""

import contextlib
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from jepakit.bench.sides import Side

SAID = "called a synchronizing CUDA operation"
"""What PyTorch says of each, where it is asked to."""
PASSED = (Path(torch.__file__).parent, Path(__file__).parent)
"""Whose lines are none of a step's own: PyTorch's, which others call, and those of what measures."""


def waits(side: Side) -> dict[str, int] | None:
    """How often one more step, which is not timed, waits for its GPU, by the line that makes it; None on a CPU, which
    is there at once. Those of the backward pass, which are in threads of their own, are its call's."""
    if side.device.type != "cuda":
        return None
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with side.own(), noted() as found:
            side._step()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    side.split.taken()
    return dict(found)


@contextlib.contextmanager
def noted() -> Iterator[Counter[str]]:
    """Counts what PyTorch says of waiting, by the line that it is said of, and says nothing of it."""
    found: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        said = warnings.showwarning

        def note(message: Any, *about: Any, **more: Any) -> None:
            if SAID not in str(message):
                said(message, *about, **more)
            else:
                found[_place()] += 1

        warnings.showwarning = note
        yield found


def _place() -> str:
    """The innermost line of the step's own that is on its way."""
    frames = traceback.extract_stack()
    warned = [frame.name for frame in frames].index("_showwarnmsg")  # Python's own, above what it was told of
    for frame in reversed(frames[:warned]):
        path = Path(frame.filename)
        if not any(path.is_relative_to(each) for each in PASSED):
            return f"{path.parent.name}/{path.name}:{frame.lineno}"
    return "elsewhere"
