"""What a step does and holds, measured operation by operation."""

import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

AGAIN, BACKWARD, REST = "again", "backward", "rest"


def products(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Floating-point operations of one operation, two for a multiplication with its addition; products alone, as is
    usual."""
    formula = flop_registry.get(func.overloadpacket)
    return formula(*args, **kwargs, out_val=out) if formula else 0


class Meter(TorchDispatchMode):
    """Adds up floating-point operations (two for a multiplication with its addition; products alone, as is usual) and
    the memory of all that is made meanwhile.

    ``flops`` are by part of the model, ``backward``, and ``again``: what a backward pass computes once more (activation
    checkpointing). ``live`` are the bytes held now, ``most`` the most there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self.parts, self.backward = [REST], False
        self.live = self.most = 0
        self._known: set[int] = set()

    def watch(self, module: nn.Module, part: str) -> None:
        """What a module does is its part's, until it is done; ``read`` counts its parameters each time it is called."""
        size = sum(p.numel() for p in module.parameters())

        def begin(*_: Any) -> None:
            self.read[part] += size
            self.parts.append(part)

        module.register_forward_pre_hook(begin)
        module.register_forward_hook(lambda *_: self.parts.pop() and None)

    def count(self, operations: int) -> None:
        """Operations of whatever runs now. Only what is computed again records gradients in a backward pass."""
        where = (AGAIN if torch.is_grad_enabled() else BACKWARD) if self.backward else self.parts[-1]
        self.flops[where] += operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage(), 0)  # made before: another look at it takes no memory
        out = func(*args, **kwargs)
        if operations := products(func, args, kwargs, out):
            self.count(operations)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        return out

    def _hold(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self._drop, key, size).atexit = False

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
