"""Write a tree: directories, files whole or in pieces, links, and last their modes and times.

Everything is created relative to a directory descriptor with `O_EXCL | O_NOFOLLOW`, and links are
made after all data, so nothing is ever written through a link of the archive. In place, each file
is written next to the one that it replaces and renamed over it.
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
from unpackenv.start import stamp
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER = 0o700
_PATH_MAX = 4096
# Permissions, and disks and servers that fail: another place may do.
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
PARTIAL = stamp.PARTIAL.encode()


class TreeWriter:
    """Creates the members of an archive in a directory that holds nothing; paths are relative to `root_fd`.

    `umask` is that of the process meanwhile: modes that it would cut are set again. `target` is the path at which the
    tree will be, free of links. A failure is raised as an `OSError`, for `member_error` to translate.
    """

    replaces = False
    """Whether existing files are replaced: then two members of one path would go unnoticed, and a directory may be
    at another path than its own, through a link that was there before."""

    def __init__(self, root_fd: int, umask: int, target: str) -> None:
        self.root_fd = root_fd
        self._umask = umask
        self._target = os.fsencode(target)

    # --- directories ---

    def make_directory(self, path: bytes, mode: int) -> bytes:
        """Create a directory and return the path at which it is to be found."""
        os.mkdir(path, mode | _OWNER, dir_fd=self.root_fd)
        if self._umask & _OWNER:
            os.chmod(path, mode | _OWNER, dir_fd=self.root_fd)
        return path

    def open_directory(self, path: bytes) -> int:
        """Return a descriptor of a directory that `make_directory` returned; the caller closes it."""
        return os.open(path or b".", _DIRECTORY, dir_fd=self.root_fd)

    def finish_directory(self, path: bytes, mode: int, mtime: int, made: int) -> None:
        """Set mode and mtime of a directory that will not change any more; it was `made` with another mode."""
        if self.replaces or mode != (made | _OWNER) & ~self._umask:
            os.chmod(path, mode, dir_fd=self.root_fd)
        os.utime(path, (mtime, mtime), dir_fd=self.root_fd, follow_symlinks=False)

    # --- files ---

    def write_file(self, directory: int, name: bytes, mode: int, mtime: int, data: memoryview, partial: bytes) -> None:
        """Create a whole file in the open `directory`; `partial` is its name at first if it replaces another."""
        fd = os.open(name, _CREATE, mode, dir_fd=directory)
        try:
            if data:
                _write(fd, data)
            if mode & self._umask:
                os.fchmod(fd, mode)
            os.utime(fd, (mtime, mtime))
        except OSError:
            os.unlink(name, dir_fd=directory)  # in place, nothing else removes it
            raise
        finally:
            os.close(fd)

    def begin_file(self, path: bytes, number: int) -> bytes:
        """Create an empty file that several pieces will fill, the `number`th; return the path to fill it at."""
        os.close(os.open(path, _CREATE, 0o600, dir_fd=self.root_fd))
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
        """Give a file that was written in pieces at the path `at` its mode, mtime and path."""
        os.chmod(at, mode, dir_fd=self.root_fd)
        os.utime(at, (mtime, mtime), dir_fd=self.root_fd, follow_symlinks=False)

    # --- links ---

    def symlink(self, target: bytes, path: bytes, mtime: int) -> None:
        """Create a symlink, which may point anywhere: nothing is written through it."""
        os.symlink(target, path, dir_fd=self.root_fd)
        os.utime(path, (mtime, mtime), dir_fd=self.root_fd, follow_symlinks=False)

    def hard_link(self, existing: bytes, path: bytes) -> None:
        """Create a second name of a file of the archive."""
        os.link(existing, path, src_dir_fd=self.root_fd, dst_dir_fd=self.root_fd, follow_symlinks=False)


class InPlaceWriter(TreeWriter):
    """Creates members in a directory that is in use: directories and files may be there already.

    A file is written next to the one that it replaces, as a partial file, and renamed over it. The directories in which
    partial files may be are appended to the journal, a file below the root that the staging has made.
    """

    replaces = True

    def make_directory(self, path: bytes, mode: int) -> bytes:
        """Create a directory if it is missing; an existing link to one inside the target is resolved, once."""
        try:
            path = super().make_directory(path, mode)
        except FileExistsError:
            path = self._existing_directory(path)
        self._note(path)
        return path

    def _note(self, path: bytes) -> None:
        """Note a directory in the journal, before anything is made in it."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(stamp.UNFINISHED_MARK, flags, dir_fd=self.root_fd)
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
                "may be written by everybody: others could put a link in the way of the files below it",
                where=os.fsdecode(os.path.join(self._target, path)),
                hint="Remove that permission (chmod o-w)",
            )
        return path

    def write_file(self, directory: int, name: bytes, mode: int, mtime: int, data: memoryview, partial: bytes) -> None:
        """Create a whole file, under the name `partial` until it replaces what is there."""
        create = super().write_file
        try:
            create(directory, name, mode, mtime, data, partial)
        except FileExistsError:
            self._create_partial(partial, directory, lambda: create(directory, partial, mode, mtime, data, partial))
            os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)

    def begin_file(self, path: bytes, number: int) -> bytes:
        """Create a partial file that several pieces will fill."""
        partial = _in_directory_of(path, b"file%d" % number)
        create = super().begin_file
        self._create_partial(partial, self.root_fd, lambda: create(partial, number))
        return partial

    def _create_partial(self, path: bytes, directory: int, create: Callable[[], object]) -> None:
        try:
            create()
        except FileExistsError:
            os.unlink(path, dir_fd=directory)  # of a start that was killed
            create()

    def end_file(self, at: bytes, path: bytes, mode: int, mtime: int) -> None:
        super().end_file(at, path, mode, mtime)
        os.rename(at, path, src_dir_fd=self.root_fd, dst_dir_fd=self.root_fd)

    def symlink(self, target: bytes, path: bytes, mtime: int) -> None:
        create = super().symlink
        self._replace(path, lambda partial: create(target, partial, mtime))

    def hard_link(self, existing: bytes, path: bytes) -> None:
        create = super().hard_link
        self._replace(path, lambda partial: create(existing, partial))

    def _replace(self, path: bytes, create: Callable[[bytes], None]) -> None:
        """Let `create` make a link under another name, and rename it over what is there."""
        partial = _in_directory_of(path, b"link")
        self._remove(partial)
        create(partial)
        os.rename(partial, path, src_dir_fd=self.root_fd, dst_dir_fd=self.root_fd)
        self._remove(partial)  # rename does nothing between two names of one file

    def _remove(self, path: bytes) -> None:
        try:
            os.unlink(path, dir_fd=self.root_fd)
        except FileNotFoundError:
            pass


def _in_directory_of(path: bytes, name: bytes) -> bytes:
    """Return the path of a partial file next to `path`."""
    directory, slash, _ = path.rpartition(b"/")
    return directory + slash + PARTIAL + name


def _write(fd: int, data: memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def member_error(error: OSError, path: str) -> UnpackenvError:
    """Translate an `OSError` for the member of an archive at `path`."""
    if error.errno in (errno.EEXIST, errno.ELOOP):
        return ArchiveUnsafe(f"two members of the archive have this path ({error.strerror})", where=_shortened(path))
    if error.errno == errno.ENAMETOOLONG:
        return ArchiveUnsupported(
            f"a member's name, or what a link points to, is longer than the file system allows ({error.strerror})",
            where=_shortened(path),
            hint="Shorten it, and make the archive again; Linux allows names of 255 bytes, and links of 4,095",
        )
    return target_error(error, path)


def target_error(error: OSError, path: str) -> UnpackenvError:
    """Translate an `OSError` for the path of the target, or for one next to or below it."""
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
