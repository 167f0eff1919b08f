"""In how many directions features vary.

All figures are tensors without dimensions, so that nothing waits for the device until they are logged.
"""

import torch
from jaxtyping import Float
from torch import Tensor

FIT = (3, 100)
"""First and last index of the eigenvalues that the power law of ``decay`` is fitted to: the first two belong to a few
outliers, those past a hundred to rounding and to the number of tokens."""

FEWEST = 8
"""Eigenvalues without which there is no power law."""

DELTA, EPS = 1e-4, 1e-7
"""LiDAR's own constants (arXiv 2312.04000, section 4): what is added to the scatter within samples, and to shares."""


def effective_rank(x: Float[Tensor, "n D"], eps: float = 1e-7) -> Float[Tensor, ""]:
    """RankMe (arXiv 2210.02885): the exponential of the entropy of the normalised singular values.

    Between 1 and ``min(n, D)``; not a number where ``x`` is not finite. Features are not centred, as in the paper.
    """
    finite = torch.isfinite(x).all()
    values = torch.linalg.svdvals(torch.where(finite, x, torch.ones_like(x)).float())
    shares = values / values.sum().clamp_min(eps) + eps
    return torch.where(finite, (-(shares * shares.log()).sum()).exp(), torch.nan)


def spectrum(x: Float[Tensor, "n D"]) -> Float[Tensor, "d"]:
    """Eigenvalues of the covariance, the greatest first, as shares of the features' mean square; ``d = min(n, D)``.

    What is left to one belongs to the mean, which says nothing: where features collapse completely the whole spectrum
    falls, where they collapse in dimension its end. Not a number where ``x`` is not finite.
    """
    finite = torch.isfinite(x).all()
    x = torch.where(finite, x, torch.zeros_like(x)).float()
    shares = torch.linalg.svdvals(x - x.mean(0)).square() / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    return torch.where(finite, shares, torch.nan)


def octaves(shares: Float[Tensor, "d"]) -> dict[str, Float[Tensor, ""]]:
    """A spectrum in a few numbers, as a log keeps it: ``spectrum/1``, ``spectrum/2``, ``spectrum/4``, ... by index."""
    return {f"spectrum/{2**i}": shares[2**i - 1] for i in range(len(shares).bit_length())}


def has_decay(shares: Float[Tensor, "d"]) -> bool:
    """Whether there are enough eigenvalues for ``decay``."""
    return min(FIT[1], len(shares)) - FIT[0] + 1 >= FEWEST


def decay(shares: Float[Tensor, "d"]) -> Float[Tensor, ""]:
    """alpha-ReQ (arXiv 2202.05808): a power law's exponent, ``shares[i] ~ i ** -alpha`` with ``i`` from 1.

    Least squares of logarithms at the indices of ``FIT``, each weighed by one over its index, as in the code that the
    paper's fit is taken from (Stringer et al. 2019). Around 1 is best for what is learned next, by the paper; steeper
    is fewer directions. Not a number for fewer than ``FEWEST`` values, or where one of them is not finite.
    """
    first, last = FIT[0], min(FIT[1], len(shares))
    if not has_decay(shares):
        return shares.new_full((), torch.nan)
    index = torch.arange(first, last + 1, device=shares.device, dtype=shares.dtype)
    x, y = index.log(), shares[first - 1 : last].clamp_min(torch.finfo(shares.dtype).tiny).log()
    weight = (1 / index) / (1 / index).sum()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    return -(weight * x * y).sum() / (weight * x * x).sum()


def lidar(x: Float[Tensor, "n q D"], delta: float = DELTA, eps: float = EPS) -> Float[Tensor, ""]:
    """LiDAR (arXiv 2312.04000, equations 1 to 5): the effective rank of what tells n samples apart, measured by how far
    q views of one sample scatter.

    ``W`` is the scatter of views about their sample's mean, plus ``delta`` on its diagonal, ``B`` that of the samples'
    means: the exponential of the entropy of the eigenvalues of ``W^-1/2 B W^-1/2``, as shares. Between 1 and
    ``min(n - 1, D)``; not a number where ``x`` is not finite.
    """
    finite = torch.isfinite(x).all()
    x = torch.where(finite, x, torch.zeros_like(x)).double()
    means = x.mean(1)
    apart, about = means - means.mean(0), (x - means.unsqueeze(1)).flatten(0, 1)
    within = about.T @ about / len(about) + delta * torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
    values, vectors = torch.linalg.eigh(within)
    white = apart @ vectors / values.sqrt() / len(apart) ** 0.5  # its singular values squared are the eigenvalues
    found = torch.linalg.svdvals(white).square()
    shares = found / found.sum().clamp_min(torch.finfo(found.dtype).tiny) + eps
    return torch.where(finite, (-(shares * shares.log()).sum()).exp(), torch.nan).float()
