"""What devices can do at most: the table that utilisation and plans are reckoned with. Nothing here needs torch.

Figures are those of the makers' data sheets: dense (no sparsity), products of matrices added up in 32 bits. ``fp32``
leaves TF32 out, as PyTorch does unless told otherwise. Memory is what a device is sold with; it shows a little less.
"""

import re
from typing import Any, NamedTuple


class Peak(NamedTuple):
    """A device's limits: TFLOP/s of products in ``bf16`` (None: it has none) and ``fp32``, ``memory`` in GiB,
    ``bandwidth`` of that memory in GB/s."""

    bf16: float | None
    fp32: float
    memory: float
    bandwidth: float


PEAKS: dict[str, Peak] = {
    # NVIDIA data sheets of the data centre cards; where they print sparse figures, half of them
    "t4": Peak(None, 8.1, 16, 320),
    "v100": Peak(None, 15.7, 32, 900),
    "v100-pcie": Peak(None, 14.0, 32, 900),
    "a10": Peak(125, 31.2, 24, 600),
    "a40": Peak(149.7, 37.4, 48, 696),
    "a100": Peak(312, 19.5, 80, 2039),
    "a100-40gb": Peak(312, 19.5, 40, 1555),
    "a100-pcie": Peak(312, 19.5, 80, 1935),
    "l4": Peak(121, 30.3, 24, 300),
    "l40s": Peak(362, 91.6, 48, 864),
    "h100": Peak(989.4, 66.9, 80, 3352),
    "h100-pcie": Peak(756, 51.2, 80, 2000),
    "h100-nvl": Peak(835, 60, 94, 3900),
    "h200": Peak(989.4, 66.9, 141, 4800),
    "gh200": Peak(989.4, 66.9, 96, 4000),
    "b200": Peak(2250, 75, 180, 7700),  # an eighth of HGX B200
    "gb200": Peak(2500, 80, 186, 8000),
    # appendices of NVIDIA's architecture white papers: tensor cores that add up in 32 bits
    "rtx-3090": Peak(71, 35.6, 24, 936),
    "rtx-a6000": Peak(154.8, 38.7, 48, 768),
    "rtx-4090": Peak(165.2, 82.6, 24, 1008),
    "rtx-5090": Peak(209.5, 104.8, 32, 1792),
    # AMD's data sheets
    "mi250x": Peak(191.5, 47.9, 64, 1638),  # one of its two dies, which is what a process has
    "mi300x": Peak(1307.4, 163.4, 192, 5300),
}
"""Devices by short name. Of a name alone (``a100``, ``h100``) the SXM card is meant."""

LESS = {"laptop", "mobile", "max", "mig", "d", "ti"}
"""Words in a device's name that say that it is a smaller sibling, or a slice."""


def known(name: str) -> str | None:
    """The key of ``PEAKS`` for a device as its driver calls it (``NVIDIA H100 80GB HBM3``) or as people do."""
    words = set(re.findall("[a-z0-9]+", name.lower()))
    if words & LESS:
        return None
    fitting = [key for key in PEAKS if set(key.split("-")) <= words or key == name.lower()]
    return max(fitting, key=_words, default=None)


def peak(device: Any, precision: str) -> float | None:
    """FLOP/s that a device could do at most in ``bf16`` or ``fp32``; None where nobody has said.

    ``device`` is a name, or a ``torch.device`` (None for CPUs: ``jepakit.bench.machine`` measures those).
    """
    key = known(_name(device))
    figure = getattr(PEAKS[key], precision) if key else None
    return None if figure is None else figure * 1e12


def _name(device: Any) -> str:
    if isinstance(device, str):
        return device
    if device.type != "cuda":
        return ""
    import torch

    return torch.cuda.get_device_name(device)


def _words(key: str) -> int:
    return len(key.split("-"))
