"""Check a tree after a crash of the machine: the names are there, but bytes may be missing.

A file system writes data long after the rename that published a tree, so after a power loss some
files of a stamped tree may be empty. The stamp therefore carries the id of the boot in which
the tree was written. In another boot the tree is counted before it is trusted: its files and the
sum of their sizes (a journaling file system cuts a file off where its data was lost). Then the
stamp gets the new id, if it can be written. With the setting `sync` the file system is synced
before the tree is published, and there is nothing to count.
"""

from __future__ import annotations

from unpackenv.archive import RESERVED
from unpackenv.archive import facts as facts_text
from unpackenv.archive.facts import first
from unpackenv.errors import UnpackFailed
from unpackenv.start import stamp
from unpackenv.unpatched import os


def facts(fd: int, synced: bool) -> dict[str, list[str]]:
    """Return the fact `boot` for the stamp of the tree in the open directory `fd`; `synced`: it is synced first."""
    if synced:
        sync(fd)
        return {"boot": [stamp.SYNCED]}
    return {"boot": [stamp.boot_id()]}


def survived(tree: str, stamped: dict[str, list[str]], stamp_fd: int) -> bool:
    """Whether a tree of another boot is complete; `stamped` are the facts of its stamp, which is open.

    Files that an application added do not matter. A tree cannot be counted, and counts as incomplete, if
    it was filled in place, if another start is replacing it, or if this user may not read all of it.
    """
    if stamp.is_shared(tree):
        return False
    try:
        files, size = count(tree)
    except OSError:
        return False
    if files < int(first(stamped, "files", "0")) or size < int(first(stamped, "unpacked-size", "0")):
        return False
    _renew(tree, stamped, stamp_fd)
    return True


def count(tree: str) -> tuple[int, int]:
    """Return the number of regular files in a tree, hard links counted once, and the sum of their sizes."""
    files = size = 0
    linked = set()
    directories = [tree]
    for directory in directories:  # grows meanwhile
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and not entry.name.startswith(RESERVED):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink > 1:
                        if status.st_ino in linked:
                            continue
                        linked.add(status.st_ino)
                    files += 1
                    size += status.st_size
    return files, size


def _renew(tree: str, stamped: dict[str, list[str]], stamp_fd: int) -> None:
    """Write the id of this boot into the stamp, over the old one of the same length: its users hold locks on it."""
    old, new = facts_text.encode(stamped), facts_text.encode({**stamped, "boot": [stamp.boot_id()]})
    if len(old) == len(new):
        try:
            fd = os.open(os.path.join(tree, stamp.NAME), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.path.samestat(os.fstat(fd), os.fstat(stamp_fd)):  # else it is of another tree by now
                    os.pwrite(fd, new, 0)
            finally:
                os.close(fd)
        except OSError:
            pass  # on a read-only mount every start has to count


def sync(fd: int) -> None:
    """Write back the file system of `fd`; the standard library can only sync all of them. Raises `UnpackFailed`."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        raise UnpackFailed(f"the file system could not be synced ({os.strerror(ctypes.get_errno())})")
