"""What a step does to the parameters: how long it is, where its gradient comes from, how far behind the teacher is."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepakit.norms import everywhere, gradients, local, norm, squares

MOST = 1024
"""Numbers of each parameter by which a step's length is measured: they are taken at a fixed stride."""


class Movement:
    """A step of a model: made when its gradients are there, asked when it has been taken.

    Args:
        model: with parts ``backbone``, ``predictor``, ... and a ``target_backbone``, see ``jepakit.jepa``.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module):
        self.model = model
        norms = {f"grad_norm/{name}": gradient(part) for name, part in model.named_children()}
        self.norms = {name: norm for name, norm in norms.items() if norm is not None}
        self.before = [strided(p).clone() for p in learning(self._backbone)]

    @torch.no_grad()
    def figures(self) -> dict[str, Float[Tensor, ""]]:
        """``grad_norm/<part>`` is the norm of the gradient of a part, before anything is clipped. ``step_length`` is
        how far the backbone's parameters went, ``teacher_distance`` how far its teacher's are from them (where there is
        one of its shape), both over their norm. ``weight`` is the root of the mean square of its matrices, which are
        what weight decay shrinks."""
        found = dict(self.norms)
        if self.before:
            found |= {"step_length": length(self.before, learning(self._backbone))}
        if (matrices := [p for p in learning(self._backbone) if p.ndim > 1]) and self.before:
            found |= {"weight": (squares(matrices) / sum(p.numel() for p in matrices)).sqrt().float()}
        teacher = self.model.target_backbone
        return found | ({} if teacher is self._backbone else distance(self._backbone, teacher))

    @property
    def _backbone(self) -> nn.Module:
        return self.model.backbone


def learning(part: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [p for p in part.parameters() if p.requires_grad]


def gradient(part: nn.Module) -> Float[Tensor, ""] | None:
    """The norm of a part's gradient; None where it has none."""
    found = gradients(part.parameters())
    return norm(found) if found else None


def strided(p: Tensor) -> Float[Tensor, "n"]:
    """At most ``MOST`` numbers of a parameter, or of the shard of it that is here."""
    here = local(p.detach()).flatten()
    return here[:: max(1, -(-len(here) // MOST))].float()


def length(before: Iterable[Tensor], after: Iterable[Tensor]) -> Float[Tensor, ""]:
    """How far parameters went since ``before``, as a share of their norm, both estimated."""
    after = list(after)
    pairs = [(local(p).numel() / max(1, len(old)), old, strided(p)) for old, p in zip(before, after, strict=True)]
    moved = torch.stack([times * (new - old).square().sum() for times, old, new in pairs]).sum()
    whole = torch.stack([times * new.square().sum() for times, _, new in pairs]).sum()
    moved, whole = everywhere(torch.stack([moved, whole]), after)
    return (moved / whole.clamp_min(torch.finfo(whole.dtype).tiny)).sqrt()


def distance(student: nn.Module, teacher: nn.Module) -> dict[str, Float[Tensor, ""]]:
    """``teacher_distance``: how far the teacher's parameters are from the student's, as a share of the norm of these.
    Empty where they are of other shapes: a teacher of its own."""
    pairs = list(zip(student.parameters(), teacher.parameters(), strict=False))
    if not pairs or [p.shape for p in student.parameters()] != [p.shape for p in teacher.parameters()]:
        return {}
    apart = squares([slow.float() - fast.float() for fast, slow in pairs])
    whole = squares([fast for fast, _ in pairs])
    return {"teacher_distance": (apart / whole.clamp_min(torch.finfo(whole.dtype).tiny)).sqrt().float()}
