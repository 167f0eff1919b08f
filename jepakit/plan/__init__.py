"""What a configuration costs before anything is trained: operations, tokens, memory, traffic, days.

Nothing is guessed by a rule of thumb that can be counted: one step runs on tensors that have shapes and no content.
``choose`` says which strategy suits it.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """``choose``, which needs torch, when it is asked for: a mistake on the command line is told without."""
    if name == "choose":
        from jepakit.plan.memory import choose

        return choose
    raise AttributeError(name)
