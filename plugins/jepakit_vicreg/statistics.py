"""What VICReg asks of second moments."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jepakit.statistics import moments

EPS = 1e-4
"""Added to a variance before its root is taken (VICReg, section 4.1)."""


def covariance(x: Float[Tensor, "N P D"]) -> Float[Tensor, "P D D"]:
    """Of the channels over the samples, without bias."""
    count, _, products = moments(x)
    return products / (count - 1)


def spread(covariance: Float[Tensor, "P D D"]) -> Float[Tensor, ""]:
    """By how much standard deviations fall short of one, on average (VICReg, equation 1)."""
    return F.relu(1 - (covariance.diagonal(dim1=-2, dim2=-1) + EPS).sqrt()).mean()


def redundancy(covariance: Float[Tensor, "P D D"]) -> Float[Tensor, ""]:
    """The squares off the diagonal, their sum over D (VICReg, equation 4)."""
    return off_diagonal(covariance).square().sum((-2, -1)).mean() / covariance.shape[-1]


def off_diagonal(matrix: Float[Tensor, "P D D"]) -> Float[Tensor, "P D D"]:
    """The matrix with zeros on its diagonal."""
    return matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))
