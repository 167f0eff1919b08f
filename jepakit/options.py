"""Every option that the core owns, with its default, here and nowhere else."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataOptions:
    """How samples become batches; the arguments of the chosen source stand beside these keys."""

    batch_size: int = 64
    """Samples for each micro-batch on each device."""
    size: int = 224
    """Side of a view, in pixels."""
    workers: int | None = None
    """Processes that decode; null: one fewer than the cores, at least one, at most eight."""
    crop_scale: list[float] = field(default_factory=lambda: [0.3, 1.0])
    """Share of the picture's area that a random resized crop takes."""
    crop_ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    """Width over height of the crop, before it is resized."""
    flip: bool = False
    """Mirror half of the views."""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    """Mean of each channel, of values in 0..1."""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    """Standard deviation of each channel, of values in 0..1."""
    max_bad: float = 0.01
    """Share of samples that may be unreadable before a run stops."""
    timeout: float | None = 300.0
    """Seconds that a worker process may read one sample before it counts as unreadable; null: as long as it takes."""


@dataclass
class ViewOptions:
    """What is seen of a sample: one kind of view. What is null is what ``data`` says."""

    count: int = 1
    """Views of this kind."""
    size: int | None = None
    crop_scale: list[float] | None = None
    crop_ratio: list[float] | None = None
    flip: bool | None = None
    interpolation: str = "bilinear"
    """Of the crop, with antialiasing: bilinear | bicubic."""
    jitter: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    """Brightness, contrast and saturation change by a factor within 1 - x to 1 + x, hue by up to x of a turn."""
    jitter_p: float = 1.0
    """Share of the views that are jittered."""
    grey: float = 0.0
    """Share of the views without colours."""
    blur: float = 0.0
    """Share of the views that are blurred."""
    blur_sigma: list[float] = field(default_factory=lambda: [0.1, 2.0])
    """Least and greatest standard deviation of a blur, in pixels of the view."""
    solarize: float = 0.0
    """Share of the views whose bright half is inverted."""
    clip: int | None = None
    """Which of a sample's ``data.clips`` is looked at, from 0; null in all entries: each clip is a sample, with all
    views."""
    frame: int | None = None
    """Which one frame of a clip is looked at, from 0; all such views of a sample are cut and mirrored alike."""


@dataclass
class OptimOptions:
    """The optimiser and its schedules. Rates are per optimiser step, lengths in epochs."""

    name: str = "adamw"
    """adamw | lars (VICReg's, which is for large batches)."""
    lr: float = 1e-3
    """Peak learning rate."""
    start_lr: float = 2e-4
    """Learning rate at the first step of the warm-up."""
    final_lr: float = 1e-6
    """Learning rate at the end of its decay."""
    decay: str = "cosine"
    """The way from the peak to there: cosine | linear."""
    warmup: float = 40.0
    """Epochs of linear warm-up."""
    stretch: float = 1.0
    """Length of the schedules over length of the run (the released code's ipe_scale)."""
    weight_decay: list[float] = field(default_factory=lambda: [0.04, 0.4])
    """Weight decay at the start and the end of its cosine; biases and vectors have none."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Of AdamW, as is ``eps``."""
    eps: float = 1e-8
    momentum: float = 0.9
    """Of LARS."""
    clip: float | None = None
    """Largest norm of the gradient; null: no clipping."""
    clip_each: bool = False
    """Clip backbone, predictor and what keeps features apart each by its own norm, not by that of all together."""
    clip_after: float = 0.0
    """Epochs before clipping begins."""


@dataclass
class TrainerOptions:
    """The loop: how long, on what, and what is kept."""

    epochs: float = 300.0
    """Passes over the data, or as many times ``epoch_steps``."""
    epoch_steps: int | None = None
    """Optimiser steps that are called an epoch, wherever a length is given in epochs (the released code's ipe); null:
    as many as a pass over the data takes."""
    steps: int | None = None
    """Optimiser steps; given, it takes the place of ``epochs``."""
    accumulate: int | None = 1
    """Micro-batches for each optimiser step; null: as many as make up ``global_batch``."""
    global_batch: int | None = None
    """Samples a step that learning rates and momenta are stated for; null: what a step takes, nothing is scaled."""
    scaling: str = "linear"
    """Rule for learning rates where a step takes other than ``global_batch`` samples: linear | sqrt | none."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N"""
    devices: int | None = None
    """Processes that share a step, one a device; null: one, or as many as a launcher has started."""
    strategy: str = "auto"
    """What processes share beside the work: ddp (gradients alone) | fsdp2 (parameters and what hangs on them) | hsdp
    (these too, within groups of ``shard``) | auto (ddp where it fits into memory)."""
    shard: int | None = None
    """Processes of one group of hsdp; null: those of one machine."""
    restarts: int = 0
    """How often all processes are started again after one of them has died."""
    timeout: float = 60.0
    """Minutes that processes wait for one another before they give up."""
    precision: str = "bf16"
    """bf16 (autocast) | fp32"""
    alternate: bool = False
    """Branches take turns, a step each; false: each step is of all of them."""
    compile: bool | str = "auto"
    """Compile the blocks with torch.compile: true | false | auto (on a GPU where Triton works, never on a CPU)."""
    cuda_graphs: bool | str = "auto"
    """Play the teacher's blocks from a recording: true | false | auto (on a GPU, where it is faster in the first step
    and the same to the last bit)."""
    threads: int | None = None
    """Threads of one operation on the CPU; null: as many as there are cores."""
    log_every: int = 10
    """Steps between two lines of the log."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints; null: twenty in a run and at least one an epoch, but not within fifty steps."""
    keep: int = 2
    """Newest checkpoints that are kept."""
    async_checkpoint: bool = False
    """Write checkpoints while training goes on."""
    max_skips: int = 3
    """Steps in a row that may be skipped for a loss or gradient that is not finite."""
    verify: str = "full"
    """What is checked when a checkpoint is read: full (hashes) | size | off."""


@dataclass
class BranchOptions:
    """One of several figures over one backbone: what it has for itself. All else it shares, settings and parts."""

    weight: float = 1.0
    """Of its losses in the step's."""
    start: float = 0.0
    """Epochs before it joins."""
    like: str | None = None
    """The branch whose settings and parts it shares before those of the top level."""
    lr: float | None = None
    """Peak learning rate of what it has for itself, in place of ``optim.lr``; the schedule is the same."""
    clip: float | None = None
    """Largest norm of the gradient of what it has for itself, before ``optim.clip``; null: no clipping of its own."""
    distance: str | None = None
    distance_weight: float | None = None
    distance_levels: list[float] | None = None
    views: dict[str, ViewOptions] = field(default_factory=dict)
    data: Any = None
    masker: Any = None
    predictor: Any = None
    anti_collapse: Any = None


@dataclass
class StartOptions:
    """Weights that a new run starts from, in place of random ones."""

    weights: str | None = None
    """A run folder, or a file of any format that ``jepakit inspect`` can name; null: random weights."""
    parts: list[str] = field(default_factory=lambda: ["backbone", "predictor", "optimizer"])
    """What is taken: backbone (and the teacher where there is one), predictor, optimizer (where the file has one)."""


@dataclass
class Published:
    """A number of the paper that a recipe belongs to; ``jepakit compare`` prints it beside the run's own."""

    measure: str = "???"
    """What was measured, on which data."""
    score: float = 0.0
    """In the unit of the source (top-1 accuracies: per cent; end-point errors: pixels)."""
    source: str = "???"
    """Paper and table."""
    when: dict[str, Any] = field(default_factory=dict)
    """Settings, by dotted key, of the runs that the number is for; empty: of every run of the recipe."""


@dataclass
class LoggerOptions:
    """Where a run's numbers go, beside the console and log.jsonl."""

    tensorboard: bool = True
    wandb: str | None = None
    """Project at Weights & Biases (extra ``wandb``); null: off."""


@dataclass
class HealthOptions:
    """What is done where the features of a run collapse; ``jepakit health`` explains a verdict."""

    on_collapse: str = "warn"
    """warn (say so) | stop (save, and end) | rollback (go back to where the run was healthy, and on with smaller
    steps)."""
    factor: float = 0.5
    """What all learning rates are multiplied by at a rollback."""
    rollbacks: int = 3
    """Rollbacks after which a run is stopped."""


@dataclass
class EvaluateOptions:
    """The k-NN score and effective rank that are logged while training, and any protocol beside them."""

    every: int | None = None
    """Steps between two scores; null: ten in a run, with ``samples`` or more trained on in between; 0: never."""
    samples: int = 2000
    """Labelled samples that a score while training looks at, at most."""
    k: int = 20
    """Neighbours that vote."""
    temperature: float = 0.07
    """Of the vote's softmax."""
    protocols: list[str] = field(default_factory=list)
    """Protocols that run while training as well, on the target encoder: files of configs/protocol, by name."""
    protocols_every: int | None = None
    """Steps between two times; null: five times in a run."""
    protocols_limit: int | None = 5000
    """Fit samples and test samples of each, at most; null: all."""
