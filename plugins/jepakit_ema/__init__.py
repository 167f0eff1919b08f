"""A slow copy of the backbone answers; no gradient reaches it.

Papers: BYOL (arXiv 2006.07733), I-JEPA (arXiv 2301.08243), V-JEPA (arXiv 2404.08471). As in the released I-JEPA code,
the momentum grows linearly with the step, and the answers are layer-normed over their channels without a learned
scale. What differs: parameters move by multi-tensor operations, and the copy is made once tokenizer and encoder are
built (the released patch embedding is part of the encoder).
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.anti_collapse("ema", "jepakit_ema.ema:Ema")
