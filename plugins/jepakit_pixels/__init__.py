"""The pixels of a view answer: every token's patch, normalised by its own mean and standard deviation.

Papers: MAE (arXiv 2111.06377), whose targets these are; I-JEPA (arXiv 2301.08243), Table 7, which compares them with a
teacher's features.
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.anti_collapse("pixels", "jepakit_pixels.pixels:Pixels")
