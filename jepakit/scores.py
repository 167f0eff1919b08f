"""What is scored while training, and when; every number goes into the log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepakit.build import build_backbone
from jepakit.data.views import alone
from jepakit.evaluate.data import held_out
from jepakit.evaluate.during import During
from jepakit.evaluate.features import Reading
from jepakit.evaluate.frozen import Vote
from jepakit.evaluate.monitor import Monitor
from jepakit.log import Log
from jepakit.protocols import Source


class Scores:
    """The k-NN score and effective ranks of the target encoder, and any protocol, on samples that are not trained on.

    Args:
        steps, samples: of the run, and of each of its steps.

    Raises UserError for protocols that there are not or that the data has nothing for.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        source: Source,
        model: nn.Module,
        device: torch.device,
        steps: int,
        samples: int,
    ):
        self.config, self.options, self.device = config, config["evaluate"], device
        self.monitor = _monitor(config, source, device)
        names, limit = self.options.get("protocols") or [], self.options.get("protocols_limit")
        self.during = During(config, folder, model, device, names, limit)
        self.every = self._every(steps, samples)
        self.protocols_every = self.options.get("protocols_every") or max(steps // 5, 1)

    def _every(self, steps: int, samples: int) -> int:
        """Steps between two scores; 0: there is none, because it is switched off or the run is shorter than a score."""
        if self.monitor is None or self.options["every"]:
            return self.options["every"] or 0
        every = max(steps // 10, -(-self.options["samples"] // samples))
        return every if every <= steps else 0

    def due(self, step: int, last: bool) -> bool:
        """Whether there is anything to score after ``step`` steps."""
        scored = self.every and (step % self.every == 0 or last)
        return bool(scored or (self.during.due and (step % self.protocols_every == 0 or last)))

    def __call__(self, model: Any, step: int, last: bool, log: Log) -> None:
        """Score the model after ``step`` steps where that is due."""
        if self.every and (step % self.every == 0 or last):
            with log.pace.paused():
                log.write(step, self._monitored(model.target_backbone), show=False)
        if self.during.due and (step % self.protocols_every == 0 or last):
            with log.pace.paused():
                for line in self.during(model, step):
                    log.write(step, {f"eval/{name}": score for name, score in line.scores.items()}, show=False)
                    for words in line.words:
                        log.say(f"step {step}: {words}")

    def controls(self, model: Any, log: Log) -> None:
        """The scores that there are to beat: a random encoder's and raw pixels'; and where the run starts from."""
        start = model.target_backbone
        assert self.monitor is not None
        with log.pace.paused():
            random = build_backbone(self.config)[0].to(self.device) if self.config["start"]["weights"] else start
            if controls := self.monitor.controls(random):
                log.write(0, controls | self._monitored(start), show=False)
                log.say("to beat: " + ", ".join(f"{name} {value:.3f}" for name, value in controls.items()))

    def _monitored(self, backbone: nn.Module) -> dict[str, float]:
        assert self.monitor is not None
        return self.monitor(backbone)


def _monitor(config: Mapping[str, Any], source: Source, device: torch.device) -> Monitor | None:
    """The score while training; None where it is switched off."""
    options = config["evaluate"]
    if options["every"] == 0:
        return None
    reading = Reading(config["data"], device, config["trainer"]["precision"], alone=alone(config))
    return Monitor(source, held_out(source), reading, options["samples"], Vote(options["k"], options["temperature"]))
