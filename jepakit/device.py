"""Where tensors live and how precisely they are multiplied."""

import contextlib
import ctypes
import os

import torch

from jepakit.distributed import place
from jepakit.errors import ConfigError, nearest

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers by which glibc's ``mallopt`` knows them."""
REMEMBERED = 64
"""Kernels that are remembered where each step has lengths of its own: those of a few blocks, forwards and backwards."""
LONG = 128
"""Tokens of a view from which on that pays: with fewer, making kernels anew costs more."""
CAPACITIES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"
"""What oneDNN, and PyTorch's layer above it, read that number from as they make their first kernel; theirs is 1024."""


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
    if device.type == "cpu":
        keep_pages()
    return device


def keep_pages() -> bool:
    """Let memory that is freed stay with the process, for the next step to take. Returns whether that can be said here.

    glibc gives large blocks back, and the system has to find and to clear their pages anew: up to a third of the time
    of a step with long sequences (BENCHMARKS.md). The most memory that is held is the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def remember_fewer() -> None:
    """Let oneDNN remember ``REMEMBERED`` kernels, for a run whose sequences are of other lengths in every step.
    What is in the environment already stays; once there was a kernel this changes nothing.

    Each length has kernels of its own, of two thirds of a megabyte each, which break the memory of a step into pieces.
    To look through those cost more than a tenth of a V-JEPA step and a fortieth of an I-JEPA step, to make kernels anew
    a hundredth of both (BENCHMARKS.md).
    """
    for name in CAPACITIES:
        os.environ.setdefault(name, str(REMEMBERED))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bfloat16 where it is safe, for ``bf16``; nothing for ``fp32``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
