"""Randomness without state: every draw has a key, so a resumed run draws what an unbroken one would have drawn."""

import hashlib

import torch


def key(*parts: int | str) -> int:
    """A 63-bit seed from any parts, the same on every machine and in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator for one key."""
    return torch.Generator().manual_seed(key(*parts))
