"""Motion is what has to be known to predict the next frame: flow as the latent variable of a JEPA.

Papers: MC-JEPA (arXiv 2307.12698), whose estimator is ``pwc`` and after whose losses those here are named. No code was
released. From elsewhere: coarse-to-fine estimation from PWC-Net (arXiv 1709.02371), ``raft`` from RAFT (arXiv
2003.12039), the occlusion check and the census loss from UnFlow (arXiv 1711.07837), weights of smoothness by edges from
"What Matters in Unsupervised Optical Flow" (arXiv 2006.04902).
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.predictor("flow", "jepakit_flow.predictor:FlowPredictor")
