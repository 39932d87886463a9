"""The header of a bytecode file: whether Python accepts it for its source (PEP 552)."""

from __future__ import annotations

HEADER_SIZE = 16
HASH_BASED, CHECK_SOURCE = 1, 2


def flags(header: bytes) -> int:
    """Return the flags: `HASH_BASED`, and whether to `CHECK_SOURCE`."""
    return int.from_bytes(header[4:8], "little")


def stale(header: bytes, mtime: float, size: int, magic: bytes = b"") -> str:
    """Return why a source of this mtime and size would be compiled again, or "".

    `magic` is the interpreter's, if that is known. A hash is not compared with the content of the source.
    """
    if len(header) < HEADER_SIZE:
        return "is cut off"
    kind = flags(header)
    if magic and header[:4] != magic:
        return "was compiled by another version of the interpreter"
    if kind & ~(HASH_BASED | CHECK_SOURCE) or kind == CHECK_SOURCE:
        return f"has the unknown flags {kind:#x}"
    fields = (int(mtime) & 0xFFFFFFFF, size & 0xFFFFFFFF)
    recorded = (int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little"))
    return "" if kind & HASH_BASED or recorded == fields else "does not fit its source's mtime and size"
