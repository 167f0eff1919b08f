"""Where tensors live and how precisely they are multiplied."""

import contextlib

import torch

from jepakit.distributed import place
from jepakit.errors import ConfigError, nearest


def pick_device(name: str, threads: int | None = None) -> torch.device:
    """``auto`` is the GPU where there is one; of several processes each has its own. ``threads`` are those of one
    operation on the CPU.

    Raises ConfigError for a device that is not there.
    """
    if threads:
        torch.set_num_threads(threads)
    try:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)
        if device.type == "cuda" and device.index is None and place().world > 1:
            device = torch.device("cuda", place().local)
    except RuntimeError:
        raise ConfigError(f"unknown device {name!r}{nearest(name, ('auto', 'cpu', 'cuda'))}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name}: this machine has {torch.cuda.device_count()} such devices")
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bfloat16 where it is safe, for ``bf16``; nothing for ``fp32``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
