"""I-JEPA once more, written out plainly: one sample, one target block, one head at a time, from the formulas.

Shares no code with what it is compared with. Weights are read by the names of the state dict.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
EPS = 1e-6
"""Of the norms within the networks."""


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Sines, then cosines, of the column in the first half of the channels; of the row in the second. ``N D``."""
    table = []
    for row in range(rows):
        for column in range(columns):
            vector = []
            for place in (column, row):
                angles = [place / 10000 ** (i / (width // 4)) for i in range(width // 4)]
                vector += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            table.append(vector)
    return torch.tensor(table, dtype=torch.float64)


def norm(x: Tensor, eps: float) -> Tensor:
    """Every vector less its mean, over its standard deviation."""
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    variance = (centred * centred).sum(-1, keepdim=True) / x.shape[-1]
    return centred / (variance + eps).sqrt()


def scaled_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    return norm(x, EPS) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def attention(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    """``N D`` to ``N D``; queries, keys and values are the three thirds of one product, heads slices of each."""
    q, k, v = linear(x, w, f"{name}.qkv").chunk(3, dim=1)
    size, answers = x.shape[1] // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        score = (q[:, part] @ k[:, part].T / math.sqrt(size)).exp()
        answers.append(score / score.sum(1, keepdim=True) @ v[:, part])
    return linear(torch.cat(answers, dim=1), w, f"{name}.proj")


def transformer(x: Tensor, w: Weights, name: str, depth: int, heads: int) -> Tensor:
    """``N D`` to ``N D``: the blocks, and the norm at their end."""
    for i in range(depth):
        block = f"{name}.blocks.{i}"
        x = x + attention(scaled_norm(x, w, f"{block}.norm1"), w, f"{block}.attn", heads)
        hidden = gelu(linear(scaled_norm(x, w, f"{block}.norm2"), w, f"{block}.mlp.fc1"))
        x = x + linear(hidden, w, f"{block}.mlp.fc2")
    return scaled_norm(x, w, f"{name}.norm")


def patches(picture: Tensor, size: int) -> Tensor:
    """``C H W`` to ``N P``: the pixels of each patch, channel by channel, row by row."""
    rows, columns = picture.shape[1] // size, picture.shape[2] // size
    cut = [
        picture[:, r * size : (r + 1) * size, c * size : (c + 1) * size].reshape(-1)
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(cut)


def encode(picture: Tensor, keep: Tensor, w: Weights, name: str, patch: int, depth: int, heads: int) -> Tensor:
    """Features of the kept tokens of one picture, ``K D``."""
    tokens = linear(patches(picture, patch), w, f"{name}.tokenizer.proj")
    tokens = tokens + positions(picture.shape[1] // patch, picture.shape[2] // patch, tokens.shape[1])
    return transformer(tokens[keep], w, f"{name}.encoder", depth, heads)


def predict(seen: Tensor, keep: Tensor, asked: Tensor, w: Weights, grid: tuple[int, int], depth: int, heads: int):
    """What one target block of one picture is thought to be, ``Q D``."""
    narrow = linear(seen, w, "predictor.embed")
    table = positions(*grid, narrow.shape[1])
    blanks = w["predictor.mask_token"][0] + table[asked]
    x = transformer(torch.cat([narrow + table[keep], blanks]), w, "predictor", depth, heads)
    return linear(x[len(keep) :], w, "predictor.proj")


def smooth_l1(guess: Tensor, truth: Tensor) -> Tensor:
    """A parabola up to an error of one, a line from there on. Not averaged."""
    error = (guess - truth).abs()
    return torch.where(error < 1, error * error / 2, error - 0.5)


def adamw(p: Tensor, grad: Tensor, state: dict, lr: float, decay: float, betas: list[float], eps: float):
    """One step of AdamW (arXiv 1711.05101, algorithm 2), the decay scaled by the learning rate."""
    state["t"] = state.get("t", 0) + 1
    state["m"] = betas[0] * state.get("m", 0.0) + (1 - betas[0]) * grad
    state["v"] = betas[1] * state.get("v", 0.0) + (1 - betas[1]) * grad * grad
    mean, square = state["m"] / (1 - betas[0] ** state["t"]), state["v"] / (1 - betas[1] ** state["t"])
    return p - lr * decay * p - lr * mean / (square.sqrt() + eps)


def learning_rate(step: int, start: float, peak: float, final: float, warmup: int, total: int) -> float:
    """At optimiser step ``step`` (from 0): the released schedule is advanced before the step."""
    advanced = step + 1
    if advanced < warmup:
        return start + (peak - start) * advanced / warmup
    return final + (peak - final) * (1 + math.cos(math.pi * (advanced - warmup) / (total - warmup))) / 2


def weight_decay(step: int, start: float, end: float, total: int) -> float:
    """At optimiser step ``step`` (from 0), advanced before the step as well."""
    return end + (start - end) * (1 + math.cos(math.pi * (step + 1) / total)) / 2


def momentum(step: int, start: float, end: float, total: int) -> float:
    """Of the teacher after optimiser step ``step`` (from 0): a straight line, whose first value is used."""
    return start + step * (end - start) / total
