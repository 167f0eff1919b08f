"""jepakit: every Joint-Embedding Predictive Architecture is a line of configuration."""

import importlib
from typing import TYPE_CHECKING, Any

from jepakit.hookspecs import hookimpl as hookimpl

if TYPE_CHECKING:
    from jepakit.types import Batch as Batch
    from jepakit.types import Grid as Grid
    from jepakit.types import Guess as Guess
    from jepakit.types import Mask as Mask
    from jepakit.weights.model import load as load

__version__ = "0.1.0"

_LAZY = {name: "jepakit.types" for name in ("Batch", "Grid", "Guess", "Mask")} | {"load": "jepakit.weights.model"}


def __getattr__(name: str) -> Any:
    """Names that need torch are imported when they are used, so that the command line starts without it."""
    if name not in _LAZY:
        raise AttributeError(f"module 'jepakit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
