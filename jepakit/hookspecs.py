"""Every place where a plugin can add something. This page is the whole extension surface."""

from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("jepakit")
hookimpl = pluggy.HookimplMarker("jepakit")

API = (1, 0)
"""Version of this page. A plugin module may state the one it was written for: ``JEPAKIT_API = (1, 0)``."""

KINDS = ("tokenizer", "masker", "encoder", "predictor", "anti_collapse", "source", "decoder")
"""What can be registered: the five contracts, data sources, and decoders."""

SUPPLIED = ("channels", "encoder_width", "grid")
"""Constructor arguments that the build fills in (colour channels of the data, width of the encoder, token grid): they
are no configuration."""


@hookspec
def jepakit_register(registrar: Any) -> None:
    """Name what the plugin brings: ``registrar.masker("checkerboard", Checkerboard)``, one method for each kind.

    The second argument is the class, or the string ``"package.module:Class"``, which is imported when it is needed.
    """
