"""Kill a small run at a hundred random moments, and hold it against one that was left alone. Not part of the tests.

    python -m tests.faults.hundred [FOLDER] [SEED] [KILLS]

Every other process kills itself as it is about to touch a file of the run for the n-th time, in the middle of a save
more often than not; the others are killed from outside, some moments after the n-th line of the log. Worker processes
are left to themselves each time. Prints what became of all, and ends with 0 where log, last state and files are those
of the undisturbed run.
"""

import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.train.killed import LONGEST, MOST_LINES, in_child, kill_after_lines, kill_at_touch, lines

KILLS, STEPS = 100, 200
TOUCHES = 60
"""The last touch at which a process may kill itself: a save is some thirty of them."""


def main(folder: str = "", seed: str = "0", kills: str = str(KILLS)) -> int:
    """Train twice, once in peace; returns the exit code."""
    root = Path(folder or tempfile.mkdtemp(prefix="hundred-"))
    left, killed = root / "left-alone", root / "killed"
    for each in (left, killed):
        each.mkdir(parents=True)
    made = _config()
    assert _ended(in_child(lambda: _train(made, left))) == 0, "the undisturbed run failed"
    ends = _kill(made, killed, random.Random(int(seed)), int(kills))
    ends.append(_ended(in_child(lambda: _train(made, killed))))
    said = {"ends": Counter(map(_name, ends)), **_compare(made, left, killed)}
    print(json.dumps(said, indent=1))
    whole = ends[-1] == 0 and ends.count(-signal.SIGKILL) == int(kills) and set(ends) <= {0, -signal.SIGKILL}
    return 0 if whole and all(said[name] for name in ("same log", "same state", "same files")) else 1


def _config() -> dict[str, Any]:
    from tests.train import tiny

    return tiny.config(trainer__steps=STEPS, trainer__checkpoint_every=1, data__workers=1)


def _train(made: dict[str, Any], folder: Path) -> int:
    import jepakit.train

    jepakit.train.report = lambda *_: []  # no pictures
    return jepakit.train.run(made, folder)


def _kill(made: dict[str, Any], folder: Path, rng: random.Random, kills: int) -> list[int]:
    """Kill one process after the other; what became of each."""
    ends: list[int] = []
    while ends.count(-signal.SIGKILL) < kills and ends.count(0) < 2:
        if len(ends) % 2:
            ends.append(_ended(in_child(_until(made, folder, rng.randrange(1, TOUCHES)))))
        else:
            number, child = lines(str(folder)) + rng.randrange(MOST_LINES), in_child(lambda: _train(made, folder))
            kill_after_lines(child, str(folder), number, rng.uniform(0, LONGEST))
            ends.append(_ended(child))
        print(f"{len(ends)}: {_name(ends[-1])} at line {lines(str(folder))}", flush=True)
    return ends


def _until(made: dict[str, Any], folder: Path, touch: int) -> Callable[[], int]:
    def train() -> int:
        kill_at_touch(str(folder), touch)
        return _train(made, folder)

    return train


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _compare(made: dict[str, Any], left: Path, killed: Path) -> dict[str, bool]:
    """In the end, since a process that has used torch's threads must not be forked."""
    from tests.train import tiny

    both = [tiny.saved(made, each) for each in (left, killed)]
    names = [sorted(path.relative_to(each).as_posix() for path in each.rglob("*")) for each in (left, killed)]
    return {
        "same log": tiny.lines(left) == tiny.lines(killed) and len(tiny.lines(left)) == STEPS,
        "same state": both[0][0] == both[1][0] == STEPS and tiny.same(both[0][1], both[1][1]),
        "same files": names[0] == names[1],
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
