"""One run, one folder, one job at a time.

A run that trains holds a lock of the operating system's (flock) on the file ``lock`` of its folder, in which it says
who it is. What counts is the lock and never the file: the kernel takes it from a process that ends, however it ends, so
that what a killed job left behind is in nobody's way, and no clock has a say.

What is promised: two processes of one machine never train in one folder. Two machines do not either, where the file
system passes locks on (NFS from version 4 on, Lustre mounted with ``flock``, GPFS, CephFS, BeeGFS if told so). Where it
has none or keeps them to itself, the other machine cannot be seen: what its run wrote about itself is all that there is
to tell, and it is told on stderr.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jepakit.errors import ConfigError

NAME = "lock"
TOKEN = "JEPAKIT_LOCK"
"""Variable by which the processes that a holder starts know its lock."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers."""


class Holder(NamedTuple):
    """Who holds a lock. ``since`` is for people: clocks change, and nothing is decided by it."""

    host: str
    pid: int
    since: str
    boot: str = ""
    token: str = ""

    @classmethod
    def me(cls) -> "Holder":
        return cls(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"), _boot(), secrets.token_hex(8))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"


_held: dict[Path, int] = {}
"""Folders that this process holds, and the descriptor of each one's lock."""


def _forget() -> None:
    """In a process that was forked off: what it inherited is its parent's, and would outlive it here."""
    for handle in _held.values():
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run's folder for as long as this lasts. Within a process that holds it already this is nothing.

    What a holder starts (the workers of ``trainer.devices=8``) shares its lock: the folder is free when all have ended.
    Raises ConfigError at once where another process holds it, or where there is no way to tell.
    """
    folder = Path(folder).resolve()
    if folder in _held:
        yield
        return
    handle, own = _take(folder)
    _held[folder] = handle
    before = os.environ.get(TOKEN)
    os.environ[TOKEN] = own.token if own else str(before)
    try:
        yield
    finally:
        os.environ.pop(TOKEN) if before is None else os.environ.update({TOKEN: before})
        if _held.pop(folder, None) is not None:  # in a child that was forked off meanwhile it is gone
            if own:
                (folder / NAME).unlink(missing_ok=True)
            os.close(handle)


def _take(folder: Path) -> tuple[int, Holder | None]:
    """The descriptor of a lock that was taken, and what was written into it; None where it is shared."""
    while True:
        handle = _open(folder)
        try:
            alone = _locked(handle, fcntl.LOCK_EX)
            found = _holder(handle)
            if alone is False:
                _share(handle, found, folder)
                return handle, None
            _doubt(folder, found, alone is None)
            own = _write(handle)
            # From here on it is shared, with our own; a stranger asks for all of it.
            if _locked(handle, fcntl.LOCK_SH) is not False and _there(handle, folder):
                return handle, own
            os.close(handle)  # someone was quicker, or ended just now and took the file away
        except BaseException:
            os.close(handle)
            raise


def _share(handle: int, holder: Holder | None, folder: Path) -> None:
    """Join a holder that has started this process. Raises ConfigError that names any other."""
    ours = holder is not None and holder.token and holder.token == os.environ.get(TOKEN)
    if not (ours and _locked(handle, fcntl.LOCK_SH)):
        who = holder or "another process"
        raise ConfigError(f"run={folder}: {who} trains there; wait until it ends, or name another folder")


def _doubt(folder: Path, found: Holder | None, unlocked: bool) -> None:
    """Look at what a lock does not tell: another machine's holder, and everyone where there are no locks."""
    if found is None:
        return
    if unlocked and found.boot == _boot() and Path("/proc", str(found.pid)).exists():
        raise ConfigError(f"run={folder}: {found} trains there; wait until it ends, or remove {folder / NAME}")
    if found.host != socket.gethostname():
        said = f"{found} trained there and did not take its leave; make sure that it is gone"
        print(f"jepakit: warning: run={folder}: {said}", file=sys.stderr)


def _open(folder: Path) -> int:
    try:
        return os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise ConfigError(f"run={folder}: its file {NAME} cannot be opened ({error.strerror})") from error


def _locked(handle: int, how: int) -> bool | None:
    """Whether the lock could be taken; None where the file system has no locks."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in WITHOUT:
            return None
        raise


def _there(handle: int, folder: Path) -> bool:
    """Whether the file that was opened is still the one that has the name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(folder / NAME))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> Holder | None:
    """Who wrote the file; None where nobody has."""
    try:
        return Holder(**json.loads(os.pread(handle, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _write(handle: int) -> Holder:
    own = Holder.me()
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{json.dumps(own._asdict())}\n".encode(), 0)
    return own


def _boot() -> str:
    """Which start of this machine it is; empty where it does not tell."""
    return BOOT.read_text().strip() if BOOT.exists() else ""
