"""Writing a tree: directories, files whole or in pieces, links, and last their modes and times.

Everything is created relative to a directory descriptor with `O_EXCL | O_NOFOLLOW`, and links are
made after all data, so nothing is ever written through a link that the archive brought. In place,
each file is written beside the one that it replaces and renamed over it.
"""

from __future__ import annotations

import errno
import stat

from unpackenv.errors import (
    ArchiveUnsafe,
    ArchiveUnsupported,
    NoSpace,
    TargetNotWritable,
    TargetRefused,
    TargetUntrusted,
    UnpackenvError,
    UnpackFailed,
)
from unpackenv.unpatched import os

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER = 0o700
_PATH_MAX = 4096
# Permissions, and disks and servers that fail: what is wrong is the place.
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
PARTIAL = b".unpackenv.partial."


class Tree:
    """The directory below which an archive's members are created; paths are relative to `root_fd`.

    `umask` is the mask that the process has while it works: modes that it would cut are set again.
    `target` is the path of the target, free of links.
    With a `journal`, the name of a file below the root, the tree is filled in place: directories and
    files may be there already. The directories in which partial files may be are appended to it.
    """

    def __init__(self, root_fd: int, umask: int, target: str, journal: str = "") -> None:
        self.root_fd = root_fd
        self.in_place = bool(journal)
        self._journal = journal
        self._umask = umask
        self._target = os.fsencode(target)

    # --- directories ---

    def make_directory(self, path: bytes, mode: int) -> bytes:
        """Create a directory and return the path at which it is to be found.

        In place, a link to a directory inside the target that was there before is resolved, once.
        """
        try:
            os.mkdir(path, mode | _OWNER, dir_fd=self.root_fd)
            if self._umask & _OWNER:
                os.chmod(path, mode | _OWNER, dir_fd=self.root_fd)
        except FileExistsError:
            if not self.in_place:
                raise
            path = self._existing_directory(path)
        if self._journal:
            self._note(path)
        return path

    def _note(self, path: bytes) -> None:
        """Tell in the journal of a directory, before anything is made in it."""
        fd = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.root_fd)
        try:
            _write(fd, memoryview(path + b"\0"))
        finally:
            os.close(fd)

    def _existing_directory(self, path: bytes) -> bytes:
        status = os.stat(path, dir_fd=self.root_fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            root = self._target
            resolved = os.path.realpath(os.path.join(root, path))
            # Beyond PATH_MAX `realpath` takes a link for a directory.
            if not resolved.startswith(root.rstrip(b"/") + b"/") or len(resolved) >= _PATH_MAX:
                raise TargetRefused(
                    "is a link that leaves the target, and is not followed",
                    where=os.fsdecode(os.path.join(root, path)),
                    hint="Unpack into a directory without such links",
                )
            path = os.path.relpath(resolved, root)
            status = os.stat(path, dir_fd=self.root_fd, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(path))
        if status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX:
            raise TargetUntrusted(
                "may be written by everybody, who could put a link in the way of what is written below it",
                where=os.fsdecode(os.path.join(self._target, path)),
                hint="Take the right from others (chmod o-w)",
            )
        return path

    def open_directory(self, path: bytes) -> int:
        """Return a descriptor of a directory that `make_directory` returned; the caller closes it."""
        return os.open(path or b".", _DIRECTORY, dir_fd=self.root_fd)

    def finish_directory(self, path: bytes, mode: int, mtime: int, made: int) -> None:
        """Set mode and mtime of a directory that will not change any more; it was `made` with another mode."""
        if self.in_place or mode != (made | _OWNER) & ~self._umask:
            os.chmod(path, mode, dir_fd=self.root_fd)
        os.utime(path, (mtime, mtime), dir_fd=self.root_fd, follow_symlinks=False)

    # --- files ---

    def write_file(self, directory: int, name: bytes, mode: int, mtime: int, data: memoryview, partial: bytes) -> None:
        """Create a whole file in the open `directory`; `partial` is its name meanwhile where it replaces another."""
        at = name
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=directory)
        except FileExistsError:
            if not self.in_place:
                raise
            at = partial
            fd = self._create(at, mode, directory)
        try:
            if data:
                _write(fd, data)
            if mode & self._umask:
                os.fchmod(fd, mode)
            os.utime(fd, (mtime, mtime))
        except OSError:
            os.unlink(at, dir_fd=directory)  # in place nobody else would
            raise
        finally:
            os.close(fd)
        if at != name:
            os.rename(at, name, src_dir_fd=directory, dst_dir_fd=directory)

    def begin_file(self, path: bytes, number: int) -> bytes:
        """Create an empty file that several pieces will fill; return the path to fill it at."""
        directory = path.rpartition(b"/")[0]
        if self.in_place:
            path = (directory + b"/" if directory else b"") + PARTIAL + b"file%d" % number
        os.close(self._create(path, 0o600, self.root_fd))
        return path

    def write_piece(self, path: bytes, data: memoryview, offset: int) -> None:
        """Write a piece of a file that `begin_file` created, at its own offset."""
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.root_fd)
        try:
            while data:
                written = os.pwrite(fd, data, offset)
                data = data[written:]
                offset += written
        finally:
            os.close(fd)

    def end_file(self, at: bytes, path: bytes, mode: int, mtime: int) -> None:
        """Give a file that was written in pieces its mode, mtime and name."""
        os.chmod(at, mode, dir_fd=self.root_fd)
        os.utime(at, (mtime, mtime), dir_fd=self.root_fd, follow_symlinks=False)
        if at != path:
            os.rename(at, path, src_dir_fd=self.root_fd, dst_dir_fd=self.root_fd)

    def _create(self, name: bytes, mode: int, directory: int) -> int:
        try:
            return os.open(name, _CREATE, mode, dir_fd=directory)
        except FileExistsError:
            if not self.in_place:
                raise
            os.unlink(name, dir_fd=directory)  # a partial file of a start that was killed
            return os.open(name, _CREATE, mode, dir_fd=directory)

    # --- links ---

    def symlink(self, target: bytes, path: bytes, mtime: int) -> None:
        """Create a symlink, which may point anywhere: nothing is written through it."""
        at = self._link_place(path)
        os.symlink(target, at, dir_fd=self.root_fd)
        os.utime(at, (mtime, mtime), dir_fd=self.root_fd, follow_symlinks=False)
        self._link_done(at, path)

    def hard_link(self, existing: bytes, path: bytes) -> None:
        """Create a second name of a file of the archive."""
        at = self._link_place(path)
        os.link(existing, at, src_dir_fd=self.root_fd, dst_dir_fd=self.root_fd, follow_symlinks=False)
        self._link_done(at, path)

    def _link_place(self, path: bytes) -> bytes:
        if not self.in_place:
            return path
        directory, slash, _ = path.rpartition(b"/")
        at = directory + slash + PARTIAL + b"link"
        try:
            os.unlink(at, dir_fd=self.root_fd)
        except FileNotFoundError:
            pass
        return at

    def _link_done(self, at: bytes, path: bytes) -> None:
        if at != path:
            os.rename(at, path, src_dir_fd=self.root_fd, dst_dir_fd=self.root_fd)
            try:
                os.unlink(at, dir_fd=self.root_fd)  # rename does nothing between two names of one file
            except FileNotFoundError:
                pass


def _write(fd: int, data: memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def member_refused(error: OSError, path: str) -> UnpackenvError:
    """Return the error of ours that says what a refusal by the operating system of a member of an archive means."""
    if error.errno in (errno.EEXIST, errno.ELOOP):
        return ArchiveUnsafe(f"two members of the archive want this path ({error.strerror})", where=_shortened(path))
    if error.errno == errno.ENAMETOOLONG:
        return ArchiveUnsupported(
            f"a member's name, or what a link points to, is longer than the file system takes ({error.strerror})",
            where=_shortened(path),
            hint="Shorten it, and make the archive anew; Linux takes names of 255 bytes, and links of 4,095",
        )
    return translated(error, path)


def translated(error: OSError, path: str) -> UnpackenvError:
    """Return the error of ours that says what a refusal by the operating system at `path` means."""
    text = error.strerror or str(error)
    path = _shortened(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"cannot be written ({text})", where=path, hint="Free space or inodes, or name another target")
    if error.errno in _NOT_WRITABLE:
        return TargetNotWritable(
            f"cannot be written ({text})", where=path, hint="Name a writable directory with UNPACKENV_TARGET"
        )
    if error.errno in (errno.EEXIST, errno.ELOOP, errno.ENOTDIR):
        return TargetRefused(
            f"something else is there ({text})",
            where=path,
            hint="Remove it, or name another target with UNPACKENV_TARGET",
        )
    return UnpackFailed(f"the operating system refused a step of the unpack ({text})", where=path)


def _shortened(path: str) -> str:
    return path if len(path) < _PATH_MAX else f"{path[:200]}…"
