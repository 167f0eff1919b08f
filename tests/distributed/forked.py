"""Several processes on this machine, forked from one that has imported everything and computed nothing."""

import os
import socket
import sys
import traceback
from collections.abc import Callable


def together(world: int, task: Callable[[int], None]) -> list[int]:
    """Run ``task(rank)`` in ``world`` processes that find one another as those of a launcher do; their exit codes."""
    port = _free_port()
    children = [_child(rank, world, port, task) for rank in range(world)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _child(rank: int, world: int, port: int, task: Callable[[int], None]) -> int:
    child = os.fork()
    if child:
        return child
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    code = 1
    try:
        task(rank)
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
