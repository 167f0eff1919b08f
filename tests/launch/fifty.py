"""Fifty two-process runs, one after the other: each ends with exit code 0, and leaves no process and no folder behind.

    python -m tests.launch.fifty [RUNS]

Takes about eight seconds a run on two cores, so that it is no part of the tests.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.launch.commands import JEPAKIT, TINY, Command, lines, marked

STEPS = 3


def main(runs: str = "50") -> int:
    """Print what became of each run. Returns how many went wrong."""
    wrong, began = 0, time.monotonic()
    for number in range(1, int(runs) + 1):
        with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as scratch:
            folder = Path(place) / "run"
            argv = [*JEPAKIT, "train", f"run={folder}", *TINY, f"trainer.steps={STEPS}", "trainer.devices=2"]
            running = Command(folder, argv, TMPDIR=scratch)
            code, left = running.process.wait(), marked(running.mark)
            remains = [path.name for path in Path(scratch).iterdir()]
            well = code == 0 and not left and not remains and lines(folder) == STEPS
            wrong += not well
            print(f"run {number}: exit code {code}, {len(left)} processes and {remains} left", flush=True)
            if not well:
                print(running.said(), flush=True)
    print(f"{runs} runs, {wrong} went wrong, {time.monotonic() - began:.0f} s")
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(*sys.argv[1:])))
