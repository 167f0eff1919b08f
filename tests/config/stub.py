"""A plugin in one file, as --plugin takes it: small components, so that tests do not hang on the real ones."""

from typing import Any, Literal

from jepakit import hookimpl


class Shelf:
    def __init__(self, root: str, clip: int = 1): ...


class Stripes:
    def __init__(
        self, width: int = 2, share: tuple[float, float] = (0.2, 0.4), way: Literal["rows", "columns"] = "rows"
    ): ...


class Still:
    def __init__(self, pull: float = 0.9): ...


class Apart:
    def __init__(self, push: float = 25.0): ...


@hookimpl
def jepakit_register(registrar: Any) -> None:
    registrar.source("shelf", Shelf)
    registrar.masker("stripes", Stripes)
    registrar.anti_collapse("still", Still)
    registrar.anti_collapse("apart", Apart)
