"""Data: where samples come from, what happens to the pictures, and how they become batches.

    source[index] -> (picture, labels)    folder.py, world.py; pictures are decoded by decode.py
                                          video.py: clips.py says which frames, isolated.py has them decoded
                                          maps.py, clevr.py: pictures with truths that dense probes and others ask for
                                          pairs.py: two frames, and their optical flow; layouts.py finds the files
    view(picture) -> square               views.py
    Loader.batches(start, stop) -> Batch  loader.py
    bad samples -> quarantine.jsonl       quarantine.py; ``jepakit data check`` is check.py

Nothing here imports torch before a source is opened.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from jepakit.hookspecs import hookimpl
from jepakit.options import DataOptions

if TYPE_CHECKING:
    from jepakit.protocols import Source


class BadSample(Exception):
    """A sample that cannot be read. ``path`` says which one, ``reason`` why; its text is one line."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@hookimpl
def jepakit_register(registrar: Any) -> None:
    """The sources and the decoders that come with jepakit."""
    registrar.source("clevr", "jepakit.data.clevr:Clevr")
    registrar.source("folder", "jepakit.data.folder:Folder")
    registrar.source("maps", "jepakit.data.maps:Maps")
    registrar.source("pairs", "jepakit.data.pairs:Pairs")
    registrar.source("video", "jepakit.data.video:Video")
    registrar.source("world", "jepakit.data.world:World")
    registrar.source("world_pairs", "jepakit.data.world_pairs:WorldPairs")
    registrar.decoder("pillow", "jepakit.data.decode:Pillow")
    registrar.decoder("decord", "jepakit.data.decoders:Decord")
    registrar.decoder("pyav", "jepakit.data.decoders:PyAV")
    registrar.decoder("torchcodec", "jepakit.data.decoders:TorchCodec")


def open_source(data: Mapping[str, Any]) -> "Source":
    """Build the source that ``config["data"]`` names: its arguments are the keys that are not ``DataOptions``.

    Raises ConfigError for a name that is not registered, DataError for data that is missing or empty.
    """
    from jepakit.plugins import discover
    from jepakit.signature import given

    common = {field.name for field in fields(DataOptions)} | {"name"}
    component = discover().get("source", data["name"])
    return component.load()(**given(component, {key: value for key, value in data.items() if key not in common}))


def read_options(data: Mapping[str, Any]) -> DataOptions:
    """The ``DataOptions`` among the keys of ``config["data"]``."""
    names = {field.name for field in fields(DataOptions)}
    return DataOptions(**{key: value for key, value in data.items() if key in names})
