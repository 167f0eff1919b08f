"""A plugin by its file: variance and covariance, the backbone answers for itself."""

from typing import Any

from jepakit import hookimpl
from tests.contracts.toys import Own


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.anti_collapse("answers_itself", Own)
