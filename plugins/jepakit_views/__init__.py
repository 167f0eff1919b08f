"""Masks of whole views: which view of a sample is asked about which others.

Papers: VICReg (arXiv 2105.04906), VICRegL (arXiv 2210.01571), LeJEPA (arXiv 2511.08544), MC-JEPA
(arXiv 2307.12698).
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.masker("pair", "jepakit_views.views:Pair")
    registrar.masker("mean", "jepakit_views.views:Mean")
    registrar.masker("next", "jepakit_views.views:Next")
    registrar.masker("itself", "jepakit_views.views:Itself")
