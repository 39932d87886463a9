"""Archives that no packer writes: any piece can be false. All hashes are right, or no reader would get that far."""

from __future__ import annotations

import os
import tarfile
from hashlib import sha256
from pathlib import Path

from unpackenv.archive import codecs, facts, trailer
from unpackenv.archive.tarstream import END_OF_ARCHIVE, padding
from unpackenv.archive.toc import Toc

DATA = b"print('hello')\n"


class Crafted:
    """A native archive in pieces: the columns of its TOC, its frames, facts and footer, to be changed before `write`.

    It begins as a sound one of `d/`, `d/e/`, `f`, `d/g`, `d/s -> g` and the hard link `d/e/h` of `f`, in two frames.
    A start believes the TOC, so the tar stream holds the data and no headers. What of `stored`, `columns` and
    `footer` a test does not say follows from the rest.
    """

    def __init__(self, codec: str = "zstd") -> None:
        self.codec = codec
        self.raw = [bytes(512) + DATA + bytes(512), DATA + bytes(8000) + END_OF_ARCHIVE]
        self.stored: list[bytes] = []
        self.announced: list[int] = []  # raw sizes that the TOC says, where they are not those of `raw`
        self.columns = b""
        self.encode_columns = codecs.get(codec).encode_columns
        self.facts: dict[str, list[str]] = {"import": [""]}
        self.counted = {"files": ["2"], "unpacked-size": [str(2 * len(DATA))]}
        self.footer: dict[str, int] = {}
        self.holes = (0, 0)  # zeros behind the frames and behind the columns, where nothing belongs
        self.toc = toc = Toc()
        for parent, name in ((0, b""), (0, b"d"), (1, b"e")):
            add_directory(toc, parent, name)
        add_file(toc, 0, b"f", 512, len(DATA))
        add_file(toc, 1, b"g", len(self.raw[0]), len(DATA))
        add_symlink(toc, 1, b"s", b"g")
        add_hard_link(toc, 2, b"h", 0)

    def write(self, path: Path) -> Path:
        """Write it to `path`, with holes that take no room on the disk, and return that."""
        frames, columns, end = self._pieces()
        with open(path, "wb") as out:
            out.write(frames)
            out.seek(self.holes[0], os.SEEK_CUR)
            out.write(columns)
            out.seek(self.holes[1], os.SEEK_CUR)
            out.write(end)
        return path

    def _pieces(self) -> tuple[bytes, bytes, bytes]:
        """Return the frames, the columns with what stands before them, and what stands behind them."""
        toc, codec = self.toc, codecs.get(self.codec)
        encode = codec.encoder(1, 1 << 16)
        stored = self.stored or [encode(raw) for raw in self.raw]
        sizes = self.announced or [len(raw) for raw in self.raw]
        if not toc.frame_stored:
            toc.frame_stored.extend(map(len, stored))
        toc.frame_raw.extend(sizes)
        toc.frame_sha256 = b"".join(sha256(frame).digest() for frame in stored)
        raw = self.columns or toc.encode()
        columns = self.encode_columns(raw)
        text = facts.encode({"codec": [codec.name], **self.facts, **self.counted})
        unpadded = [codec.unpadded_size(frame) for frame in stored]
        frames = codec.prefix + b"".join(stored)
        before = codec.before_columns(list(zip(unpadded, sizes)), len(columns), len(text))
        columns_offset = len(frames) + self.holes[0] + len(before)
        said = {
            "columns_offset": columns_offset,
            "columns_size": len(columns),
            "columns_raw": len(raw),
            "facts_offset": columns_offset + len(columns) + self.holes[1] + codec.payload_offset,
            "facts_size": len(text),
            **self.footer,
        }
        footer = trailer.Footer(codec=codec.name, digest=sha256(columns + text).digest(), **said)
        return frames, before + columns, codec.after_columns(text, footer.pack())


def add_directory(toc: Toc, parent: int, name: bytes) -> None:
    toc.dir_parent.append(parent)
    toc.dir_mode.append(0o755 if name else 0)
    toc.dir_mtime.append(0)
    toc.dir_names.append(name)


def add_file(toc: Toc, directory: int, name: bytes, position: int, size: int) -> None:
    toc.file_dir.append(directory)
    toc.file_mode.append(0o644)
    toc.file_mtime.append(0)
    toc.file_size.append(size)
    toc.file_position.append(position)
    toc.file_names.append(name)


def add_symlink(toc: Toc, directory: int, name: bytes, target: bytes) -> None:
    toc.link_dir.append(directory)
    toc.link_mtime.append(0)
    toc.link_names.append(name)
    toc.link_targets.append(target)


def add_hard_link(toc: Toc, directory: int, name: bytes, file: int) -> None:
    toc.hard_dir.append(directory)
    toc.hard_names.append(name)
    toc.hard_file.append(file)


# --- tar streams ---


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", **changes: object) -> bytes:
    """Return a member in GNU format, header, data and padding."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data + bytes(padding(len(data)))


def extended(typeflag: bytes, data: bytes) -> bytes:
    """Return an extended header of this type: x and g are pax's, L and K GNU's."""
    info = tarfile.TarInfo("extended")
    info.type, info.size = typeflag, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(padding(len(data)))


def record(keyword: str, value: bytes) -> bytes:
    """Return a pax record, which begins with its own length."""
    text = b" %s=%s\n" % (keyword.encode(), value)
    length = len(text) + 1
    while len(b"%d" % length) + len(text) != length:
        length += 1
    return b"%d" % length + text


def tar(*members: bytes) -> bytes:
    """Return a whole tar stream."""
    return b"".join(members) + END_OF_ARCHIVE
