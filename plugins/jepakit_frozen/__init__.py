"""Who answers where nothing moves slowly: a frozen copy, the backbone itself without gradient, or simply the backbone.

Papers: SALT (arXiv 2509.24317), whose teacher is frozen; SimSiam (arXiv 2011.10566), which stops the gradient and needs
no teacher. The last one, ``none``, is what collapses.
"""

from typing import Any

from jepakit import hookimpl


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.anti_collapse("frozen", "jepakit_frozen.frozen:Frozen")
    registrar.anti_collapse("stopgrad", "jepakit_frozen.own:StopGradient")
    registrar.anti_collapse("none", "jepakit_frozen.own:Nothing")
