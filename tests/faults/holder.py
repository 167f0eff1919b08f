"""Hold a run's folder until told to end: ``python holder.py FOLDER [fork]``.

It says ``held`` or why not, and ends with its input. With ``fork`` it leaves a worker behind that lives on, as the
worker processes of a run do for a while where it is killed, and says its number.
"""

import os
import subprocess
import sys
import time

from jepakit.errors import ConfigError
from jepakit.lock import held

INNER = (
    "from jepakit.lock import held; import sys\nwith held(sys.argv[1]): print('shared', flush=True); sys.stdin.read()"
)


def main(folder: str, how: str = "") -> None:
    """Hold it, if it can be had."""
    try:
        with held(folder):
            worker = os.fork() if how == "fork" else 1
            if not worker:
                time.sleep(60)
                os._exit(0)
            if how == "worker":
                subprocess.Popen([sys.executable, "-c", INNER, folder], stdout=sys.stdout).wait()
            print(f"held {worker}", flush=True)
            sys.stdin.read()
    except ConfigError as error:
        print(error, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
