"""How often a step waits for its device, told without one.

The device ``meta`` computes nothing, and what is asked of it is dispatched as for any other that is no CPU: what would
make the host wait for a GPU is seen on its way. On a GPU itself ``jepakit bench`` counts.
"""

import contextlib
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jepakit.bench.page import _syncs
from jepakit.bench.sides import of_config
from jepakit.bench.syncs import SAID, noted, waits
from jepakit.config import resolve
from jepakit.train import Trainer
from tests.train import tiny

KNOWN = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "unique_dim"}
KNOWN |= {"unique_consecutive", "_linalg_svd", "_linalg_eigh", "_linalg_check_errors"}
"""Operations whose answer, or the shape of it, the host has to see."""
LINE = 16
"""Waits of writing a line of the log, with its figures of health."""


class Waits(TorchDispatchMode):
    """Counts by name what waits for the device ``meta``, and answers for it where the host wants to know something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.partition("::")[2]
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if not any(each.is_meta for each in given) and torch.device(kwargs.get("device") or "cpu").type != "meta":
            return func(*args, **kwargs)
        if name in KNOWN or _looks(name, args) or _travels(name, args, kwargs):
            self.found[name] += 1
        if name == "_local_scalar_dense":
            return torch.ones((), dtype=args[0].dtype).item()
        if name == "copy_" and not args[0].is_meta:
            return args[0]
        if name == "_to_copy" and torch.device(kwargs.get("device") or args[0].device).type == "cpu":
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)

    def take(self) -> Counter[str]:
        """Those since the last call."""
        taken, self.found = self.found, Counter()
        return taken


def _looks(name: str, args: Any) -> bool:
    """Whether tensors are indexed by a mask, which has to be counted, or by numbers that lie elsewhere."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    return any(each is not None and (each.dtype == torch.bool or each.device != args[0].device) for each in args[1])


def _travels(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a tensor goes to the device or comes from it, and the host waits for it."""
    if name == "copy_":
        return args[0].device != args[1].device and not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
    there = kwargs.get("device") if name == "_to_copy" else None
    return there is not None and torch.device(there).type != args[0].device.type and not kwargs.get("non_blocking")


@pytest.fixture(autouse=True)
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's fused AdamW, which a run on a GPU has, takes parameters on ``meta`` too."""
    from torch.optim import optimizer

    known = [*optimizer._get_fused_kernels_supported_devices(), "meta"]
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: known)


def steps(made: dict[str, Any], folder: Path, count: int = 4) -> tuple[list[Counter[str]], Counter[str]]:
    """What waits in each of some steps of a run, from making its batches to the teacher's move; and in writing the
    line of the last one."""
    made["trainer"] |= {"device": "meta", "precision": "fp32", "threads": 1, "steps": 2 * count, "log_every": count}
    made["evaluate"]["every"], made["logger"]["tensorboard"] = 0, False
    trainer, found, line = Trainer(made, folder), [], Counter()
    with Waits() as seen, contextlib.closing(trainer.log), contextlib.closing(trainer.stream(0, count)) as stream:
        for taken in stream:
            due, values = trainer.due(taken), trainer.train_step(taken)
            assert values is not None and values["loss"].is_meta
            found.append(seen.take())
            trainer.step += 1
            if due:
                trainer.write(values, taken)
                line = seen.take()
    return found, line


RECIPES = {
    "vjepa": "recipe=demo_video encoder.depth={} predictor.depth=2",
    "vjepa2": "recipe=demo_video encoder=vjepa2_large encoder.width=24 encoder.heads=2 encoder.native=null "
    "encoder.depth={} predictor=vjepa2_predictor predictor.width=24 predictor.depth=2 predictor.heads=2 "
    "predictor.native=null",
    "vicreg": "recipe=vicreg_vitt4_32px data=world data.side=32 encoder.model_args.depth={}",
    "lejepa": "recipe=lejepa_vitt4_32px data=world data.side=32 encoder.model_args.depth={}",
}


@pytest.mark.parametrize("name", ["ijepa", *RECIPES])
def test_a_step_waits_once_whatever_the_model(name: str, tmp_path: Path):
    """To see whether all is finite; the released I-JEPA waits 49 times at ViT-B, 129 times at ViT-H."""
    counts = []
    for depth in (2, 6):
        (folder := tmp_path / str(depth)).mkdir()
        if name == "ijepa":
            made = tiny.config(encoder={**tiny.BASE["encoder"], "depth": depth})
            made["data"] |= {"size": 32, "side": 32}
        else:
            common = "data.batch_size=4 data.workers=0 trainer.global_batch=null"
            made = resolve([*RECIPES[name].format(depth).split(), *common.split()])
        counts.append(steps(made, folder))
    assert counts[0] == counts[1]
    plain, line = counts[0]
    assert plain == [{"_local_scalar_dense": 1}] * len(plain) and 0 < line.total() <= LINE


def test_what_waits_is_seen():
    x, mask = torch.ones(3, device="meta"), torch.ones(3, dtype=torch.bool, device="meta")
    ways = {
        "_local_scalar_dense": lambda: (x.sum().item(), bool(mask.any())),
        "_to_copy": lambda: (x.cpu(), torch.ones(3).to("meta")),
        "nonzero": lambda: mask.nonzero(),
        "index": lambda: (x[mask], x[torch.tensor([0])]),
        "index_put_": lambda: x.__setitem__(mask, torch.ones(3, device="meta")),
        "copy_": lambda: (x.copy_(torch.ones(3)), torch.ones(3).copy_(x)),
    }
    for name, way in ways.items():
        with Waits() as seen:
            try:
                way()
            except (NotImplementedError, RuntimeError):
                assert name in ("nonzero", "index")  # whose shape nobody knows
        assert seen.found[name] >= 1, name
    with Waits() as seen:
        torch.ones(3).to("meta", non_blocking=True)
        x[torch.zeros(2, dtype=torch.int64, device="meta")].mul_(2).sum()
        torch.where(mask, x, 0.0).mean()
    assert not seen.found


# On a GPU -----------------------------------------------------------------------------------------------------------


def test_what_pytorch_says_of_waiting_is_counted_by_line():
    with pytest.warns(UserWarning, match="something else"), noted() as found:
        for _ in range(2):
            warnings.warn(SAID, stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    ((place, count),) = found.items()
    assert place.startswith("train/test_syncs.py:") and count == 2


def test_bench_says_where_a_step_waits():
    with of_config("", tiny.config(), fixed=True) as side:
        assert waits(side) is None
    assert _syncs({"syncs": None}) == "-" and _syncs({"syncs": {}}) == "0 a step"
    assert _syncs({"syncs": {"train.py:3": 1, "loss.py:7": 2}}) == "3 a step: train.py:3, loss.py:7 x 2"


@pytest.mark.gpu
def test_a_step_on_a_gpu_waits_once(tmp_path: Path):
    made = tiny.config()
    made["trainer"] |= {"device": "cuda", "threads": None}
    with of_config("", made, fixed=True) as side:
        side.take(2)
        found = waits(side)
    assert found is not None and sum(found.values()) == 1
