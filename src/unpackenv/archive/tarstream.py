"""tar headers: writing them for `pack`, reading them for foreign archives and for `verify`.

Writing goes through the standard library's `tarfile` (GNU format: names of any bytes and length,
sizes and times beyond the octal fields). Reading cannot: a foreign archive is parsed at container
start, chunk by chunk as it is decoded, and `tarfile` takes 1-2 s for 30,000 members.
"""

from __future__ import annotations

from functools import lru_cache

from unpackenv.errors import ArchiveCorrupt, ArchiveUnsafe, ArchiveUnsupported

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
_ZERO_BLOCK = bytes(BLOCK)
_ASCII = bytes(range(128))
DIRECTORY, FILE, SYMLINK, HARD_LINK = "directory", "file", "symlink", "hard link"

_MARK = "made by unpackenv pack"
# Members by their type: D is a directory of `tar --listed-incremental`, which has data.
_KINDS = {"0": FILE, "\0": FILE, "7": FILE, "5": DIRECTORY, "D": DIRECTORY, "2": SYMLINK, "1": HARD_LINK}
# Headers for the members after them: pax's, Solaris' (X is pax's x, A an access control list), GNU's.
_EXTENDED = "xgXALK"
_LABEL = "V"  # of a volume; ignored
_NEVER = {
    "3": "a character device",
    "4": "a block device",
    "6": "a FIFO",
    "E": "a Solaris extended attribute",
    "I": "the metadata of an inode",
    "M": "the rest of a file from another volume",
    "N": "a list of long names of an old GNU tar",
    "S": "a sparse file",
}
_NEVER_HINTS = {"M": "Make the archive without tar's option --multi-volume", "S": "Make the archive without --sparse"}
NATIVE_TYPES = "0125gLK"
"""The member types of a native archive."""
# Long names and extended headers of honest archives are far smaller.
_EXTENDED_LIMIT = 1 << 20
_ALL_EXTENDED_LIMIT = 1 << 30
_PAX_KEYWORDS = ("path", "linkpath", "size", "mtime", "comment")
# Sizes and times beyond this fit no file system, and no column of a TOC.
_NUMBER_LIMIT = 1 << 63


def header(kind: str, path: bytes, mode: int, mtime: int, size: int = 0, link: bytes = b"") -> bytes:
    """Return the tar header of one member, owner 0:0, whole blocks long."""
    import tarfile

    member = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    member.type = {FILE: tarfile.REGTYPE, DIRECTORY: tarfile.DIRTYPE, SYMLINK: tarfile.SYMTYPE}.get(
        kind, tarfile.LNKTYPE
    )
    member.mode = mode
    member.mtime = mtime
    member.size = size
    member.linkname = link.decode("utf-8", "surrogateescape")
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def mark() -> bytes:
    """Return what opens the tar stream of a native archive: a pax global header with a comment, which tar ignores.

    It distinguishes an archive that lost its end from one that plain tar made.
    """
    import tarfile

    return tarfile.TarInfo.create_pax_global_header({"comment": _MARK})


def padding(size: int) -> int:
    """Return how many NUL bytes follow `size` bytes of data up to the next block."""
    return -size % BLOCK


class Member:
    """One member of a tar stream; `position` is that of its first data byte in the stream."""

    __slots__ = ("kind", "link", "mode", "mtime", "path", "position", "size")

    def __init__(self, kind: str, path: bytes, mode: int, mtime: int, size: int, link: bytes, position: int) -> None:
        self.kind = kind
        self.path = path
        self.mode = mode
        self.mtime = mtime
        self.size = size
        self.link = link
        self.position = position


class Scanner:
    """Finds the members of a tar stream that arrives in chunks, in order.

    `feed` takes the next chunk and returns the members whose headers end in it. What a header
    needs from an earlier chunk is kept; file data never is. ustar, GNU (long names, base-256
    numbers) and pax (path, linkpath, size, mtime) are understood; members of other types
    than `types` are refused, and so are sparse ones. Of a mode, the bits of `mode_mask` are kept. As
    for GNU tar and `tarfile`, one block of zeros ends the archive, and the rest is ignored: `end` is
    the position of that block in the stream.
    """

    def __init__(self, mode_mask: int = 0o777, types: str = "".join(_KINDS) + _EXTENDED + _LABEL) -> None:
        self.ended = False
        self.end = 0
        self._mode_mask = mode_mask
        self._types = types
        self._base = 0  # where in the stream the chunk at hand begins
        self._next = 0  # where the next header, or extended header's data, begins
        self._need = BLOCK  # and how long it is
        self._carry = b""  # what earlier chunks had of it
        self._extended = ""  # type of the extended header whose data comes next
        self._extended_size = 0
        self._extended_left = _ALL_EXTENDED_LIMIT
        self._global_pax: dict[str, bytes] = {}
        self._pax: dict[str, bytes] = {}
        self._long: dict[str, bytes] = {}

    def feed(self, chunk: memoryview) -> list[Member]:
        """Return the members whose headers are complete with `chunk`."""
        members: list[Member] = []
        end = self._base + len(chunk)
        while not self.ended and self._next + self._need <= end:
            member = self._read(self._slice(chunk, self._need))
            if member:
                members.append(member)
        unread = not self.ended and self._next < end
        self._carry = bytes(self._slice(chunk, end - self._next)) if unread else b""
        self._base = end
        return members

    @property
    def is_marked(self) -> bool:
        """Whether the stream has the mark of a native archive."""
        return self._global_pax.get("comment") == _MARK.encode()

    def close(self) -> None:
        """End the stream; raises `ArchiveCorrupt` if it ends too early."""
        if not self.ended:
            raise _malformed("its tar stream is truncated, or was made without an end")

    def _slice(self, chunk: memoryview, size: int) -> bytes | memoryview:
        at = self._next - self._base
        if at >= 0:
            return chunk[at : at + size]
        return self._carry + bytes(chunk[: size + at])

    def _read(self, block: bytes | memoryview) -> Member | None:
        self._next += self._need
        self._need = BLOCK
        if self._extended:
            self._read_extended(bytes(block))
            return None
        if bytes(block) == _ZERO_BLOCK:
            self.ended = True
            self.end = self._next - BLOCK
            return None
        return self._read_header(bytes(block))

    def _read_header(self, block: bytes) -> Member | None:
        if not is_header(block):
            if self._next == BLOCK and not begins_tar(block):
                raise ArchiveUnsupported("its content is no tar", hint="Check the COPY, or make it again with tar")
            raise ArchiveCorrupt(f"the tar header at byte {self._next - BLOCK} of its stream has a wrong checksum")
        typeflag = chr(block[156])
        size = _number(block[124:136])
        if typeflag in _EXTENDED and typeflag in self._types:
            self._expect_extended(typeflag, size)
            return None
        pax = self._effective_pax() if self._pax or self._global_pax else {}
        path, link = self._paths(block, pax)
        self._check_type(typeflag, path, pax)
        if "size" in pax:
            size = _whole(pax["size"])
        if not 0 <= size < _NUMBER_LIMIT:
            raise ArchiveCorrupt("a member has an impossible size", member=shown(path))
        kind = _KINDS.get(typeflag, "")
        if kind == FILE and path.endswith(b"/"):  # as in old tars
            kind = DIRECTORY
        begin = self._next
        if kind == FILE or typeflag in "DV":
            self._next += size + padding(size)
        self._pax, self._long = {}, {}
        if not kind:  # a volume label
            return None
        mtime = _seconds(pax["mtime"]) if "mtime" in pax else _number(block[136:148])
        if not -_NUMBER_LIMIT <= mtime < _NUMBER_LIMIT:
            raise ArchiveCorrupt("a member has an impossible mtime", member=shown(path))
        size = size if kind == FILE else 0
        return Member(kind, path, _number(block[100:108]) & self._mode_mask, mtime, size, link, begin)

    def _paths(self, block: bytes, pax: dict[str, bytes]) -> tuple[bytes, bytes]:
        path = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and block[345]:
            path = block[345:500].partition(b"\0")[0] + b"/" + path
        link = block[157:257].partition(b"\0")[0]
        path = pax.get("path", self._long.get("L", path))
        link = pax.get("linkpath", self._long.get("K", link))
        return path, link

    def _check_type(self, typeflag: str, path: bytes, pax: dict[str, bytes]) -> None:
        if "GNU.sparse" in pax:
            typeflag = "S"
        if typeflag not in self._types:
            what = _NEVER.get(typeflag, f"of tar type {typeflag!r}")
            hint = _NEVER_HINTS.get(typeflag, "")
            raise ArchiveUnsafe(f"a member is {what}, which is never unpacked", hint=hint, member=shown(path))

    def _expect_extended(self, typeflag: str, size: int) -> None:
        if not 0 <= size <= _EXTENDED_LIMIT:
            raise ArchiveCorrupt(
                "an extended tar header is larger than 1 MiB",
                hint="Make the archive without tar's options --xattrs and --acls",
            )
        self._extended_left -= BLOCK + size
        if self._extended_left < 0:
            raise ArchiveCorrupt("its extended tar headers are larger than 1 GiB together")
        self._extended = typeflag
        self._extended_size = size
        if size:
            self._need = size + padding(size)
        else:
            self._read_extended(b"")

    def _effective_pax(self) -> dict[str, bytes]:
        """Return the records for the next member; one without a value cancels those before it."""
        pax = {keyword: value for keyword, value in {**self._global_pax, **self._pax}.items() if value}
        if b"\0" in pax.get("path", b"") + pax.get("linkpath", b""):
            raise ArchiveCorrupt("a pax header has a name with a NUL byte")
        return pax

    def _read_extended(self, data: bytes) -> None:
        typeflag, self._extended = self._extended, ""
        data = data[: self._extended_size]
        if typeflag in "xX":
            self._pax = _pax_records(data)
        elif typeflag == "g":
            self._global_pax.update(_pax_records(data))
        elif typeflag != "A":
            self._long[typeflag] = data.partition(b"\0")[0]


def _pax_records(data: bytes) -> dict[str, bytes]:
    """Parse `LENGTH KEYWORD=VALUE\\n` records (POSIX.1-2001, pax interchange format); return those that matter here."""
    records = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at)
        length = _whole(data[at:space]) if space > at else 0
        record = data[at : at + length]
        keyword, equals, value = record[space + 1 - at : -1].partition(b"=")
        if length <= 0 or len(record) != length or record[-1:] != b"\n" or not equals or keyword[:1] in (b" ", b"\t"):
            raise _malformed("a pax header is malformed")
        name = "GNU.sparse" if keyword.startswith(b"GNU.sparse") else keyword.decode("utf-8", "replace")
        if name in _PAX_KEYWORDS or name == "GNU.sparse":
            records[name] = value
        at += length
    return records


def begins_tar(block: bytes) -> bool:
    """Whether a tar can begin with this block: with a header, one that was damaged, or its end."""
    return is_header(block) or block[257:262] == b"ustar" or block == _ZERO_BLOCK


def is_header(block: bytes) -> bool:
    """Whether a block is a tar header, by its checksum: the only thing that all formats since v7 have in common.

    It is the sum of the bytes, with its own counted as spaces; some old tars took bytes as signed.
    """
    if len(block) != BLOCK:
        return False
    try:
        recorded = _number(block[148:156])
    except ArchiveCorrupt:
        return False
    others = (block[:148] + block[156:]).translate(None, b"\0")  # without NULs the sum is faster
    computed = sum(others) + 8 * 0x20
    return recorded == computed or 0 <= recorded == computed - 256 * len(others.translate(None, _ASCII))


@lru_cache(maxsize=4096)  # most members share their mode, mtime and owner with others
def _number(field: bytes) -> int:
    """Parse a numeric header field: octal digits, or base-256 when its first bit is set (GNU)."""
    if field[0] & 0x80:
        number = int.from_bytes(field, "big", signed=False)
        bits = 8 * len(field)
        return number - (1 << bits) if field[0] & 0x40 else number - (1 << bits - 1)
    digits = field.partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise ArchiveCorrupt("a number in a tar header is malformed")
    return int(digits, 8) if digits else 0


def _whole(text: bytes) -> int:
    """Parse a whole number of pax: decimal digits, with any number of leading zeros."""
    digits = text.lstrip(b"0")
    if not text.isdigit() or len(digits) > 20:
        raise _malformed("a number in a pax header is malformed")
    return int(digits or b"0")


def _seconds(text: bytes) -> int:
    """Parse a time of pax, a decimal number, and round it down to whole seconds."""
    whole, _, fraction = text.partition(b".")
    if fraction and not fraction.isdigit():
        raise _malformed("a time in a pax header is malformed")
    seconds = _whole(whole[whole[:1] == b"-" :])
    return seconds if whole[:1] != b"-" else -seconds - bool(fraction.strip(b"0"))


def _malformed(what: str) -> ArchiveCorrupt:
    return ArchiveCorrupt(what, hint="Copy the archive again, or make it again with tar")


def shown(path: bytes) -> str:
    """Return `path` for a message: printable, and not longer than a line."""
    return path[:200].decode("utf-8", "backslashreplace")
