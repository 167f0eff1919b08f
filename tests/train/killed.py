"""Train a run in processes that are killed one after the other, then in one that is not.

    python killed.py CONFIG.json FOLDER SEED [KILLS]

Half of them kill themselves as they are about to touch a file of the run for the n-th time, which is in the middle of a
save more often than not; the others are killed from outside, some moments after the n-th line of the log. What is drawn
is drawn from the seed. Prints what became of each process. The one that forks them computes nothing, so that each can.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

KILLS = 10
MOST_TOUCHES, MOST_LINES, LONGEST = 90, 3, 0.05
"""The last touch, the last line and the last second after it at which a process may be killed."""


def kill_at_touch(folder: str, number: int) -> None:
    """SIGKILL to this process at the n-th time that a file below ``folder`` is opened, renamed or removed."""
    touches = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal touches
        if event.split(".")[0] in ("open", "os", "shutil") and str(arguments[0] if arguments else "").startswith(
            folder
        ):
            touches += 1
            if touches == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_child(task: Callable[[], int]) -> int:
    """The process id of a child that does the task and says nothing."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        code = task()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    os._exit(code)


def lines(folder: str) -> int:
    """How many lines the log has, whole or not."""
    log = Path(folder, "log.jsonl")
    return log.read_bytes().count(b"{") if log.exists() else 0


def kill_after_lines(child: int, folder: str, number: int, moments: float) -> None:
    """SIGKILL to a process ``moments`` seconds after it has written a number of lines, unless it ends before."""
    while lines(folder) < number and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.001)
    time.sleep(moments)
    os.kill(child, signal.SIGKILL)


def main(config: str, folder: str, seed: str, kills: str = str(KILLS)) -> None:
    import jepakit.train

    jepakit.train.report = lambda *_: []  # no pictures
    made, rng, ends = json.loads(Path(config).read_text()), random.Random(int(seed)), []

    def train() -> int:
        return jepakit.train.run(made, Path(folder))

    def train_until(number: int) -> int:
        kill_at_touch(folder, number)
        return train()

    for kill in range(int(kills)):
        if kill % 2:
            number = rng.randrange(1, MOST_TOUCHES)
            child = in_child(lambda number=number: train_until(number))
        else:
            number, child = lines(folder) + rng.randrange(MOST_LINES), in_child(train)
            kill_after_lines(child, folder, number, rng.uniform(0, LONGEST))
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    ends.append(os.waitstatus_to_exitcode(os.waitpid(in_child(train), 0)[1]))
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
