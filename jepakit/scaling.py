"""A recipe's rates are stated for one batch; here is what they become for another.

Rules: learning rates linear in the batch (Goyal et al., arXiv 1706.02677) or in its square root (Malladi et al., arXiv
2205.10287, for Adam); a teacher's momentum to the power of the ratio of batches (Busbridge et al., arXiv 2307.13813).
Lengths in epochs and weight decay stay as they are.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jepakit.branches import branches
from jepakit.errors import ConfigError

RULES = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
"""The power of the ratio that learning rates are multiplied by."""


class Step(NamedTuple):
    """How many samples an optimiser step takes, and how many the configuration is stated for (None: as many): those of
    all branches together.

    ``batch`` are those of the micro-batches that ``world`` processes look at side by side; each looks at ``accumulate``
    of them, one after the other.
    """

    batch: int
    accumulate: int
    stated: int | None
    rule: str
    world: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any], world: int = 1) -> "Step":
        """Read off a configuration. Raises ConfigError where no whole number of micro-batches makes up its batch."""
        batches, options = [each["data"]["batch_size"] for each in branches(config).values()], config["trainer"]
        batch = sum(batches) * world
        stated, count = options["global_batch"], options["accumulate"]
        if count is None:
            if stated is None:
                raise ConfigError("trainer.accumulate=null makes up trainer.global_batch, which is not set: set either")
            if stated % batch:
                one = f"data.batch_size={batches[0]}"
                given = one if len(batches) == 1 else f"{sum(batches)}, what a batch of every branch has"
                given += f" in {world} processes" * (world > 1)
                raise ConfigError(f"trainer.global_batch={stated} is no multiple of {given}")
            count = stated // batch
        return cls(batch, count, stated, options["scaling"], world)

    @property
    def samples(self) -> int:
        """Samples that an optimiser step takes."""
        return self.batch * self.accumulate

    @property
    def ratio(self) -> float:
        """Of its samples to those that the configuration is stated for; 1 where nothing is to be scaled."""
        return 1.0 if self.stated is None or self.rule == "none" else self.samples / self.stated

    def scaled(self, optim: Mapping[str, Any]) -> dict[str, Any]:
        """The optimiser's options with their learning rates brought to this batch."""
        factor = self.ratio ** RULES[self.rule]
        return {**optim, **{name: optim[name] * factor for name in ("lr", "start_lr", "final_lr")}}

    def __str__(self) -> str:
        """What was done about another batch than the stated one; empty where there is nothing to say."""
        if self.stated in (None, self.samples):
            return ""
        said = f"batch: {self.samples} a step, the settings are stated for {self.stated}: "
        if self.rule == "none":
            return said + "nothing is scaled (trainer.scaling=none)"
        factor = self.ratio ** RULES[self.rule]
        fits = self.samples < self.stated and self.stated % self.batch == 0
        keep = "; trainer.accumulate=null keeps the stated batch" if fits else ""
        return f"{said}learning rates x {factor:.4g} ({self.rule}), a teacher's momentum ** {self.ratio:.4g}{keep}"
