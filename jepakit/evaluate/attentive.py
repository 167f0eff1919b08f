"""The attentive probe: a score of frozen tokens, not of their mean, as the video models are judged.

One learned query looks at all tokens of a sample (V-JEPA), at depth 4 after three blocks in which tokens look at one
another (V-JEPA 2). Probes for a grid of learning rates and weight decays learn at once from the same batches; one is
chosen on a held-out part of the fit samples. V-JEPA 2 chooses on the very samples that it reports, which flatters.

As in the papers the probe sees the tokens of all clips of a video at once, and answers for each spatial view of a test
sample, or, with ``across=false``, for each view of each clip; the mean of these answers' probabilities counts. It
learns from one centred view (the papers: a random crop, drawn anew in each epoch), since tokens are read once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit.evaluate.features import Extracted, split
from jepakit.evaluate.frozen import cell, check
from jepakit.evaluate.protocol import not_negative, positive
from jepakit.seeds import generator

HEAD_WIDTH = 64
"""Numbers that one head looks at where nothing says how many heads there are: that of the papers' encoders."""

INIT_STD = 0.02
MLP_RATIO = 4


HELD_OUT = 0.2
"""Share of the fit samples on which one of the grid is chosen."""


@dataclass(frozen=True)
class Settings:
    """What an attentive score depends on, beside the tokens. ``heads`` None: one for every ``HEAD_WIDTH`` numbers of a
    token. ``across``: the query looks at all clips of a video at once; else at each, and the answers are averaged."""

    depth: int
    heads: int | None
    epochs: int
    batch_size: int
    lrs: tuple[float, ...]
    weight_decays: tuple[float, ...]
    across: bool
    seed: int
    FACTS: ClassVar[dict[str, Any]] = {
        **{"layer": "last", "pooling": "a learned query over all tokens", "measure": "top-1", "tokens": "float16"},
        **{"views": "one, centred", "optimizer": "AdamW, cosine to 0", "held_out": HELD_OUT},
    }

    def __post_init__(self) -> None:
        positive(self, "depth", "heads", "epochs", "batch_size", "lrs")
        not_negative(self, "weight_decays")

    @property
    def grid(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of every probe."""
        return list(product(self.lrs, self.weight_decays))


class Outcome(NamedTuple):
    """Accuracy on the test samples, the learning rate and weight decay that were chosen, the heads, and the held-out
    accuracy of all that was tried (empty where there was nothing to choose, or nothing to choose on)."""

    score: float
    lr: float
    weight_decay: float
    heads: int
    tried: list[dict[str, float]]


def attentive(
    fit: Extracted, test: Extracted, classes: int, settings: Settings, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """A cell of a table: the best of a grid of probes on tokens, see ``probed``."""
    score, *rest = probed(fit, test, classes, settings, device)
    return cell(score, fit, test) | dict(zip(Outcome._fields[1:], rest, strict=True))


def probed(
    train: Extracted, test: Extracted, classes: int, settings: Settings, device: torch.device | str = "cpu"
) -> Outcome:
    """Accuracy of the best of a grid of attentive probes on tokens ``n N D``.

    Best is the one that is right most often on a held-out part of ``train``; its learning rate and weight decay are
    then fitted on all of ``train``. The test samples choose nothing. Raises DataError for tokens that are not finite
    or belong to fewer than two classes.
    """
    s = settings
    check(train, test)
    heads = fitting(train.x.shape[-1], s.heads)
    tried = _tried(train, classes, heads, s, device)
    best = max(range(len(s.grid)), key=lambda i: tried[i]["held_out"]) if tried else 0
    (probe,) = learn(train, classes, heads, s, s.grid[best : best + 1], device)
    return Outcome(accuracy(probe, test, s.batch_size, device), *s.grid[best], heads, tried)


def fitting(width: int, heads: int | None) -> int:
    """The number of heads for tokens of ``width`` numbers: as wanted, or the next smaller one that divides them."""
    wanted = max(1, width // HEAD_WIDTH) if heads is None else heads
    return next(number for number in range(min(wanted, width), 0, -1) if width % number == 0)


class Probe(nn.Module):
    """``depth`` - 1 blocks of self-attention over the tokens, one learned query that looks at them, a linear layer."""

    def __init__(self, width: int, classes: int, heads: int, depth: int = 1):
        super().__init__()
        block = {"dim_feedforward": MLP_RATIO * width, "dropout": 0.0, "activation": "gelu", "batch_first": True}
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, norm_first=True, **block) for _ in range(depth - 1)
        )
        self.pool = Pool(width, heads)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B classes"]:
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.pool(tokens))


class Pool(nn.Module):
    """Norm, cross-attention of one learned query, norm, MLP: tokens ``B N D`` become ``B D``.

    Neither keys nor values of the tokens are computed: what is linear in a token is applied to the query before, and
    to the weighted sum of tokens after. It is the same function at a small part of its cost. A key has no bias, which
    would add the same to all tokens, and there is no projection after the values (the released one is never applied).
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.token = nn.Parameter(torch.zeros(1, width))
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.query, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width))

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        x = F.layer_norm(tokens, tokens.shape[-1:])  # scale and shift follow where they are cheap
        query = self.query(self.token).view(self.heads, -1) * (x.shape[-1] // self.heads) ** -0.5
        key, value = (part.weight.view(self.heads, -1, x.shape[-1]) for part in (self.key, self.value))
        sought = torch.einsum("hd,hde->he", query, key) * self.scale
        look = torch.einsum("bne,he->bhn", x, sought).softmax(-1)
        found = torch.einsum("bhn,bne->bhe", look, x) * self.scale + self.shift
        y = self.token + torch.einsum("bhe,hde->bhd", found, value).flatten(1) + self.value.bias
        return y + self.mlp(self.norm(y))


def fresh(width: int, classes: int, heads: int, depth: int, seed: int) -> Probe:
    """A probe as released code starts it: all matrices of one spread, those that end a branch smaller with depth."""
    with torch.random.fork_rng(devices=[]):  # layers draw when they are made; the draw that counts has a key
        probe = Probe(width, classes, heads, depth)
    rng = generator("attentive", seed, "weights")
    for name, parameter in probe.named_parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=INIT_STD, generator=rng)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    with torch.no_grad():
        probe.pool.mlp[2].weight.div_(math.sqrt(2))
        for layer, block in enumerate(probe.blocks, 1):
            block.self_attn.out_proj.weight.div_(math.sqrt(2 * layer))
            block.linear2.weight.div_(math.sqrt(2 * layer))
    return probe


def learn(
    part: Extracted,
    classes: int,
    heads: int,
    settings: Settings,
    grid: Sequence[tuple[float, float]],
    device: torch.device | str = "cpu",
) -> list[Probe]:
    """One probe for each (learning rate, weight decay): all start alike, and learn from the same batches."""
    s, width = settings, part.x.shape[-1]
    probes = [fresh(width, classes, heads, s.depth, s.seed).to(device) for _ in grid]
    groups = [group for probe, rates in zip(probes, grid, strict=True) for group in _groups(probe, *rates)]
    steps = s.epochs * math.ceil(len(part.y) / s.batch_size)
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    for rows in _order(len(part.y), s):
        x, y = part.x[rows].to(device).float(), part.y[rows].to(device)
        for probe in probes:  # one after the other: as fast as side by side, in the memory of one
            F.cross_entropy(probe(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return probes


@torch.no_grad()
def accuracy(probe: nn.Module, part: Extracted, batch_size: int, device: torch.device | str = "cpu") -> float:
    """Share of samples that are told right; an answer that is not finite is wrong.

    Of samples that are looked at in several ways, ``n P N D``, the mean of the P answers' probabilities counts.
    """
    several = part.x.ndim == 4
    size, right = max(batch_size // (part.x.shape[1] if several else 1), 1), 0
    for x, y in zip(part.x.split(size), part.y.split(size), strict=True):
        logits = probe((x.flatten(0, 1) if several else x).to(device).float()).cpu()
        answer = logits.softmax(1).unflatten(0, (len(y), -1)).mean(1) if several else logits
        right += int(((answer.argmax(1) == y) & answer.isfinite().all(1)).sum())
    return right / len(part.y)


def _tried(
    train: Extracted, classes: int, heads: int, settings: Settings, device: torch.device | str
) -> list[dict[str, float]]:
    """Held-out accuracy of every probe of the grid, where there is something to choose and to choose on."""
    part, held = (train.part(rows) for rows in split(len(train.y), 1 - HELD_OUT))
    if len(settings.grid) < 2 or len(part.y.unique()) < 2:
        return []
    probes = learn(part, classes, heads, settings, settings.grid, device)
    scores = [accuracy(probe, held, settings.batch_size, device) for probe in probes]
    return [
        {"lr": lr, "weight_decay": decay, "held_out": score}
        for (lr, decay), score in zip(settings.grid, scores, strict=True)
    ]


def _groups(probe: Probe, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and other vectors have no weight decay, as in V-JEPA (V-JEPA 2 decays them too)."""
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in probe.parameters():
        parts[parameter.ndim > 1].append(parameter)
    return [{"params": parts[many], "lr": lr, "weight_decay": weight_decay * many} for many in (True, False)]


def _order(count: int, settings: Settings) -> Iterator[Int[Tensor, "n"]]:
    """The samples of every batch: a permutation of (seed, epoch)."""
    for epoch in range(settings.epochs):
        rng = generator("attentive", settings.seed, "order", epoch)
        yield from torch.randperm(count, generator=rng).split(settings.batch_size)
