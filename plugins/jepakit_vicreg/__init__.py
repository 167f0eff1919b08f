"""Second moments keep features apart: variances are held up, covariances down, and no teacher is needed.

Papers: VICReg (arXiv 2105.04906), VICRegL (arXiv 2210.01571), Barlow Twins (arXiv 2103.03230), C-JEPA (arXiv
2410.19560), which adds VICReg to an I-JEPA. Where VICReg's paper and its released code scale the terms differently, the
scaling is a setting. What is as released, and what differs, stands in the README beside this file.
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.anti_collapse("vicreg", "jepakit_vicreg.vicreg:Vicreg")
    registrar.anti_collapse("vicregl", "jepakit_vicreg.vicregl:Vicregl")
    registrar.anti_collapse("barlow", "jepakit_vicreg.barlow:Barlow")
