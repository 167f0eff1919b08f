"""Every place where a plugin can add something. This page is the whole extension surface."""

from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("jepakit")
hookimpl = pluggy.HookimplMarker("jepakit")

API = (1, 1)
"""Version of this page. A plugin module may state the one it was written for: ``JEPAKIT_API = (1, 0)``."""

KINDS = ("tokenizer", "masker", "encoder", "predictor", "anti_collapse", "source", "decoder", "format")
"""What can be registered: the five contracts, data sources, decoders, and formats of files with weights."""

SUPPLIED = (
    *("channels", "encoder_width", "encoder_widths", "grid", "target_width", "view_shape", "batch_ratio"),
    *("pixel_mean", "pixel_std"),
)
"""Constructor arguments that the build fills in, and that are no configuration: colour channels of the data, width of
the encoder, widths of the levels that it gives, token grid, width of what the predictor has to answer, ``C T H W`` of a
view, samples a step over those that the configuration is stated for, and mean and standard deviation of each channel,
by which pixels are normalised."""


@hookspec
def jepakit_register(registrar: Any) -> None:
    """Name what the plugin brings: ``registrar.masker("checkerboard", Checkerboard)``, one method for each kind.

    The second argument is the class, or the string ``"package.module:Class"``, which is imported when it is needed.
    """
