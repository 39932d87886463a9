"""What a start does that finds a tree which is being filled: it joins at once, with a watcher of its own."""

from __future__ import annotations

import select

from unpackenv.archive.facts import first
from unpackenv.errors import LockTimeout, TargetRefused, TreeUnfilled
from unpackenv.start import stamp
from unpackenv.start.fill import watcher
from unpackenv.start.machine import child
from unpackenv.start.report import JOINED, REUSED, WAITED
from unpackenv.start.settings import BEFORE, Log, Settings
from unpackenv.unpatched import os, time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def join(path: str, facts: dict[str, list[str]], stamp_fd: int, settings: Settings) -> str:
    """Join the tree at `path`; return the outcome of the start, or "" if the tree cannot be used.

    If files are to be filled before the start, and in a process with several threads, wait until the tree is whole;
    raises `LockTimeout` if that takes longer than the setting says. `facts` are those of its open stamp.
    """
    if first(facts, stamp.FILL) == stamp.WHOLE or first(facts, "boot") != stamp.boot_id():
        return ""  # this is not the boot in which it was written
    tree = os.open(path, _DIRECTORY)
    try:
        fifo = _fifo_of(tree)
        if fifo < 0:
            return REUSED if stamp.is_whole(stamp_fd) else ""
        try:
            if (settings.fill_is_named and settings.fill == BEFORE) or not child.is_single_threaded():
                return WAITED if _complete(path, fifo, stamp_fd, settings.lock_timeout) else ""
            log = Log({"log": settings.log, "log_file": settings.log_file})
            watcher.watch_this_process(tree, fifo, stamp_fd, path, log)
            return JOINED
        finally:
            os.close(fifo)
    finally:
        os.close(tree)


def complete(path: str, timeout: float = float("inf")) -> bool:
    """Wait until the tree at `path` has all of its files; return whether it had them already.

    Raises `TargetRefused` if there is no tree, `TreeUnfilled` if nobody fills it, or `LockTimeout` after `timeout`
    seconds.
    """
    stamped = stamp.read(path)
    if stamped is None:
        raise TargetRefused("holds no tree of unpackenv", where=path, hint="Unpack an archive there")
    stamp_fd = stamped[1]
    tree = os.open(path, _DIRECTORY)
    try:
        if stamp.is_whole(stamp_fd):
            return True
        fifo = _fifo_of(tree)
        is_whole = stamp.is_whole(stamp_fd) if fifo < 0 else _complete(path, fifo, stamp_fd, timeout)
        if not is_whole:
            raise TreeUnfilled("nobody fills it any more", where=path)
        return False
    finally:
        os.close(tree)
        os.close(stamp_fd)


def _fifo_of(tree: int) -> int:
    """Return a descriptor of the FIFO of the processes that fill a tree; -1 if there are none."""
    try:
        fifo = stamp.open_fifo(tree)
    except OSError:
        return -1
    if stamp.is_held(fifo):
        return fifo
    os.close(fifo)
    return -1


def _complete(path: str, fifo: int, stamp_fd: int, timeout: float) -> bool:
    """Have all files of a tree filled, and wait; return whether it is whole, or False if nobody fills it any more.

    Raises `LockTimeout`.
    """
    unfilled = _want_all(path) if stamp.fill_of(stamp_fd) == stamp.ON_DEMAND else []
    deadline = time.monotonic() + timeout
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    while not (stamp.is_whole(stamp_fd) or poll.poll(10)):
        while unfilled and _is_filled(unfilled[-1]):
            unfilled.pop()
        if time.monotonic() > deadline:
            raise LockTimeout(
                f"another start has been filling it for longer than {timeout:g} s",
                where=path,
                hint="Raise UNPACKENV_LOCK_TIMEOUT, or look what the processes wait for that have this directory open",
            )
    return stamp.is_whole(stamp_fd)


def _want_all(path: str) -> list[str]:
    """Have all files of a tree filled; return those that must be opened until they are, where that cannot be said."""
    try:
        stamp.touch(os.path.join(path, stamp.FILL_ALL))
    except OSError:  # a read-only mount, or a tree of another user
        return list(_unfilled(path))
    next(_unfilled(path), None)  # the holder of that file wakes up
    return []


def _unfilled(path: str) -> Iterator[str]:
    """Open every file of a tree, without waiting, which makes it the next to be filled; yield those that were not."""
    directories = [path]
    for directory in directories:  # grows meanwhile
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and not _is_filled(entry.path):
                    yield entry.path


def _is_filled(path: str) -> bool:
    """Whether a file can be opened without waiting."""
    try:
        os.close(os.open(path, _OPEN))
    except BlockingIOError:
        return False
    except OSError:  # this user may not read it, or it is gone
        pass
    return True
