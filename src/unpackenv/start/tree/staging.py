"""Staging and publishing: how a tree gets to its place without any start seeing half of it.

    Sibling   absent or empty directory: unpack next to it, rename over it
    Inside    mount root, or a parent that cannot be written: unpack in a directory inside it, rename
              the entries one by one, stamp last
    Left      a tree that was not filled to its end: go on with it where it is, stamp last
    InPlace   by explicit choice: replace file by file, stamp last

Each works under its lock, removes what a killed start left behind, and removes an old stamp before
it touches the tree of that stamp.
"""

from __future__ import annotations

import errno

from unpackenv.archive import RESERVED
from unpackenv.archive.facts import first
from unpackenv.errors import TargetRefused, TargetUntrusted
from unpackenv.start import stamp
from unpackenv.start.machine import mounts
from unpackenv.start.tree.removal import remove_tree
from unpackenv.start.tree.writer import InPlaceWriter, TreeWriter
from unpackenv.unpatched import os

_NOBODY = 65534  # what a network file system may make of root
_LOST_AND_FOUND = "lost+found"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Staging:
    """How one tree gets to its place: `open`, write, `publish`; or `discard`.

    `target` is the absolute path of the tree, free of links, and `lock` that of the lock under which all of this is
    done. A method that fails raises an `OSError` or an `UnpackenvError`.
    """

    target: str
    lock: str

    def open(self) -> int:
        """Make the directory to write the tree in and return its descriptor; what a killed start left is removed."""
        raise NotImplementedError

    def tree(self, fd: int) -> int:
        """Return a descriptor of the directory that will be the tree; `fd` is what `open` returned."""
        raise NotImplementedError

    def writer(self, fd: int, umask: int) -> TreeWriter:
        """Return a writer for the directory `fd` that `open` returned; `umask` is that of the process."""
        return TreeWriter(fd, umask, self.target)

    def space_freed_first(self) -> tuple[int, int]:
        """Return how many bytes and files `open` will remove."""
        return 0, 0

    def publish(self, fd: int, facts: dict[str, list[str]], mode: int) -> None:
        """Make the tree in the directory `fd` the target, with a stamp of `facts`, and with `mode` if it is new."""
        raise NotImplementedError

    def discard(self) -> None:
        """Remove the unfinished tree of this start or of a killed one: no later start must take it for complete."""
        raise NotImplementedError


class Sibling(Staging):
    """Unpack into a directory next to the target and rename it over the target."""

    def __init__(self, target: str, is_cache: bool) -> None:
        """In a cache of unpackenv (`is_cache`), a tree may be replaced even without a stamp."""
        self._is_cache = is_cache
        self.target = target
        self.lock = stamp.beside(target, "lock")
        self._work = stamp.beside(target, "work")
        self._old = stamp.beside(target, "old")
        self.leftovers = (self._work, self._old)

    def open(self) -> int:
        self.discard()
        return _make_own(self._work)

    def tree(self, fd: int) -> int:
        return os.dup(fd)

    def publish(self, fd: int, facts: dict[str, list[str]], mode: int) -> None:
        stamp.write(fd, facts)
        os.fchmod(fd, mode)
        if os.path.lexists(self.target) and (self._is_cache or _may_be_replaced(self.target)):
            self._put_away()
            remove_tree(self._old)  # now: once the new tree is there, no start looks for the old one
        os.rename(self._work, self.target)
        if not os.path.samestat(os.lstat(self.target), os.fstat(fd)):
            raise _replaced_error(self._work)

    def _put_away(self) -> None:
        """Move the old tree away with its stamp, in one step if possible."""
        try:
            os.rename(self.target, self._old)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # overlayfs does not rename a directory of a lower layer. The mark is removed last: it shows
            # the next start that the rest is unpackenv's.
            stamp.unfinish(self.target)
            for name in tree_entries(self.target):
                remove_tree(os.path.join(self.target, name))
            remove_tree(self.target)

    def discard(self) -> None:
        for path in self.leftovers:
            remove_tree(path)


class Inside(Staging):
    """Unpack into a directory inside the target, which stays; a mark shows an unpack that was killed."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.lock = os.path.join(target, stamp.LOCK)
        self._work = os.path.join(target, stamp.WORK)

    def space_freed_first(self) -> tuple[int, int]:
        """Return the bytes and files of the old tree."""
        return _size_of(self.target)

    def open(self) -> int:
        stamp.unfinish(self.target)
        self._clear()
        return _make_own(self._work)

    def tree(self, fd: int) -> int:
        return os.open(self.target, _DIRECTORY)

    def publish(self, fd: int, facts: dict[str, list[str]], mode: int) -> None:
        """Move the tree's entries into the target, then stamp it; its own mode stays."""
        target = os.open(self.target, _DIRECTORY)
        try:
            for name in os.listdir(fd):
                os.rename(name, name, src_dir_fd=fd, dst_dir_fd=target)
            os.rmdir(self._work)
            stamp.write(target, facts, stamp.UNFINISHED_MARK)
        finally:
            os.close(target)

    def discard(self) -> None:
        """Empty the target again."""
        if stamp.state_of(self.target) == stamp.UNFINISHED:
            if os.path.lexists(os.path.join(self.target, stamp.NAME)):  # it was not filled to its end
                stamp.unfinish(self.target)
            self._clear()
            os.unlink(os.path.join(self.target, stamp.UNFINISHED_MARK))

    def _clear(self) -> None:
        remove_tree(self._work)
        for name in stamp.FILL_NAMES:
            remove_tree(os.path.join(self.target, name))
        for name in tree_entries(self.target):
            remove_tree(os.path.join(self.target, name))


class Left(Staging):
    """Go on with a tree that is at its place, and was left before all of its files were filled.

    `anew` is how to replace it instead.
    """

    def __init__(self, anew: Staging) -> None:
        self.anew = anew
        self.target = anew.target
        self.lock = anew.lock

    def open(self) -> int:
        stamp.unfinish(self.target)
        return os.open(self.target, _DIRECTORY)

    def tree(self, fd: int) -> int:
        return os.dup(fd)

    def space_freed_first(self) -> tuple[int, int]:
        """Return the bytes and files of the tree: it is there."""
        return _size_of(self.target)

    def publish(self, fd: int, facts: dict[str, list[str]], mode: int) -> None:
        """Stamp the target again; its own mode stays."""
        stamp.write(fd, facts, stamp.UNFINISHED_MARK)

    def discard(self) -> None:
        """Leave the tree as it is: a start that cannot go on with it has it replaced."""


class InPlace(Staging):
    """Replace files one by one in a directory that is in use; a mark shows that others have files in it, too.

    Until the tree is complete, a second mark holds the journal: the directories in which partial files may be.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.lock = os.path.join(target, stamp.LOCK)

    def open(self) -> int:
        """Mark the target as unfinished and return it."""
        self.discard()
        stamp.touch(os.path.join(self.target, stamp.IN_PLACE_MARK))
        stamp.unfinish(self.target)
        return os.open(self.target, _DIRECTORY)

    def writer(self, fd: int, umask: int) -> TreeWriter:
        return InPlaceWriter(fd, umask, self.target)

    def publish(self, fd: int, facts: dict[str, list[str]], mode: int) -> None:
        """Stamp the target; its own mode stays."""
        stamp.write(fd, facts, stamp.UNFINISHED_MARK)

    def discard(self) -> None:
        """Remove partial files; replaced files stay, and the mark shows the next start that the tree is unfinished."""
        root = os.open(self.target, _DIRECTORY)
        try:
            for directory in [b".", *_read_journal(root)]:
                _remove_partial_files(root, directory)
        finally:
            os.close(root)


def _read_journal(root: int) -> list[bytes]:
    try:
        fd = os.open(stamp.UNFINISHED_MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        return file.read().split(b"\0")[:-1]  # the last path may be cut off: then nothing was made in it


def _remove_partial_files(root: int, directory: bytes) -> None:
    try:
        fd = os.open(directory, _DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        for name in os.listdir(fd):
            if name.startswith(stamp.PARTIAL):
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def choose_staging(target: str, in_place: bool, is_cache: bool) -> Staging:
    """Choose how to publish at `target`, an absolute path; raises `TargetRefused`.

    In a cache of unpackenv (`is_cache`), whatever is there came from an archive, stamp or not.
    """
    if not os.path.isdir(target):
        if os.path.lexists(target) and not os.path.isdir(target):  # else another start is just replacing it
            raise TargetRefused("is not a directory", where=target, hint="Name another target")
        return Sibling(target, is_cache)
    if in_place or target == "/":
        return InPlace(target)
    if not is_cache and not _may_be_replaced(target) and tree_entries(target):
        raise TargetRefused(
            "is not empty, and what it holds was not unpacked by unpackenv",
            where=target,
            hint="Name an empty or absent directory, or use --in-place (UNPACKENV_IN_PLACE=yes)",
        )
    if mounts.is_mount(target) or not os.access(os.path.dirname(target), os.W_OK):
        return Inside(target)
    return Sibling(target, is_cache)


def _size_of(tree: str) -> tuple[int, int]:
    """Return how many bytes and files the stamp of a tree names; 0 without a stamp."""
    stamped = stamp.read(tree)
    if stamped is None:
        return 0, 0
    facts, fd = stamped
    os.close(fd)
    return int(first(facts, "unpacked-size", "0")), int(first(facts, "files", "0"))


def _may_be_replaced(target: str) -> bool:
    """Whether all that a directory holds came from archives, so that another one may replace it."""
    return not stamp.is_shared(target) and stamp.state_of(target) != stamp.NO_TREE


def forget(directory: str) -> None:
    """Remove unpackenv's own files from a tree: only those of the archive are left."""
    for name in os.listdir(directory):
        if name.startswith(RESERVED):
            os.unlink(os.path.join(directory, name))


def tree_entries(directory: str) -> list[str]:
    """Return the names in a target that are neither unpackenv's nor the file system's; none if it does not exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [name for name in names if not name.startswith(RESERVED) and name != _LOST_AND_FOUND]


def _make_own(path: str) -> int:
    """Make a directory and return its descriptor; raises `TargetUntrusted` if another one replaced it meanwhile."""
    os.mkdir(path, 0o700)
    fd = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
    status = os.fstat(fd)
    users = (os.geteuid(), _NOBODY) if os.geteuid() == 0 else (os.geteuid(),)
    if status.st_uid not in users or os.listdir(fd):
        os.close(fd)
        raise _replaced_error(path)
    return fd


def _replaced_error(path: str) -> TargetUntrusted:
    return TargetUntrusted(
        "was replaced just after it was made: another user may write to its parent, and did",
        where=path,
        hint="Name a target in a directory that only you may write to, or one with the sticky bit",
    )
