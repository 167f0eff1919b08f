"""Processes that share a step: who they are, how they find one another, and what they agree on.

A launcher (torchrun, srun, ``jepakit train trainer.devices=8``, anything that sets RANK) starts them; here they join.
Small things are agreed on through the CPU (gloo), so that no device has to be waited for; what lies on GPUs goes
through NCCL. Of a single process all of this is nothing: no group, no waiting.
"""

import contextlib
import datetime
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed

from jepakit.errors import ConfigError, UserError

T_ = TypeVar("T_")

TIMEOUT = 60.0
"""Minutes that processes wait for one another until a configuration says otherwise."""
SRUN = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID"}
"""What srun calls what torchrun's processes are told."""
PORTS = (15000, 20000)
"""Where jobs of srun meet: their number picks one."""

_thread = threading.local()


class Place(NamedTuple):
    """Which of ``world`` processes this one is; ``local`` numbers those of its machine, of which there are ``near``."""

    rank: int = 0
    world: int = 1
    local: int = 0
    near: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0


ALONE = Place()
"""A process without others."""


def place() -> Place:
    """This process among those that have joined; alone where none have."""
    if getattr(_thread, "alone", False) or not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    world = distributed.get_world_size()
    near = int(os.environ.get("LOCAL_WORLD_SIZE") or min(world, torch.cuda.device_count() or world))
    return Place(distributed.get_rank(), world, int(os.environ.get("LOCAL_RANK", 0)), near)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """For as long as this lasts the process acts as if there were no others: they wait, or have gone."""
    before, _thread.alone = getattr(_thread, "alone", False), True
    try:
        yield
    finally:
        _thread.alone = before


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this process as one of several, or as the only one of them."""
    return "RANK" in environment or int(environment.get(SRUN["WORLD_SIZE"], 1)) > 1


@contextlib.contextmanager
def joined(device: str = "auto", minutes: float = TIMEOUT, needed: bool = False) -> Iterator[Place]:
    """Join the others for as long as this lasts; a process that nobody launched stays alone, in a group of its own
    where one is ``needed``.

    Raises ConfigError where a launcher has not said all that is needed.
    """
    if distributed.is_initialized() or not (needed or launched()):
        yield place()
        return
    gpu, alone = device.startswith(("auto", "cuda")) and torch.cuda.is_available(), {}
    if launched():
        os.environ.update(meeting(os.environ))
        local, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if gpu and local >= cards:
            raise ConfigError(
                f"process {local} of this machine finds {cards} GPUs: start as many, or trainer.device=cpu"
            )
        if gpu:
            torch.cuda.set_device(local)
    else:
        alone = {"store": distributed.HashStore(), "rank": 0, "world_size": 1}
    wait = datetime.timedelta(minutes=minutes)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=wait, **alone)
    try:
        yield place()
    finally:
        distributed.destroy_process_group()


def meeting(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process has to be told to find the others, from what torchrun or srun says. Raises ConfigError."""
    if "RANK" in environment:
        told = {name: environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name in environment}
        told.setdefault("WORLD_SIZE", "1")
        told.setdefault("LOCAL_RANK", told["RANK"] if told["WORLD_SIZE"] == "1" else environment.get("LOCAL_RANK", "0"))
    else:
        told = {ours: environment[theirs] for ours, theirs in SRUN.items()}
    for name, made in (("MASTER_ADDR", _host), ("MASTER_PORT", _port)):
        told[name] = environment.get(name) or made(environment)
    return told


def _host(environment: Mapping[str, str]) -> str:
    """The first machine of a Slurm step; this one where there is no other."""
    nodes = environment.get("SLURM_STEP_NODELIST", "")
    if not nodes:
        if environment.get("WORLD_SIZE", "1") == "1":
            return "127.0.0.1"
        raise ConfigError("RANK is set, but MASTER_ADDR is not: the launcher has to say where processes meet")
    asked = ["scontrol", "show", "hostnames", nodes]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError(f"scontrol does not tell the machines of {nodes!r}: set MASTER_ADDR") from error


def _port(environment: Mapping[str, str]) -> str:
    low, high = PORTS
    return str(low + int(environment.get("SLURM_JOB_ID", 0)) % (high - low))


def wait(minutes: float) -> None:
    """How long processes that have joined wait for one another from now on."""
    if place().world > 1:
        c10d = distributed.distributed_c10d  # up to torch 2.14 there is no other way
        change = getattr(distributed, "set_timeout", None) or c10d._set_pg_timeout
        change(datetime.timedelta(minutes=minutes))


# What processes agree on ---------------------------------------------------------------------------------------------


def tell(value: T_, group: Any = None) -> T_:
    """What the first process has, in every process: plain data."""
    if place().world == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, 0, group)
    return box[0]


def gather(value: T_, group: Any = None) -> list[T_]:
    """What every process has, in all of them, by rank: plain data."""
    found: list[Any] = [value] * place().world
    if place().world > 1:
        distributed.all_gather_object(found, value, group)
    return found


def most(*numbers: int) -> list[int]:
    """The greatest of each number over all processes."""
    if place().world == 1:
        return list(numbers)
    found = torch.tensor(numbers)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return found.tolist()


def average(*values: Tensor) -> list[Tensor]:
    """The mean of each scalar over all processes, where it is."""
    if place().world == 1:
        return list(values)
    total = torch.stack([value.detach().float() for value in values])
    distributed.all_reduce(total)
    return list(total / place().world)


class Elsewhere(UserError):
    """Another process has failed, and says why; this one only ends."""


def together(task: Callable[[], T_], group: Any = None) -> T_:
    """Do something in every process; where it fails in one, it has failed in all, for the same reason.

    What processes say to one another goes through a ``group``, where a thread has one of its own.

    Raises what the task raises: here, or else in the first process where it did.
    """
    if place().world == 1:
        return task()
    failure: Exception | None = None
    result: Any = None
    try:
        result = task()
    except UserError as error:
        failure = error
    except Exception as error:  # of types that may not travel
        failure = UserError(f"rank {place().rank}: {type(error).__name__}: {error}")
        failure.__cause__ = error
    if found := [each for each in gather(failure, group) if each is not None]:
        raise failure or found[0]
    return result


def first(task: Callable[[], T_], group: Any = None) -> T_:
    """Let the first process do something by itself; what it returns or raises is returned or raised in all."""
    leads = place().first

    def act() -> Any:
        with alone():
            return task() if leads else None

    return tell(together(act, group), group)
