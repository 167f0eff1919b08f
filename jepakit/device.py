"""Where tensors live and how precisely they are multiplied."""

import contextlib

import torch

from jepakit.errors import ConfigError


def pick_device(name: str, threads: int | None = None) -> torch.device:
    """``auto`` is the GPU where there is one. ``threads`` are those of one operation on the CPU.

    Raises ConfigError for a device that is not there.
    """
    if threads:
        torch.set_num_threads(threads)
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not there or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"trainer.device={name}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bfloat16 where it is safe, for ``bf16``; nothing for ``fp32``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
