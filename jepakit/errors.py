"""What a person can do wrong: each is one clear line that names the thing, the place and the nearest valid choice."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right. The command line prints its one line and exits with this code."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A configuration that cannot be meant: unknown key or name, wrong type, or parts that do not fit together."""


class DataError(UserError):
    """Data that is missing, empty, or bad beyond the budget."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or of another model."""


class TrainingError(UserError):
    """A run that cannot go on: losses that are not finite, steps that do not move."""

    exit_code = 3


class CollapseError(UserError):
    """A run whose features collapsed, and that was told to stop then."""

    exit_code = 4


def nearest(word: str, options: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"``, or nothing where no option is close."""
    found = difflib.get_close_matches(str(word), [str(option) for option in options], n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def first_line(error: BaseException) -> str:
    """What an error says in one line: its first one, or its type's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
