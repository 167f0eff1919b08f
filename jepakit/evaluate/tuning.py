"""How a copy of a backbone learns to classify: the loop of ``finetune.py``."""

import contextlib
import copy
import functools
import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jepakit import seeds
from jepakit.data import read_options
from jepakit.data.loader import Stream
from jepakit.device import autocast
from jepakit.errors import ConfigError
from jepakit.evaluate.augment import AugmentedView, mix
from jepakit.evaluate.data import Part
from jepakit.evaluate.features import Reading, collect, pool, represented, undisturbed
from jepakit.evaluate.layerdecay import drop_paths, groups, layers
from jepakit.schedule import warmup_cosine
from jepakit.types import Batch

INIT_STD = 2e-5
"""Of the head's weights, as in the released MAE code: a head that says nothing yet spoils nothing by its gradients."""
NORM_EPS = 1e-6
LINES = 10
"""Of progress, in one learning."""


class Task(NamedTuple):
    """What is learned, and how; ``settings`` are those of ``finetune.py``."""

    part: Part
    classes: int
    settings: Any
    reading: Reading

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.part.rows) / (self.settings.batch_size * self.settings.accumulate))

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.settings.epochs * self.epoch

    @property
    def device(self) -> torch.device:
        """Where it is learned."""
        return torch.device(self.reading.device)


class Tuned(NamedTuple):
    """What has learned, at how many different rates, what could not be read, and what has to be said."""

    model: "Classifier"
    rates: int
    skipped: list[str]
    said: list[str]


class Classifier(nn.Module):
    """A copy of a backbone, the mean of its last tokens, a norm, a linear layer. All of it learns, also where the
    backbone is a teacher, which does not."""

    def __init__(self, backbone: Any, task: Task):
        super().__init__()
        self.backbone, self.alone = copy.deepcopy(backbone).requires_grad_(True), task.reading.alone
        drop_paths(self.backbone, task.settings.drop_path)
        width: int = getattr(backbone, "representation_width", backbone.width)
        norms = {"layer": nn.LayerNorm(width, NORM_EPS), "batch": nn.BatchNorm1d(width, NORM_EPS, affine=False)}
        last = nn.Linear(width, task.classes)
        rng = seeds.generator("finetune", task.settings.seed, "head")
        nn.init.trunc_normal_(last.weight, std=INIT_STD, generator=rng)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(norms.get(task.settings.norm, nn.Identity()), last)

    def forward(self, pixels: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B classes"]:
        return self.head(pool(represented(self.backbone, pixels, self.alone)))


def tune(backbone: nn.Module, task: Task, lr: float, weight_decay: float) -> Tuned:
    """Learn the labels of the samples of ``task.part``. One that cannot be read is left out of its step: what would
    take its place may be one that is tested on."""
    s, skipped = task.settings, []
    with _forked(task.device), torch.enable_grad():
        model = Classifier(backbone, task).to(task.device).train()
        rates = groups(model.backbone, model.head, lr, weight_decay, s.layer_decay)
        different, optimizer = len({each["lr"] for each in rates}), torch.optim.AdamW(rates)
        rate = functools.partial(factor, total=task.steps, warmup=s.warmup / s.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        with contextlib.closing(_batches(task)) as batches:
            for number, step in enumerate(steps(task)):
                for wanted in step:
                    loss = _loss(model, task, next(batches), wanted, number, skipped)
                    (loss / len(step)).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                _show(task, number + 1, loss, f"lr {lr:g}, weight decay {weight_decay:g}")
    return Tuned(model, different, list(dict.fromkeys(skipped)), _said(model, s.layer_decay))


def right(model: Classifier, part: Part, reading: Reading) -> tuple[Bool[Tensor, "n"], tuple[str, ...]]:
    """Which samples are told right, as they are looked at by ``reading``, and what could not be read.

    Of a sample that is looked at in several ways the mean of the answers' probabilities counts; an answer that is not
    finite is wrong.
    """

    def answer(pixels: Tensor) -> Tensor:
        with autocast(pixels.device, reading.precision):
            return model(pixels).float().softmax(1)

    with undisturbed(model):
        found = collect(answer, part.source, reading, part.rows)
    return (found.x.argmax(1) == found.y) & found.x.isfinite().all(1), found.skipped


def factor(step: int, total: int, warmup: float) -> float:
    """What rates are multiplied by in ``step`` (from 0) of ``total``: a linear rise over the share ``warmup`` of them,
    then a cosine that would be 0 one step after the last."""
    return warmup_cosine(step, 0.0, 1.0, 0.0, round(warmup * total), total + 1)


def steps(task: Task) -> Iterator[list[Int[Tensor, "n"]]]:
    """The samples of each step's batches: of each epoch a permutation of (seed, epoch), cut into as few steps as it
    takes, none larger than another by more than one sample."""
    s, rows = task.settings, task.part.rows
    for epoch in range(s.epochs):
        order = torch.randperm(len(rows), generator=seeds.generator("finetune", s.seed, "order", epoch))
        for step in rows[order].tensor_split(task.epoch):
            yield list(step.tensor_split(math.ceil(len(step) / s.batch_size)))


def _batches(task: Task) -> Iterator[Batch]:
    """The views of every batch of every step, drawn by (seed, epoch, sample). Raises ConfigError for colours that
    RandAugment does not know."""
    s, options = task.settings, read_options(task.reading.data)
    if s.augment_ops and len(options.mean) not in (1, 3):
        raise ConfigError(
            f"augment_ops={s.augment_ops}: RandAugment takes 1 or 3 channels, data.mean has {len(options.mean)}"
        )
    view = AugmentedView(options.size, s.crop_scale, s.crop_ratio, s.flip, s.augment_ops, s.augment_magnitude)
    stream = Stream(task.part.source, (view,), s.seed, options, task.device, drawn=True)
    return stream(
        [(number // task.epoch, index) for index in batch.tolist()]
        for number, step in enumerate(steps(task))
        for batch in step
    )


def _loss(
    model: Classifier, task: Task, batch: Batch, wanted: Int[Tensor, "n"], step: int, skipped: list[str]
) -> Float[Tensor, ""]:
    """The loss of a batch of a step. One sample alone has none: a batch norm would find no variance in it."""
    s, good = task.settings, batch.index == wanted
    key = ("finetune", s.seed, step, int(wanted[0]))
    skipped += [f"{bad['path']}: {bad['reason']}" for bad in batch.replaced if bad["index"] in wanted[~good]]
    if good.sum() < 2:
        return torch.zeros((), device=task.device, requires_grad=True)
    x, y = (each[good.to(each.device)] for each in (batch.views[0], batch.labels[str(task.reading.label)]))
    x, target = mix(x, y.long(), task.classes, s.mixup, s.cutmix, seeds.generator(*key, "mix"))
    _seed(task.device, seeds.key(*key, "noise"))
    with autocast(task.device, task.reading.precision):
        logits = model(x)
    return F.cross_entropy(logits.float(), target, label_smoothing=s.label_smoothing)


def _show(task: Task, done: int, loss: Float[Tensor, ""], what: str) -> None:
    """A line of progress, at the end of an epoch."""
    epoch, left = divmod(done, task.epoch)
    if not left and epoch % max(1, task.settings.epochs // LINES) == 0:
        print(f"finetune: {what}: epoch {epoch} of {task.settings.epochs}, loss {loss.item():.3f}", file=sys.stderr)


def _said(model: Classifier, layer_decay: float) -> list[str]:
    if layers(model.backbone).top or layer_decay == 1 or not list(model.backbone.parameters()):
        return []
    return [f"layer_decay={layer_decay:g} is not used: no blocks were found in the encoder, all of it has one rate"]


@contextlib.contextmanager
def _forked(device: torch.device) -> Iterator[None]:
    """Random state is put back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _seed(device: torch.device, key: int) -> None:
    """What is dropped is drawn from the global states; those of other devices are left alone."""
    torch.default_generator.manual_seed(key)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(key)
