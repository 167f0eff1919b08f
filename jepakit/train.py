"""The loop on one page."""

import contextlib
import json
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepakit import checkpoint, cudagraphs
from jepakit.background import Background
from jepakit.batchnorm import synchronise
from jepakit.branch import Branch, Taken, Turns, assemble, loaders
from jepakit.build import build, build_backbone, parameters, seen_shape
from jepakit.compiling import eagerly, explained, prepared
from jepakit.data import open_source
from jepakit.device import LONG, pick_device, remember_fewer
from jepakit.distributed import Elsewhere, average, first, gather, joined, most, place, tell, together
from jepakit.errors import CollapseError, DataError, TrainingError
from jepakit.evaluate.motion import infers_motion
from jepakit.health import rollback
from jepakit.health.course import ATTEMPT, lenient
from jepakit.health.figures import figures, says
from jepakit.health.movement import Movement
from jepakit.health.pixels import alike
from jepakit.health.verdict import ILL
from jepakit.health.watch import Watch
from jepakit.jepa import figures_of
from jepakit.lock import held
from jepakit.log import JSONL, Log, read
from jepakit.norms import clip, gradients, norm
from jepakit.optim import make_optimizer, set_schedules
from jepakit.options import HealthOptions
from jepakit.pace import instruments
from jepakit.parallel import SHARDS, parallelise
from jepakit.pictures.report import report
from jepakit.scaling import Step
from jepakit.scores import Scores
from jepakit.signals import stop_at_signals
from jepakit.weights.start import begin

INTERRUPTED = 130
"""Exit code of a run that was told to stop, and saved."""


def run(config: Mapping[str, Any], folder: Path) -> int:
    """Train what ``config`` describes in the run's folder, from its newest checkpoint on. Returns the exit code.

    Raises:
        UserError: what the user can put right: configuration, data, checkpoints, losses that are not finite.
    """
    options, folder = config["trainer"], Path(folder)
    with joined(options["device"], options["timeout"], needed=options["strategy"] in SHARDS), alone_in(folder):
        trainer = Trainer(config, folder)
        try:
            with stop_at_signals() as asked:
                finished = trainer.fit(asked)
            trainer.by_first(trainer.farewell)
        finally:
            trainer.log.close()
    return 0 if finished else INTERRUPTED


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """The first process holds the run's folder; whoever trains there already is named to all. Raises ConfigError."""
    with contextlib.ExitStack() as stack:
        together(lambda: stack.enter_context(held(folder)) if place().first else None)
        yield


class Trainer:
    """A run: everything that a step needs, made once. Of several processes each has one; they go step by step together,
    and the first one speaks, writes and scores."""

    def __init__(self, config: Mapping[str, Any], folder: Path):
        self.config, self.folder, self.options, self.place = config, folder, config["trainer"], place()
        self.device = pick_device(self.options["device"], self.options["threads"])
        self.source, self.batch = open_source(config["data"]), Step.of(config, self.place.world)
        fed = loaders(config, self.source, self.device, self.batch.accumulate, self.place)
        self.loader = next(iter(fed.values()))
        self.epoch_steps = float(self.options["epoch_steps"] or len(self.loader) / self.batch.accumulate)
        self.steps = self.options["steps"] or max(1, int(self.options["epochs"] * self.epoch_steps))
        built = build(config, self.steps, self.batch.ratio)
        if self.device.type == "cpu" and all(each.hides and each.grid.size >= LONG for each in built.figures.values()):
            remember_fewer()
        self.jepa = built.jepa.to(self.device).train()
        self.branches = assemble(config, built, fed, self.batch.accumulate, self.epoch_steps, folder, self.place)
        self.turns = Turns(self.branches, self.options["alternate"])
        samples = self.batch.samples
        self.scores = Scores(config, folder, self.source, self.jepa, self.device, self.steps, samples)
        if self.place.world > 1:
            synchronise(self.jepa)
        self.compiles, compiled = prepared(self.jepa, self.options["compile"], self.device)
        self.strategy, why = chosen(config, self.device)
        self.parallel = parallelise(self.jepa, self.strategy, self.device, self.options["shard"])
        whole = self.strategy not in SHARDS
        graphs = cudagraphs.prepare(
            self.jepa, self.options["cuda_graphs"], self.device, whole, lambda note: self.log.say(note)
        )
        self.health = asdict(HealthOptions()) | (config.get("health") or {})
        self.rollbacks = first(lambda: rollback.done(lenient(folder / JSONL)[0]))
        first(lambda: rollback.finish(folder, self.rollbacks))
        self.optim = rollback.slower(self.batch.scaled(config["optim"]), self.rollbacks)
        self.optimizer = make_optimizer(self.jepa, self.optim, scales(self.branches, config["optim"]["lr"]))
        notes: list[str] = [said for said in (why, compiled, graphs) if said]
        self.step = checkpoint.restore(folder, self.jepa, self.optimizer, self.options["verify"], notes.append)
        if self.step == 0 and config["start"]["weights"]:
            begin(self.jepa, self.optimizer, config, notes.append)
        self.saved, self.skipped = self.step, 0
        self.background = Background() if self.options["async_checkpoint"] else None
        units = {"clip" if seen_shape(branch.config)[1] > 1 else "img" for branch in self.branches}
        unit = units.pop() if len(units) == 1 else "sample"
        about = {"unit": unit, "attempt": len(self.rollbacks), "silent": not self.place.first}
        self.pace = instruments(config, self.device, self.place.world)
        self.log = Log(folder, self.steps, self.step, **config["logger"], **about, pace=self.pace)
        self.watch = Watch(self.branches[0].config, read(folder / JSONL) if self.place.first else ())
        self.ill = self.illness()
        for note in notes:
            self.log.say(note)

    def fit(self, asked: list[int]) -> bool:
        """Train to the last step, or until ``asked`` holds a signal. Returns whether the run is finished."""
        self.announce()
        if self.health["on_collapse"] == "rollback" and not first(lambda: checkpoint.folders(self.folder)):
            self.save()  # what there is to go back to before there is another
        self.attempt(asked)
        while self.ill and self.roll_back():
            self.attempt(asked)
        if self.saved != self.step:
            self.save()
        if self.background:
            self.background.wait()
        if self.ill:
            raise CollapseError(rollback.ended(self.folder, self.step, self.rollbacks, self.ill))
        return self.step == self.steps

    def attempt(self, asked: list[int]) -> None:
        """Train on, until a collapse that something is to be done about."""
        with contextlib.closing(self.stream(self.step, self.steps)) as stream:
            while self.step < self.steps and not self.ill and (taken := self.fetch(stream, asked)):
                self.advance(taken)

    def stream(self, start: int, stop: int) -> Iterator[list[Taken]]:
        """What steps ``start`` to ``stop - 1`` take of each branch."""
        with contextlib.ExitStack() as stack:
            streams = {}
            for b in self.branches:
                own = b.batches(self.turns.before(b, start), self.turns.before(b, stop))
                streams[b] = stack.enter_context(contextlib.closing(own))
            for step in range(start, stop):
                yield [Taken(b, [next(streams[b]) for _ in range(b.accumulate)]) for b in self.turns(step)]

    def fetch(self, stream: Iterator[list[Taken]], asked: list[int]) -> list[Taken]:
        """The micro-batches of a step; none once ``asked`` holds a signal, which may have ended the workers too.

        Processes agree on it, whichever was asked. Raises DataError, Elsewhere where it is another's data that failed.
        """
        taken, failure = [], None
        try:
            with self.pace.waiting():
                taken = [] if asked else next(stream)
        except DataError as error:
            failure = None if asked else error
        lost = [(each.branch.name, batch.replaced) for each in taken for batch in each.batches if batch.replaced]
        stop, failed, any_lost = most(bool(asked), failure is not None, bool(lost))
        if failed:
            raise failure or Elsewhere("the data of another process failed")
        for name, replaced in (each for some in gather(lost) for each in some) if any_lost else ():
            next(branch for branch in self.branches if branch.name == name).quarantine.add(replaced)
        return [] if stop else taken

    def advance(self, taken: list[Taken]) -> None:
        """A step, and what is due after it: a line of the log, a score, a checkpoint."""
        save_every = self.options["checkpoint_every"] or max(50, min(self.steps // 20, int(self.epoch_steps)))
        due, values = self.due(taken), self.train_step(taken)
        self.step += 1
        last = self.step == self.steps
        if values is not None and due:
            self.write(values, taken)
        if self.scores.due(self.step, last):
            self.by_first(lambda: self.scores(self.whole, self.step, last, self.log))
        if (self.step % save_every == 0 or last) and not self.ill:
            self.save()

    def due(self, taken: list[Taken]) -> bool:
        """Whether the step that is about to be taken is worth a line; where branches take turns, their own count."""
        step = self.step + 1
        turn = self.turns.before(taken[0].branch, step) if self.options["alternate"] else step
        return turn % self.options["log_every"] == 0 or step == self.steps

    def train_step(self, taken: list[Taken]) -> dict[str, Tensor | float] | None:
        """One optimiser step over its micro-batches. Returns what is worth a line, None where the step was skipped.

        Loss and gradient are looked at before anything moves: neither optimiser nor teacher sees what is not finite.
        """
        rates = set_schedules(self.optimizer, self.optim, self.step, self.steps, self.epoch_steps)
        with explained():
            parts = self.gradients(taken)
        movement = Movement(self.jepa) if self.due(taken) else None
        norm = self.gradient_norm()
        finite = bool(torch.isfinite(average(parts["loss"])[0]) & torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.jepa.after_step(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.pace.count(sum(len(batch.index) for each in taken for batch in each.batches))
        if not finite:
            return self.skip(taken, {**parts, "grad_norm": norm})
        self.skipped = 0
        return {**parts, "grad_norm": norm, **rates, **(movement.figures() if movement else {})}

    def gradients(self, taken: list[Taken]) -> dict[str, Tensor]:
        """Add up the gradients of a step. Returns its loss, and what that is the sum of where it is one of several."""
        found: dict[str, list[Tensor]] = {}
        shares, self.traces = [], {}
        for branch, batches in taken:
            with self.parallel.exchanging(branch.figure.jepa) as begins:
                for losses in branch.gradients(batches, self.step, begins):
                    shares.append(losses.total.detach() * branch.share)
                    parts = losses.parts if len(losses.parts) > 1 else {}  # the one part is all of it
                    for name, value in branch.called({"loss": losses.total, **parts}).items():
                        found.setdefault(name, []).append(value.detach())
                    self.traces[branch] = losses
        return {"loss": torch.stack(shares).sum()} | {name: torch.stack(each).mean() for name, each in found.items()}

    def gradient_norm(self) -> Tensor:
        """Of all trained parameters together, before it is clipped: what is a branch's own where that says so, then all
        together, or each part by its own norm."""
        trained = gradients(p for group in self.optimizer.param_groups for p in group["params"])
        before = after = norm(trained)
        if own := [branch for branch in self.branches if branch.clip is not None]:
            for branch in own:
                shorten(self.jepa.own[branch.name], branch.clip)
            after = norm(trained)
        longest = self.optim["clip"] if self.step >= self.optim["clip_after"] * self.epoch_steps else None
        if longest is not None and self.optim["clip_each"]:
            for part in self.jepa.children():
                shorten(part, longest)
        elif longest is not None:
            clip(trained, longest, after)
        return before

    def skip(self, taken: list[Taken], values: Mapping[str, Tensor]) -> None:
        """Leave a step out; after too many in a row, stop with what is needed to look at it again."""
        self.skipped += 1
        both = [(branch.loader.source, batch) for branch, batches in taken for batch in batches]
        samples = [(source, index) for source, batch in both for index in batch.index.tolist()]
        found = {
            "step": self.step,
            "seed": self.config["seed"],
            "values": {name: str(value.item()) for name, value in values.items()},
            "index": [index for _, index in samples],
            "samples": [source.describe(index) for source, index in samples],
        }
        path, every = self.folder / f"nonfinite-step-{self.step:08d}.json", gather(found)
        first(lambda: path.write_text(json.dumps(every if len(every) > 1 else found, indent=1)))
        self.log.say(f"step {self.step}: loss or gradient is not finite, step skipped; its samples are in {path}")
        if self.skipped > self.options["max_skips"] and self.health["on_collapse"] == "rollback":
            self.ill = f"loss or gradient is not finite in {self.skipped} steps in a row"
        elif self.skipped > self.options["max_skips"]:
            raise TrainingError(
                f"{self.skipped} steps in a row had a loss or gradient that is not finite; the samples of the last one "
                f"are in {path}; try a lower optim.lr, optim.clip, or trainer.precision=fp32"
            )

    def write(self, values: Mapping[str, Tensor | float], taken: list[Taken]) -> None:
        """A line of the log: numbers of the step, health, pace; and the verdict where a collapse begins or ends."""
        line, leading = averages(values), self.branches[0]  # whose health is the run's
        for branch, batches in taken if self.place.first else ():
            losses, batch = self.traces[branch], batches[-1]
            found = figures(losses.trace, losses.asked, branch.figure.grid, branch.figure.jepa.distance)
            found |= alike(batch.views, batch.condition, batch.index)
            found |= {"samples": float(sum(len(each.index) for each in batches))}
            line |= found if branch is leading else branch.called(found)
        numbers = {name: value for name, value in plain(line).items() if says(name, value)}
        line = {"epoch": self.step / self.epoch_steps, **numbers, **self.pace.line()}
        self.log.write(self.step, line)
        if self.place.first and (said := self.watch({"step": self.step, **line})):
            self.log.say(said)
        self.ill = tell(self.illness())

    def save(self) -> None:
        note = {"health": self.watch.last.word, ATTEMPT: len(self.rollbacks)}
        guarded = rollback.guarded(self.health)
        keep = self.options["keep"]
        with self.pace.paused():
            checkpoint.save(
                self.folder, self.jepa, self.optimizer, self.step, keep, note, guarded, self.background, self.log.say
            )
        self.saved = self.step

    def illness(self) -> str:
        """Why the run cannot go on like this; empty while it can, or while a warning is all that is asked for."""
        last = self.watch.last
        return last.reason if last.word in ILL and self.health["on_collapse"] != "warn" else ""

    def roll_back(self) -> bool:
        """Back to the newest healthy checkpoint, and from there on with smaller steps. Returns whether it was done: not
        where that is not asked for, was done too often, or there is nothing to go back to."""
        if self.background:
            self.background.wait()
        planned = (self.folder, self.health, self.rollbacks, self.step, self.ill, self.options["verify"])
        back = first(lambda: rollback.planned(*planned))
        if back is None:
            return False
        self.log.rewind(back.line)
        self.rollbacks.append(back)
        first(lambda: rollback.finish(self.folder, self.rollbacks))
        with self.pace.paused():
            self.step = checkpoint.restore(self.folder, self.jepa, self.optimizer, self.options["verify"])
        self.saved = self.step
        self.optim = rollback.slower(self.batch.scaled(self.config["optim"]), self.rollbacks)
        self.skipped, self.ill = 0, ""
        self.watch = Watch(self.branches[0].config, read(self.folder / JSONL) if self.place.first else ())
        self.log.say(f"{back}: optim.lr is {self.optim['lr']:.3g} from here on, because: {back.reason}")
        return True

    def announce(self) -> None:
        """What is trained, on what, and for how long; the scores that there are to beat."""
        c, j = self.config, self.jepa
        sizes = {"encoder": j.backbone, "predictor": j.predictor, "trained in all": j}
        sizes = {name: part for name, part in sizes.items() if part is not None}
        self.log.say(f"run {self.folder}  recipe {c['recipe'] or '-'}  device {self.device}")
        self.log.say("parameters: " + ", ".join(f"{name} {parameters(part):,}" for name, part in sizes.items()))
        for branch in self.branches:
            self.log.say(str(branch))
        self.log.say(
            f"{self.batch.samples} samples a step, {self.steps:,} steps ({self.steps / self.epoch_steps:.3g} epochs)"
        )
        if said := str(self.batch):
            self.log.say(said)
        if self.place.world > 1:
            self.log.say(f"{self.place.world} processes share each step: {self.strategy}")
        if self.step:
            self.log.say(f"resumed at step {self.step:,}")
        elif self.scores.every:
            self.by_first(lambda: self.scores.controls(self.whole, self.log))

    def by_first(self, task: Callable[[], None]) -> None:
        """Let the first process do something with the ``whole`` model, as if there were no others."""

        def make() -> torch.nn.Module:
            return build(self.config, self.steps, self.batch.ratio).jepa.to(self.device).train()

        self.whole = self.parallel.whole(self.jepa, make)
        with eagerly(self.compiles):
            first(task)

    def farewell(self) -> None:
        """How far it came, how to go on, what it took; a finished run's pictures."""
        self.log.say(memory(self.device))
        if self.step < self.steps:
            self.log.say(f"stopped and saved at step {self.step:,}; go on with: jepakit train run={self.folder}")
            return
        random = build_backbone(self.config)[0].to(self.device)
        backbones = {"trained encoder": self.whole.target_backbone, "random encoder": random}
        figures, say = figures_of(self.whole), self.log.say
        branches = [replace(b, figure=b.figure._replace(jepa=figures[b.name])) for b in self.branches]
        drawn = report(self.config, self.folder, backbones, self.source, self.device, branches, say)
        say(f"finished {self.steps:,} steps; pictures: {', '.join(map(str, drawn[:-1]))}")
        for page in drawn[-1:]:
            say(f"report: {page}")
        protocols = ["flow"] * any(infers_motion(branch.figure.jepa) for branch in self.branches)
        protocols += ["all"] * bool(self.source.classes)
        for protocol in protocols:
            self.log.say(f"next: jepakit eval run={self.folder} protocol={protocol}")


def scales(branches: Sequence[Branch], lr: float) -> dict[str, float]:
    """Of the learning rate ``lr``, for what branches have for themselves: by the beginning of parameters' names."""
    return {f"own.{branch.name}.": branch.lr / lr for branch in branches if lr and branch.lr is not None}


def averages(values: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
    """Means over processes of what each has computed of its own samples."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return {**values, **dict(zip(tensors, average(*tensors.values()), strict=True))}


def plain(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """As numbers, in their order: those of a device all at once, so that it is waited for once."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    found = {name: value for name, value in values.items() if name not in tensors}
    for device in {value.device for value in tensors.values()}:
        there = {name: value for name, value in tensors.items() if value.device == device}
        found |= zip(there, torch.stack(list(there.values())).tolist(), strict=True)
    return {name: float(found[name]) for name in values}


def shorten(part: torch.nn.Module, longest: float) -> None:
    """Clip the gradient of a part by its own norm."""
    if found := gradients(part.parameters()):
        clip(found, longest, norm(found))


def chosen(config: Mapping[str, Any], device: torch.device) -> tuple[str, str]:
    """The strategy over processes, and, where it was not asked for by name, why it is that one."""
    asked, here = config["trainer"]["strategy"], place()
    if asked != "auto" or here.world == 1 or device.type != "cuda":
        return ("ddp", "") if asked == "auto" else (asked, "")
    from jepakit.plan import choose

    return choose(config, here.world, torch.cuda.get_device_properties(device).total_memory, here.near)


def memory(device: torch.device) -> str:
    """The most memory that the process has held."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    text = f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
    if device.type == "cuda":
        text += f", on the GPU {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    return text
