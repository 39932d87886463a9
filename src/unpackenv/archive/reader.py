"""Read a native archive: an open one is checked, and reading it frame by frame bounds the memory."""

from __future__ import annotations

from hashlib import sha256
from itertools import accumulate

from unpackenv.archive import codecs, trailer
from unpackenv.archive import facts as facts_text
from unpackenv.archive.blob import Blob, FileBlob, Place
from unpackenv.archive.toc import END_OF_ARCHIVE_SIZE, FRAME_LIMIT, SHA256_SIZE, Toc
from unpackenv.errors import (
    ArchiveCorrupt,
    ArchiveUnsafe,
    ArchiveUnsupported,
    DigestMismatch,
)
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from unpackenv.archive.codecs.base import Decode

# The largest overhead, in bytes: of a frame that does not compress, of a member in the tar stream (headers with a long
# name and a long link target, and padding), of the streams in which an xz archive keeps facts and footer, and of the
# index record of a frame.
_STORED_OVERHEAD = 1 << 20
_MEMBER_OVERHEAD = 1 << 14
_CONTAINER_OVERHEAD = 1 << 10
_RECORD = 18


class Archive:
    """An open archive whose TOC, facts and container have been checked against its digest.

    The frames are checked one by one, as `read_frame` hands them out.
    """

    def __init__(self, blob: Blob, path: str, footer: trailer.Footer, facts: dict[str, list[str]], toc: Toc) -> None:
        self.blob = blob
        self.path = path
        self.codec = codecs.get(footer.codec)
        self.digest = footer.digest.hex()
        self.facts = facts
        self.toc = toc
        self._offsets = list(accumulate(toc.frame_stored, initial=len(self.codec.prefix)))

    def read_frame(self, number: int, buffer: memoryview | None = None) -> memoryview:
        """Return the stored bytes of a frame, in `buffer` if there is one, which must be large enough.

        Raises `ArchiveCorrupt` if their sha256 is not the TOC's.
        """
        stored = self.read_stored(number, buffer)
        self.check_frame(number, stored)
        return stored

    def read_stored(self, number: int, buffer: memoryview | None = None) -> memoryview:
        """Return the stored bytes of a frame as they are, unchecked."""
        place = self._place(number)
        stored = memoryview(bytearray(place.size)) if buffer is None else buffer[: place.size]
        self.blob.read_frame(stored, place)
        return stored

    def expect(self, frames: Iterable[int]) -> None:
        """Say which frames this process will read next (see `Blob.expect`)."""
        self.blob.expect([self._place(number) for number in frames])

    def _place(self, number: int) -> Place:
        digest = self.toc.frame_sha256[number * SHA256_SIZE : (number + 1) * SHA256_SIZE]
        return Place(self._offsets[number], self.toc.frame_stored[number], digest)

    def check_frame(self, number: int, stored: memoryview) -> None:
        """Raise `ArchiveCorrupt` unless these bytes are those of the frame."""
        place = self._place(number)
        if sha256(stored).digest() != place.digest:
            raise ArchiveCorrupt(
                f"frame {number} (byte {place.offset}) is damaged",
                where=self.path,
                frame=number,
                offset=place.offset,
                expected=place.digest.hex(),
                found=sha256(stored).hexdigest(),
            )

    def decoder(self) -> Decode:
        """Return a decoder for these frames, for the use of one thread (see `Codec.decoder`)."""
        return self.codec.decoder()

    def close(self) -> None:
        """Close what it is read from."""
        self.blob.end_reading()
        self.blob.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_archive(path: str, digest: str = "") -> Archive:
    """Open the native archive at `path` and check everything but its frames.

    With `digest` (hex) it must be that archive. Raises `ArchiveUnreadable`, `ArchiveUnsupported`,
    `ArchiveCorrupt`, `ArchiveUnsafe` or `DigestMismatch`, each naming `path`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            identity = trailer.identify_open(fd, path)
            if identity.footer is None:
                from unpackenv.archive import foreign

                raise foreign.not_native(fd, path)
            return _open(FileBlob(fd), path, identity.footer, digest)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise trailer.unreadable(error, path) from error
    except (ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported, DigestMismatch) as error:
        error.where = path
        raise


def open_blob(blob: Blob, path: str, digest: str) -> Archive:
    """Open the native archive in a blob, as `open_archive` does; `path` is its name for people."""
    try:
        identity = trailer.identify_blob(blob, path)
        if identity is None or identity.footer is None:
            raise ArchiveUnsupported("is no archive of `unpackenv pack`")
        return _open(blob, path, identity.footer, digest)
    except (ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported, DigestMismatch) as error:
        error.where = path
        raise


def _open(blob: Blob, path: str, footer: trailer.Footer, digest: str) -> Archive:
    columns = blob.read(footer.columns_size, footer.columns_offset)
    text = blob.read(footer.facts_size, footer.facts_offset)
    if sha256(columns + text).digest() != footer.digest:
        raise ArchiveCorrupt("its table of contents does not have the sha256 that its footer names")
    if digest and digest.lower() != footer.digest.hex():
        actual = footer.digest.hex()
        raise DigestMismatch(f"its digest is {actual}, but {digest} is required", digest=actual)
    toc = Toc.decode(codecs.get(footer.codec).decode_columns(columns, footer.columns_raw))
    _check_frames(toc)
    _check_container(blob, footer, toc, text)
    return Archive(blob, path, footer, facts_text.decode(text), toc)


def _check_frames(toc: Toc) -> None:
    """Refuse frames with more bytes, stored or decoded, than the members can need."""
    if not toc.frame_raw or not min(toc.frame_raw):
        raise ArchiveCorrupt("it has no frames, or an empty one")
    if max(toc.frame_stored) > FRAME_LIMIT + _STORED_OVERHEAD:
        raise ArchiveCorrupt("a frame is stored in more bytes than it can decode to")
    if toc.raw_size > toc.unpacked_size + (1 + toc.member_count) * _MEMBER_OVERHEAD + END_OF_ARCHIVE_SIZE:
        raise ArchiveCorrupt("its tar stream is longer than its members can make it")


def _check_container(blob: Blob, footer: trailer.Footer, toc: Toc, text: bytes) -> None:
    size = blob.size
    codec = codecs.get(footer.codec)
    first = len(codec.prefix)
    end_of_frames = first + sum(toc.frame_stored)
    end_of_columns = footer.columns_offset + footer.columns_size
    if not first <= end_of_frames <= footer.columns_offset or end_of_columns > size:
        raise ArchiveCorrupt("its frames and its table of contents overlap")
    before, after = footer.columns_offset - end_of_frames, size - end_of_columns
    if before > _CONTAINER_OVERHEAD + len(toc.frame_raw) * _RECORD or after > _CONTAINER_OVERHEAD + footer.facts_size:
        raise ArchiveCorrupt("its container is damaged")
    codec.check_container(
        (blob.read(first, 0), blob.read(before, end_of_frames), blob.read(after, end_of_columns)),
        list(zip(toc.frame_stored, toc.frame_raw)),
        text,
        footer.pack(),
        footer.columns_size,
    )
