"""Staging and publishing: how a tree comes to its place so that no start ever sees half of it.

    Sibling   absent or empty directory: unpack beside it, rename over it
    Inside    mount root, or a parent that cannot be written: unpack in a directory inside it, rename
              the entries one by one, stamp last
    InPlace   by explicit choice: replace file by file, stamp last

Each works under its lock, removes what a killed start left behind, and takes an old stamp away
before it touches the tree that the stamp vouches for.
"""

from __future__ import annotations

import errno
import os

from unpackenv.errors import TargetRefused
from unpackenv.start import mounts, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Staging = Union["Sibling", "Inside", "InPlace"]

OURS = ".unpackenv."  # prefix of every name that belongs to unpackenv and not to the tree
_SHARED = OURS + "in-place"  # in a target that was filled in place: others have files there
_PARTIAL = OURS + "partial."
_LOST_AND_FOUND = "lost+found"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Sibling:
    """Unpack into a directory beside the target and rename it over the target."""

    in_place = False
    recovering = False

    def __init__(self, target: str, ours: bool) -> None:
        """Where the place is `ours`, what is there may be replaced, stamp or not."""
        self._ours = ours
        parent, name = os.path.split(target)
        beside = os.path.join(parent, f".{name}.unpackenv")
        self.target = target
        self.lock = beside + ".lock"
        self.work = beside + ".work"
        self._old = beside + ".old"
        self.leftovers = (self.work, self._old)

    def open(self) -> int:
        """Make the work directory and return a descriptor of it; what a killed start left is removed."""
        self.discard()
        os.mkdir(self.work, 0o700)
        return os.open(self.work, _DIRECTORY | os.O_NOFOLLOW)

    def publish(self, fd: int, facts: dict[str, list[str]], mode: int) -> None:
        """Make the tree in the directory `fd` the target, with `mode` and a stamp of `facts`."""
        stamp.write(fd, facts)
        os.fchmod(fd, mode)
        if os.path.lexists(self.target) and (self._ours or _is_ours(self.target)):
            self._put_away()
        os.rename(self.work, self.target)
        remove_tree(self._old)

    def _put_away(self) -> None:
        """Take the old tree away, at once where that is possible: its stamp goes with it."""
        try:
            os.rename(self.target, self._old)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # overlayfs does not rename a directory of a lower layer. The mark goes last, so that a
            # start that finds what is left knows whose it was.
            _touch(_mark(self.target))
            stamp.remove(self.target)
            for name in tree_entries(self.target):
                remove_tree(os.path.join(self.target, name))
            remove_tree(self.target)

    def discard(self) -> None:
        """Remove whatever is not the target."""
        for path in self.leftovers:
            remove_tree(path)


class Inside:
    """Unpack into a directory inside the target, which stays; a mark tells an unpack that was killed."""

    in_place = False

    def __init__(self, target: str) -> None:
        self.target = target
        self.lock = os.path.join(target, OURS + "lock")
        self.work = os.path.join(target, OURS + "work")
        self._mark = _mark(target)

    @property
    def recovering(self) -> bool:
        """Whether an earlier start was killed here."""
        return os.path.exists(self._mark)

    def open(self) -> int:
        """Mark the target as unfinished, remove what it holds of ours, and return the work directory."""
        _touch(self._mark)
        stamp.remove(self.target)
        self._clear()
        os.mkdir(self.work, 0o700)
        return os.open(self.work, _DIRECTORY | os.O_NOFOLLOW)

    def publish(self, fd: int, facts: dict[str, list[str]], mode: int) -> None:
        """Move the tree's entries into the target, then stamp it; its own mode stays."""
        target = os.open(self.target, _DIRECTORY)
        try:
            for name in os.listdir(fd):
                os.rename(name, name, src_dir_fd=fd, dst_dir_fd=target)
            os.rmdir(self.work)
            stamp.write(target, facts)
        finally:
            os.close(target)
        os.unlink(self._mark)

    def discard(self) -> None:
        """Empty the target again."""
        if self.recovering and not os.path.exists(os.path.join(self.target, stamp.NAME)):
            self._clear()
            os.unlink(self._mark)

    def _clear(self) -> None:
        remove_tree(self.work)
        for name in tree_entries(self.target):
            remove_tree(os.path.join(self.target, name))


class InPlace:
    """Replace files one by one in a directory that is in use; a mark tells that not all in it is ours."""

    in_place = True

    def __init__(self, target: str) -> None:
        self.target = target
        self.lock = os.path.join(target, OURS + "lock")
        self.recovering = os.path.exists(_mark(target))

    def open(self) -> int:
        """Mark the target as unfinished and return it."""
        if self.recovering:  # below it, `Tree` removes them
            for name in os.listdir(self.target):
                if name.startswith(_PARTIAL):
                    os.unlink(os.path.join(self.target, name))
        _touch(os.path.join(self.target, _SHARED))
        _touch(_mark(self.target))
        stamp.remove(self.target)
        return os.open(self.target, _DIRECTORY)

    def publish(self, fd: int, facts: dict[str, list[str]], mode: int) -> None:
        """Stamp the target; its own mode stays."""
        stamp.write(fd, facts)
        os.unlink(_mark(self.target))

    def discard(self) -> None:
        """Nothing: no file that was there before is lost, and the mark tells the next start."""


def arrange(target: str, in_place: bool, ours: bool) -> Staging:
    """Choose how to publish at `target`, an absolute path; raises `TargetRefused`.

    Where the place is `ours`, whatever is there came from an archive, stamp or not.
    """
    if not os.path.lexists(target):
        return Sibling(target, ours)
    if not os.path.isdir(target):
        raise TargetRefused("is not a directory", where=target, hint="Name another target")
    if in_place or target == "/":
        return InPlace(target)
    if not ours and not _is_ours(target) and tree_entries(target):
        raise TargetRefused(
            "is not empty, and what it holds was not unpacked by unpackenv",
            where=target,
            hint="Name an empty or absent directory, or ask for --in-place (UNPACKENV_IN_PLACE=yes)",
        )
    if mounts.is_mount(target) or not os.access(os.path.dirname(target), os.W_OK):
        return Inside(target)
    return Sibling(target, ours)


def _is_ours(target: str) -> bool:
    """Whether all that a directory holds came from archives, so that another one may replace it."""
    return not is_shared(target) and (os.path.exists(os.path.join(target, stamp.NAME)) or os.path.exists(_mark(target)))


def is_shared(target: str) -> bool:
    """Whether a target was filled in place, so that others may have files in it, too."""
    return os.path.exists(os.path.join(target, _SHARED))


def forget(directory: str) -> None:
    """Take away what is ours in a tree, so that the files of the archive are left and nothing else."""
    for name in os.listdir(directory):
        if name.startswith(OURS):
            os.unlink(os.path.join(directory, name))


def tree_entries(directory: str) -> list[str]:
    """Return the names in a target that are neither ours nor the file system's."""
    return [name for name in os.listdir(directory) if not name.startswith(OURS) and name != _LOST_AND_FOUND]


def remove_tree(path: str) -> None:
    """Remove a file, or a directory and all below it, without following links; gone already is fine.

    A directory is closed to others first, and what is below it is found from its descriptor, so
    that nobody can put a link in the way.
    """
    try:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # macOS and some file systems say EPERM of a directory
        pass
    try:
        root = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
    except PermissionError:
        os.chmod(path, 0o700)
        root = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
    try:
        _empty(root)
    finally:
        os.close(root)
    os.rmdir(path)


def _empty(root: int) -> None:
    """Remove all that is below an open directory, level by level: as deep as a path may be."""
    directories = [""]
    for directory in directories:  # grows as they are found
        try:
            fd = os.open(directory or ".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        except PermissionError:
            os.chmod(directory or ".", 0o700, dir_fd=root)
            fd = os.open(directory or ".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        try:
            os.fchmod(fd, 0o700)
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(os.path.join(directory, entry.name))
                    else:
                        os.unlink(entry.name, dir_fd=fd)
        finally:
            os.close(fd)
    for directory in reversed(directories[1:]):
        os.rmdir(directory, dir_fd=root)


def _mark(target: str) -> str:
    return os.path.join(target, OURS + "unfinished")


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
