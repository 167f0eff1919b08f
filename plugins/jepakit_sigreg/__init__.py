"""Features are held to an isotropic Gaussian, seen from random directions; no teacher is needed.

Paper: LeJEPA (arXiv 2511.08544), whose regularisation is called SIGReg. Written from the paper; statistic, knots and
weights are those of its released code.
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.anti_collapse("sigreg", "jepakit_sigreg.sigreg:Sigreg")
