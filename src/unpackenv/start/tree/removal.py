"""Removing trees that others may have a hand in: no link is followed, and no depth is too much."""

from __future__ import annotations

import errno

from unpackenv.unpatched import os

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove a file, or a directory and all below it, without following links; gone already is fine.

    A directory is closed to others first, and what is below it is found from its descriptor, name
    by name, so that nobody can put a link in the way.
    """
    try:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # macOS and some file systems say EPERM of a directory
        pass
    _remove_directory(path)


def _remove_directory(name: str, above: int | None = None) -> None:
    fd = _open_own(name, above)
    try:
        _empty(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=above)


def _empty(root: int) -> None:
    """Remove all that is below an open directory.

    What is in a directory of it is first moved to the top, so that nothing is ever found by a path: no
    link can be put on the way, and a tree may be as deep as it likes.
    """
    waiting = _remove_files(root)
    taken, number = set(waiting), 0
    while waiting:
        name = waiting.pop()
        fd = _open_own(name, root)
        try:
            for inner in _remove_files(fd):
                while str(number) in taken:
                    number += 1
                if _move(inner, fd, str(number), root):
                    waiting.append(str(number))
                    number += 1
                else:
                    _remove_directory(inner, fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=root)


def _remove_files(fd: int) -> list[str]:
    """Remove all in a directory that is no directory itself; return the names of those that are."""
    directories = []
    os.fchmod(fd, 0o700)
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=fd)
    return directories


def _move(name: str, above: int, to: str, root: int) -> bool:
    """Move a directory; return whether that is possible: overlayfs does not move one of a lower layer."""
    try:
        os.rename(name, to, src_dir_fd=above, dst_dir_fd=root)
    except PermissionError:  # who moves a directory has to be able to write to it, for its `..`
        fd = _open_own(name, above)
        os.fchmod(fd, 0o700)
        os.close(fd)
        os.rename(name, to, src_dir_fd=above, dst_dir_fd=root)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _open_own(name: str, above: int | None = None) -> int:
    """Open a directory, no link, also if its mode keeps out its owner."""
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except PermissionError:
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_PATH, dir_fd=above)
        try:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)  # what is open, whatever has the name now
        finally:
            os.close(fd)
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
