"""Batch normalisation over the samples of all processes.

A network that normalises over its batch would see as many batches as there are processes, each with figures of its own.
Here mean and variance are those of all samples of a micro-batch, as in torch's SyncBatchNorm, on any device. Gradients
follow ``jepakit.statistics`` (and so do torch's): what comes back is the gradient of the sum of all processes' losses,
so that the mean of gradients over processes is the gradient of the mean of losses.
"""

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jepakit import statistics
from jepakit.errors import ConfigError

PLAIN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
"""What a class does that normalises, and does nothing else."""


def synchronise(model: nn.Module) -> nn.Module:
    """Let every batch normalisation of a model take the samples of all processes, and return the model.

    Modules stay the same objects, with their parameters, buffers, hooks and names; what changes is their class. Where
    there is one process, and in evaluation, they do what they did.

    Raises:
        ConfigError: for one that does more than to normalise, in a way that is not known here.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _Everyone):
            own = type(module)
            if own.forward not in PLAIN and not (hasattr(module, "drop") and hasattr(module, "act")):
                raise ConfigError(f"{name or 'the model'} is a {own.__name__}, which cannot be shared by processes")
            module.__class__ = _class(own)
    return model


@functools.cache
def _class(own: type) -> type:
    return type(f"Everyone{own.__name__}", (_Everyone, own), {})


class _Everyone(_BatchNorm):
    """What stands before a batch normalisation's own class: in training its samples are those of all processes."""

    def forward(self, x: Float[Tensor, "N C *S"]) -> Float[Tensor, "N C *S"]:
        """Normalise each channel."""
        if not self.training or statistics.processes() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        wide = x.float() if x.dtype.itemsize < 4 else x
        centred, variance = self._centred(wide)
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        shift = torch.zeros_like(scale) if self.bias is None else self.bias.to(scale.dtype)
        done = torch.addcmul(_along(shift, x), centred, _along(scale, x)).to(x.dtype)
        after: Any = self  # timm's classes drop and activate what they have normalised
        return after.act(after.drop(done)) if hasattr(self, "act") else done

    def _centred(self, x: Float[Tensor, "N C *S"]) -> tuple[Float[Tensor, "N C *S"], Float[Tensor, "C"]]:
        """Samples without the mean of all processes, which may hold different numbers of them, and their variance.

        The running figures move as torch's do, by the unbiased variance.
        """
        rest = [axis for axis in range(x.ndim) if axis != 1]
        number = x.new_tensor([x.numel() // x.shape[1]])
        sums = statistics.everywhere(torch.cat([x.sum(rest), number]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = x - _along(mean, x)
        # The mean's own part in the variance's gradient is nothing: what is left of samples without it sums to zero.
        variance = statistics.everywhere((x - _along(mean.detach(), x)).square().sum(rest)) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        return centred, variance

    def _track(self, mean: Float[Tensor, "C"], variance: Float[Tensor, "C"]) -> None:
        """Without a momentum the running figures are the mean over all steps."""
        self.num_batches_tracked.add_(1)
        for running, found in ((self.running_mean, mean), (self.running_var, variance)):
            part = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            running.add_((found.to(running.dtype) - running) * part)


def _along(each: Float[Tensor, "C"], x: Tensor) -> Tensor:
    """A number for each channel, as it is added to or multiplied with samples."""
    return each.view(1, -1, *[1] * (x.ndim - 2))
