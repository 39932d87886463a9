"""Write an archive: members in, frames, TOC and trailer out.

    members -> tar stream -> frames of a bounded raw size -> encoded in parallel -> written in order

Where a frame ends depends on the members and the frame size alone, so the bytes are the same
whatever the number of workers: a member that no longer fits begins a new frame, and one that is
larger than a frame is cut at every `frame_size` bytes. A frame also ends after the files that come first, and after the
small ones.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import accumulate

from unpackenv.archive import codecs, tarstream, trailer
from unpackenv.archive import facts as facts_text
from unpackenv.archive.codecs.base import Codec
from unpackenv.archive.pace import Pace
from unpackenv.archive.pooled import aside, in_order
from unpackenv.archive.tarstream import DIRECTORY, FILE, SYMLINK
from unpackenv.archive.toc import MEMBER_LIMIT, Toc
from unpackenv.errors import NoSpace, PackError, UnpackenvError

_READ = 1 << 20


class Input:
    """One member to be written; `link` is what a link names. A file's data is in `source`, from `offset` on."""

    __slots__ = ("kind", "link", "mode", "mtime", "offset", "path", "size", "source")

    def __init__(
        self,
        kind: str,
        path: bytes,
        mode: int,
        mtime: int,
        size: int = 0,
        link: bytes = b"",
        source: str = "",
        offset: int = 0,
    ) -> None:
        self.kind = kind
        self.path = path
        self.mode = mode
        self.mtime = mtime
        self.size = size
        self.link = link
        self.source = source
        self.offset = offset


FIRST_FRAME_SIZE = 4 << 20
"""The most bytes of a frame of files that come first, or of small ones: a start waits until such a frame is decoded."""


class Written:
    """What `write` made: its digest, its size in bytes, and its TOC."""

    __slots__ = ("digest", "size", "toc")

    def __init__(self, digest: str, size: int, toc: Toc) -> None:
        self.digest = digest
        self.size = size
        self.toc = toc


def write(
    path: str,
    members: Iterable[Input],
    facts: dict[str, list[str]],
    *,
    codec: str,
    level: int,
    frame_size: int,
    workers: int,
    first: int = 0,
    small: int = 0,
    size: int = 0,
    on_progress: Callable[[int], None] = lambda size: None,
) -> Written:
    """Write an archive of `members` to `path`, atomically, and return what was written.

    Members come parents first, but for the first `first` of them, and the next `small`: these are files, may come
    before their directories, and share no frame with what follows. `facts` are those that the caller knows; counts are
    added here. `size` is the approximate length of the tar stream, if that is known; `on_progress` gets the bytes of it
    encoded so far, several times a second, estimated within a frame. Raises `PackError` if a file cannot be read or
    shrinks meanwhile, `NoSpace` if the disk is full.
    """
    toc = Toc()
    encoding = codecs.get(codec)
    frames = _frames(_tar_stream(members, toc), frame_size, (first, small))
    facts = {**facts, **{name: [str(count)] for name, count in (("first", first), ("small", small)) if count}}
    partial = f"{path}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as out:
            out.write(encoding.prefix)
            digests, unpadded = [], []
            for raw_size, stored in _encoded(frames, encoding, level, frame_size, workers, on_progress):
                out.write(stored)
                toc.frame_stored.append(len(stored))
                toc.frame_raw.append(raw_size)
                digests.append(sha256(stored).digest())
                unpadded.append(encoding.unpadded_size(stored))
            toc.frame_sha256 = b"".join(digests)
            digest = _write_trailer(out.write, out.tell(), encoding, toc, unpadded, facts)
            out.flush()
            os.fsync(out.fileno())
            written = out.tell()
        os.replace(partial, path)
    except BaseException as error:
        if os.path.exists(partial):
            os.unlink(partial)
        if isinstance(error, OSError):
            raise _write_error(error, path, toc, size) from error
        raise
    return Written(digest, written, toc)


def _write_error(error: OSError, path: str, toc: Toc, size: int) -> UnpackenvError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return PackError(f"cannot be written ({error.strerror})", where=path)
    stored, raw = sum(toc.frame_stored), sum(toc.frame_raw)
    need = f"the archive takes about {stored * size / raw / 1e6:.1f} MB" if raw and size else "the archive does not fit"
    return NoSpace(
        f"is full, or your quota is used up: {need}, and {stored / 1e6:.1f} MB of it were written",
        where=os.path.dirname(path),
        hint="Make room there, or write the archive to another disk",
    )


def tar_stream(members: Iterable[Input], piece: int) -> Iterator[bytes]:
    """Yield the tar stream of an archive of `members`, in pieces of at most `piece` bytes; raises `PackError`."""
    yield from _frames(_tar_stream(members, Toc()), piece)


# --- members to tar stream ---------------------------------------------------------------------


def _tar_stream(members: Iterable[Input], toc: Toc) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yield each member as its size in the stream and its bytes, and add it to `toc`."""
    numbers = {b"": 0}
    files: dict[bytes, int] = {}
    homes: list[bytes] = []
    toc.dir_parent.append(0)
    toc.dir_mode.append(0)
    toc.dir_mtime.append(0)
    toc.dir_names.append(b"")
    mark = tarstream.mark()
    yield len(mark), iter((mark,))
    position = len(mark)
    for member in members:
        header = tarstream.header(member.kind, member.path, member.mode, member.mtime, member.size, member.link)
        directory, _, name = member.path.rpartition(b"/")
        if member.kind == DIRECTORY:
            numbers[member.path] = len(toc.dir_names)
            toc.dir_parent.append(numbers[directory])
            toc.dir_mode.append(member.mode)
            toc.dir_mtime.append(member.mtime)
            toc.dir_names.append(name)
        elif member.kind == FILE:
            files[member.path] = len(toc.file_names)
            homes.append(directory)
            toc.file_mode.append(member.mode)
            toc.file_mtime.append(member.mtime)
            toc.file_size.append(member.size)
            toc.file_position.append(position + len(header))
            toc.file_names.append(name)
        elif member.kind == SYMLINK:
            toc.link_dir.append(numbers[directory])
            toc.link_mtime.append(member.mtime)
            toc.link_names.append(name)
            toc.link_targets.append(member.link)
        else:
            toc.hard_dir.append(numbers[directory])
            toc.hard_file.append(files[member.link])
            toc.hard_names.append(name)
        size = len(header) + member.size + tarstream.padding(member.size)
        yield size, _member_bytes(header, member)
        position += size
    toc.file_dir.extend(numbers[directory] for directory in homes)  # a file may come before its directory
    yield len(tarstream.END_OF_ARCHIVE), iter((tarstream.END_OF_ARCHIVE,))


def _member_bytes(header: bytes, member: Input) -> Iterator[bytes]:
    yield header
    left = member.size
    if left:
        try:
            with open(member.source, "rb", buffering=0) as file:
                if member.offset:
                    file.seek(member.offset)
                while left and (piece := file.read(min(left, _READ))):
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise PackError(f"cannot be read ({error.strerror})", where=member.source) from error
    if left:
        raise PackError("shrank while it was packed", where=member.source, hint="Pack a tree that nothing writes to")
    yield bytes(tarstream.padding(member.size))


def _frames(
    members: Iterable[tuple[int, Iterator[bytes]]], frame_size: int, groups: tuple[int, ...] = ()
) -> Iterator[bytes]:
    """Yield the frames of the tar stream; `groups` of so many members come first, in small frames of their own."""
    frame = bytearray()
    ends = {1 + end for count, end in zip(groups, accumulate(groups)) if count}  # the mark is number 0
    last = max(ends, default=0)
    limit = min(frame_size, FIRST_FRAME_SIZE) if ends else frame_size
    for number, (size, pieces) in enumerate(members):
        if frame and (number in ends or len(frame) + size > limit):
            yield bytes(frame)
            frame.clear()
        if number == last:
            limit = frame_size
        for piece in pieces:
            frame += piece
            while len(frame) >= limit:
                yield bytes(frame[:limit])
                del frame[:limit]
    if frame:
        yield bytes(frame)


# --- frames to file ----------------------------------------------------------------------------


def _encoded(
    frames: Iterator[bytes], codec: Codec, level: int, frame_size: int, workers: int, on_progress: Callable[[int], None]
) -> Iterator[tuple[int, bytes]]:
    """Yield raw size and stored bytes of each frame, in order; `workers` threads encode."""
    local = threading.local()
    pace = Pace(codec, level)

    def encode(raw: bytes) -> tuple[int, bytes]:
        if not hasattr(local, "encode"):
            local.encode = codec.encoder(level, frame_size)
        with pace.frame(len(raw)):
            stored = local.encode(raw)
        return len(raw), stored

    def report() -> None:
        on_progress(pace.done())

    for encoded in in_order(encode, frames, workers, 2 * workers + 1, report):
        report()
        yield encoded


def _write_trailer(
    write: Callable[[bytes], object],
    end_of_frames: int,
    codec: Codec,
    toc: Toc,
    unpadded: list[int],
    facts: dict[str, list[str]],
) -> str:
    """Write what follows the frames (see `codecs.base`) and return the archive's digest in hex."""
    raw = toc.encode()
    columns = aside(lambda: codec.encode_columns(raw))
    text = facts_text.encode(
        {
            "codec": [codec.name],
            **facts,
            "frames": [str(len(toc.frame_raw))],
            "files": [str(len(toc.file_names))],
            "members": [str(toc.member_count)],
            "unpacked-size": [str(toc.unpacked_size)],
        }
    )
    too_long = len(text) > trailer.FACTS_LIMIT or max(len(raw), len(columns)) > trailer.COLUMNS_LIMIT
    if too_long or toc.member_count >= MEMBER_LIMIT:  # the root counts, too
        raise PackError("has more members, or longer facts, than an archive can list", members=toc.member_count)
    digest = sha256(columns + text).digest()
    before = codec.before_columns(list(zip(unpadded, toc.frame_raw)), len(columns), len(text))
    columns_offset = end_of_frames + len(before)
    facts_offset = columns_offset + len(columns) + codec.payload_offset
    footer = trailer.Footer(codec.name, columns_offset, len(columns), len(raw), facts_offset, len(text), digest)
    write(before + columns + codec.after_columns(text, footer.pack()))
    return digest.hex()
