"""Any model of timm as an encoder of whole pictures, with an expander where the method has one.

Papers: VICReg (arXiv 2105.04906) and VICRegL (arXiv 2210.01571), whose expanders these are; LeJEPA (arXiv 2511.08544).
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.tokenizer("whole", "jepakit_timm.whole:Whole")
    registrar.encoder("timm", "jepakit_timm.encoder:TimmEncoder")
    registrar.predictor("identity", "jepakit_timm.identity:Identity")
    registrar.predictor("projector", "jepakit_timm.projector:Projector")
    registrar.predictor("neighbours", "jepakit_timm.neighbours:Neighbours")
