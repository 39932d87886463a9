"""Verify an archive against itself.

A start trusts the TOC alone; stock tar trusts the headers in the tar stream alone. Both unpack an
archive that `verify_archive` passes to the same tree. This is not on the start path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from unpackenv.archive import facts, tarstream, trailer
from unpackenv.archive.blob import FileBlob
from unpackenv.archive.frames import decoded
from unpackenv.archive.reader import Archive, open_archive
from unpackenv.archive.tarstream import (
    DIRECTORY,
    END_OF_ARCHIVE,
    FILE,
    HARD_LINK,
    NATIVE_TYPES,
    SYMLINK,
    Member,
    Scanner,
    shown,
)
from unpackenv.archive.toc import Toc
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported

_ALL_MODE_BITS = 0o7777


class Checked(NamedTuple):
    """The figures of an archive that is sound; sizes are in bytes."""

    digest: str
    frames: int
    members: int
    files: int
    unpacked_size: int


def verify_archive(path: str, digest: str = "", on_progress: Callable[[int], None] = lambda size: None) -> Checked:
    """Check every byte of the native archive at `path`, and that TOC, tar headers and facts agree.

    With `digest` (hex) it must be that archive. `on_progress` gets the bytes of the tar
    stream checked so far. Raises the errors of `open_archive`, for the first difference.
    """
    with open_archive(path, digest) as archive:
        return verify_open(archive, on_progress)


def verify_open(archive: Archive, on_progress: Callable[[int], None] = lambda size: None) -> Checked:
    """Check an open archive as `verify_archive` does; of a remote one not whether stock tools find each frame."""
    try:
        archive.toc.check_unique()
        _check_facts(archive)
        _check_stream(archive, on_progress)
        if isinstance(archive.blob, FileBlob):
            _check_container(archive, archive.blob.fd)
    except (ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported) as error:
        error.where = error.where or archive.path
        raise
    toc = archive.toc
    return Checked(archive.digest, len(toc.frame_raw), toc.member_count, len(toc.file_names), toc.unpacked_size)


def _check_facts(archive: Archive) -> None:
    toc = archive.toc
    counted = {
        "codec": archive.codec.name,
        "frames": len(toc.frame_raw),
        "files": len(toc.file_names),
        "members": toc.member_count,
        "unpacked-size": toc.unpacked_size,
    }
    for key, value in counted.items():
        recorded = facts.first(archive.facts, key)
        if recorded != str(value):
            raise ArchiveCorrupt(f"its facts say {key}={recorded}, its table of contents {value}")


def _check_stream(archive: Archive, on_progress: Callable[[int], None]) -> None:
    """Compare the tar stream, header by header, with the TOC."""
    mark = tarstream.mark()
    scanner = Scanner(_ALL_MODE_BITS, NATIVE_TYPES)
    listed = _Listed(archive.toc)
    tail = b""
    size = 0
    head = b""
    for raw in decoded(archive):
        head += raw[: len(mark) - len(head)]
        for member in scanner.feed(memoryview(raw)):
            listed.compare(member)
        tail = (tail + raw[-len(END_OF_ARCHIVE) :])[-len(END_OF_ARCHIVE) :]
        size += len(raw)
        on_progress(size)
    listed.close()
    if head != mark:
        raise ArchiveCorrupt("its tar stream does not begin with the mark of unpackenv")
    if tail != END_OF_ARCHIVE or scanner.end != archive.toc.raw_size - len(END_OF_ARCHIVE):
        raise ArchiveCorrupt("its tar stream does not end in exactly two blocks of zeros")


def _check_container(archive: Archive, fd: int) -> None:
    """Check that each frame ends where stock tools find its end."""
    toc = archive.toc
    identity = trailer.identify_open(fd, archive.path)
    footer = identity.footer
    assert footer is not None  # open_archive has read it
    frames = list(zip(toc.frame_stored, toc.frame_raw))
    if not archive.codec.frames_end_there(fd, identity.size, frames, footer.columns_offset):
        raise ArchiveCorrupt("its frames end elsewhere than its table of contents says")


class _Listed:
    """The members that a TOC lists, crossed off as they come in the tar stream.

    Rows of one kind are in the order of the stream, so one cursor for each kind is enough.
    """

    def __init__(self, toc: Toc) -> None:
        self._rows = {
            DIRECTORY: _listed_directories(toc),
            FILE: _listed_files(toc),
            SYMLINK: _listed_symlinks(toc),
            HARD_LINK: _listed_hard_links(toc),
        }
        self._hard_file = toc.hard_file
        self._seen = dict.fromkeys(self._rows, 0)

    def compare(self, member: Member) -> None:
        """Raise `ArchiveCorrupt` unless `member` is the next one of its kind in the TOC."""
        if member.kind == DIRECTORY and member.path.endswith(b"/"):
            member.path = member.path[:-1]
        expected = next(self._rows[member.kind], None)
        if expected is None:
            raise _differs(member.path, f"its tar stream has a {member.kind} that its table of contents does not list")
        for field, value in expected.items():
            actual = getattr(member, field)
            if actual != value:
                path = expected["path"]
                raise _differs(
                    path if isinstance(path, bytes) else member.path,
                    f"its table of contents says {field} {_text(value)}, its tar header {_text(actual)}",
                )
        if member.kind == HARD_LINK and self._hard_file[self._seen[HARD_LINK]] >= self._seen[FILE]:
            raise _differs(member.path, "a hard link comes before the file that it names")
        self._seen[member.kind] += 1

    def close(self) -> None:
        """Raise `ArchiveCorrupt` if the TOC lists members that the stream does not have."""
        for kind, rows in self._rows.items():
            for expected in rows:
                path = expected["path"]
                assert isinstance(path, bytes)
                raise _differs(path, f"its table of contents lists a {kind} that its tar stream does not have")


_Fields = dict[str, "bytes | int"]


def _listed_directories(toc: Toc) -> Iterator[_Fields]:
    for path, mode, mtime in list(zip(toc.dir_paths(), toc.dir_mode, toc.dir_mtime))[1:]:
        yield {"path": path[:-1], "mode": mode, "mtime": mtime}


def _listed_files(toc: Toc) -> Iterator[_Fields]:
    of = toc.dir_paths()
    columns = zip(toc.file_dir, toc.file_names, toc.file_mode, toc.file_mtime, toc.file_size, toc.file_position)
    for directory, name, mode, mtime, size, position in columns:
        yield {"path": of[directory] + name, "mode": mode, "mtime": mtime, "size": size, "position": position}


def _listed_symlinks(toc: Toc) -> Iterator[_Fields]:
    of = toc.dir_paths()
    for directory, name, mtime, target in zip(toc.link_dir, toc.link_names, toc.link_mtime, toc.link_targets):
        yield {"path": of[directory] + name, "mtime": mtime, "link": target}


def _listed_hard_links(toc: Toc) -> Iterator[_Fields]:
    of = toc.dir_paths()
    for directory, name, row in zip(toc.hard_dir, toc.hard_names, toc.hard_file):
        yield {
            "path": of[directory] + name,
            "link": of[toc.file_dir[row]] + toc.file_names[row],
            # Some readers give a link's mode and mtime to the inode that it shares.
            "mode": toc.file_mode[row],
            "mtime": toc.file_mtime[row],
        }


def _differs(path: bytes, what: str) -> ArchiveCorrupt:
    return ArchiveCorrupt(f"{shown(path)}: {what}", member=shown(path))


def _text(value: bytes | int) -> str:
    return repr(shown(value)) if isinstance(value, bytes) else str(value)
