"""Scores of frozen features, always beside what needs no learning.

    Protocol, chosen                protocol.py, what a score means: the files configs/protocol/*.yaml
    extract, raw_pixels, layers     features.py, layers.py; kept and used again: cache.py
    knn, ridge, logistic            frozen.py
    linear                          linear.py, many heads at once, as the papers train them
    attentive                       attentive.py, a probe that looks at all tokens
    pixel_tokens                    controls.py, what there is to beat
    divide                          data.py, what is fitted on and what is tested on
    rows, remarks, the file         table.py
    Monitor                         monitor.py, a score while training
    command                         entry.py, ``jepakit eval``; its tables: probes.py, flow_entry.py
    compare                         compare.py, ``jepakit compare``: the one that needs no torch

Nothing of this changes the state of a training.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepakit.evaluate.entry import command as command
    from jepakit.evaluate.features import Extracted as Extracted
    from jepakit.evaluate.features import Reading as Reading
    from jepakit.evaluate.features import extract as extract
    from jepakit.evaluate.features import raw_pixels as raw_pixels
    from jepakit.evaluate.frozen import Vote as Vote
    from jepakit.evaluate.frozen import knn as knn
    from jepakit.evaluate.monitor import Monitor as Monitor

_LAZY = {"command": "entry", "Monitor": "monitor"}
_LAZY |= dict.fromkeys(("Extracted", "Reading", "extract", "raw_pixels"), "features")
_LAZY |= dict.fromkeys(("Vote", "knn"), "frozen")


def __getattr__(name: str) -> Any:
    """Names are imported when they are used: comparing what is written down needs no torch."""
    if name not in _LAZY:
        raise AttributeError(f"module 'jepakit.evaluate' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jepakit.evaluate.{_LAZY[name]}"), name)
