"""Remove trees that other users may change meanwhile: no link is followed, and any depth will do."""

from __future__ import annotations

import errno

from unpackenv.unpatched import os

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove a file, or a directory and all below it, without following links; a missing path is fine.

    A directory is closed to others first. Its entries are reached from its descriptor, name by name:
    nobody can put a link in the way.
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
    """Remove everything below an open directory.

    The directories in a subdirectory are first moved to the top. So every path is a single name: no link
    can be put in the way, and a tree may have any depth.
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
    """Remove all in a directory but its subdirectories; return the names of these."""
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
    except PermissionError:  # a move changes its `..`, which needs the right to write to it
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
    """Open a directory, but no link, even if its mode keeps out its owner."""
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except PermissionError:
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_PATH, dir_fd=above)
        try:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)  # the open directory, whatever has its name now
        finally:
            os.close(fd)
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
