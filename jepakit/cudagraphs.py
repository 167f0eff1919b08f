"""Work of fixed shapes on a GPU, recorded once and played again: one call of the host starts hundreds of kernels.

A teacher sees whole views: its blocks do the same work in every step, but for the last one, which answers for the
tokens that are asked for. That work is recorded where it is first met, and played from then on; the parameters are read
where they lie, so that the teacher may move. A recording is kept where it gives the same to the last bit, and sooner.
Where it does not, or where nothing can be recorded, all is computed as before, and the run says why.
"""

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jepakit.errors import first_line
from jepakit.jepa import Branched, Jepa, figures_of

LIMIT = 8
"""Kinds of calls of one method that are recorded, by shape: clips and pictures, levels of a pyramid."""
ROUNDS = 7
"""Times that a method is computed and played, by turns, to see which is sooner."""
GAIN = 1.05
"""Times as fast that a recording has to be: it holds memory of its own."""
MENDED = 2, 13
"""The oldest PyTorch that can go on after a recording that failed: before it, random numbers and memory stay broken."""

Say = Callable[[str], None]


def chosen(asked: bool | str, device: torch.device) -> tuple[bool, str]:
    """Whether ``trainer.cuda_graphs`` is to record on a device, and why."""
    if device.type != "cuda":
        return False, "they are a GPU's"
    if asked != "auto":
        return bool(asked), f"trainer.cuda_graphs={str(asked).lower()}"
    if torch.__version__ < MENDED:
        return False, f"PyTorch {torch.__version__} cannot go on after one that fails, {'.'.join(map(str, MENDED))} can"
    return True, f"kept where they are {GAIN} times as fast in a run's first step, to the last bit the same"


def prepare(model: Jepa | Branched, asked: bool | str, device: torch.device, whole: bool, say: Say) -> str:
    """Have the teachers' work recorded where it is met, if ``trainer.cuda_graphs`` says so. Returns what a run has to
    say of it at once; ``say`` is told the rest. ``whole``: parameters do not lie in shards."""
    records, why = chosen(asked, device)
    if not records:
        return f"no CUDA graphs: {why}" if asked is True else ""
    if not whole:
        return "no CUDA graphs: parameters lie in shards"
    for figure in figures_of(model).values():
        if figure.target_backbone is not figure.backbone:
            install(figure.target_backbone, say, always=asked is True)
    return ""


def install(backbone: nn.Module, say: Say, always: bool = False) -> None:
    """Have recorded what modules of a backbone name in ``replays``. ``always``: however fast it is."""
    for module in backbone.modules():
        for name in getattr(module, "replays", ()):
            method = getattr(module, name)
            if not isinstance(method, Replayed):  # by another branch
                setattr(module, name, Replayed(method, say, always))


class Replayed:
    """A method, called without a gradient: tried in the first call of each kind, then played where that pays."""

    paused = False

    def __init__(self, method: Callable[..., Tensor], say: Say, always: bool = False):
        self.method, self.say, self.always = method, say, always
        self.tapes: dict[Hashable, Tape | None] = {}
        self.stream: Any = None  # of its own: on a shared one it would share scratch memory with graphs of others
        self.held = [*self.owner.parameters(), *self.owner.buffers()]

    @property
    def owner(self) -> nn.Module:
        """Whose method it is."""
        return self.method.__self__  # type: ignore[attr-defined]

    def __call__(self, *args: Any) -> Tensor:
        if Replayed.paused or torch.is_grad_enabled():
            return self.method(*args)
        kind = self.kind(args)
        if kind not in self.tapes and len(self.tapes) <= LIMIT:
            self.tapes[kind] = self.recorded(args)
        tape = self.tapes.get(kind)
        return self.method(*args) if tape is None else tape(*args)

    def kind(self, args: tuple[Any, ...]) -> Hashable:
        """What has to be the same for a recording to be of any use: shapes, types, and where the parameters lie."""
        device = next(each.device.type for each in args if isinstance(each, Tensor))
        cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        shown = [(each.shape, each.dtype, each.stride()) if isinstance(each, Tensor) else each for each in args]
        return (*shown, cast, *[each.data_ptr() for each in self.held])

    def recorded(self, args: tuple[Any, ...]) -> "Tape | None":
        """The recording of a call; None where there is none that is worth it."""
        if len(self.tapes) == LIMIT:
            self.say(f"the teacher's blocks are called in more than {LIMIT} ways: those that follow are not recorded")
            return None
        shown = next(each for each in args if isinstance(each, Tensor))
        what = f"the teacher's blocks, {' x '.join(map(str, shown.shape))}"
        try:
            tape, gain = self.tried(args, shown.device)
        except RuntimeError as error:  # whatever it is, it is said; what is amiss beside it shows in the next call
            why = f"{type(error).__name__}: {first_line(error)}"
            self.say(f"no CUDA graph of {what}: {why} (trainer.cuda_graphs=false does not try)")
            return None
        if gain is None:
            self.say(f"no CUDA graph of {what}: played, they give something else")
        elif gain < GAIN and not self.always:
            self.say(f"no CUDA graph of {what}: it is {gain:.2f} times as fast")
        else:
            self.say(f"{what}, are played from a recording (a CUDA graph), {gain:.2f} times as fast")
            return tape
        return None

    def tried(self, args: tuple[Any, ...], device: torch.device) -> "tuple[Tape, float | None]":
        """A recording, and how many times as fast it is; None where it gives something else. Raises RuntimeError."""
        contiguous = {"memory_format": torch.contiguous_format}
        with torch.cuda.device(device), torch.random.fork_rng([device]):  # as if nothing had been tried
            given = [each.clone(**contiguous) if isinstance(each, Tensor) else each for each in args]
            others = [each.flip(0) if isinstance(each, Tensor) else each for each in given]
            self.method(*given)  # what is compiled, is now
            self.stream = self.stream or torch.cuda.Stream(device)
            pools = (each.graph.pool() for each in self.tapes.values() if each)
            tape = Tape(self.method, given, self.stream, next(pools, None))
            same = torch.equal(self.method(*others), tape(*others))
            return tape, self.gain(tape, args) if same else None

    def gain(self, tape: "Tape", args: tuple[Any, ...]) -> float:
        """How many times as fast a recording is, each from where the host waits for nothing to where all is done."""
        took: dict[Callable[..., Tensor], list[float]] = {self.method: [], tape: []}
        for _ in range(ROUNDS):
            for call, seconds in took.items():
                torch.cuda.synchronize()
                begun = time.perf_counter()
                call(*args)
                torch.cuda.synchronize()
                seconds.append(time.perf_counter() - begun)
        return statistics.median(took[self.method]) / statistics.median(took[tape])

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Tensor]:
        """A copy of the module computes: it lies elsewhere."""
        return getattr(memo[id(self.owner)], self.method.__name__)


class Tape:
    """The kernels of a call, at fixed addresses: those of ``given``, tensors of its own and what is none. What it
    gives lies where the next call's will.

    Raises:
        RuntimeError: where they cannot be recorded.
    """

    def __init__(self, method: Callable[..., Tensor], given: Sequence[Any], stream: Any, pool: Any = None):
        self.given, self.graph = given, torch.cuda.CUDAGraph()
        # what other threads do meanwhile (pinning batches, watching NCCL) is none of its business: thread_local
        how = {"stream": stream, "pool": pool, "capture_error_mode": "thread_local"}
        with _undisturbed(), torch.cuda.graph(self.graph, **how):
            self.answer = method(*given)

    def __call__(self, *args: Any) -> Tensor:
        for here, each in zip(self.given, args, strict=True):
            if isinstance(here, Tensor):
                here.copy_(each)
        self.graph.replay()
        return self.answer


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """While something is recorded Python destroys no older graph, which would end it, and autocast has no weights of 16
    bits that were made before, which would be read for ever. After it autocast has none that were recorded alone, and
    the stream is that of before, which PyTorch forgets where a recording fails (2.14 and older)."""
    stream, collects = torch.cuda.current_stream(), gc.isenabled()
    gc.collect()
    gc.disable()
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.cuda.set_stream(stream)
        if collects:
            gc.enable()


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """For as long as this lasts, what is recorded is computed."""
    before, Replayed.paused = Replayed.paused, True
    try:
        yield
    finally:
        Replayed.paused = before
