"""The bytes of an archive that are neither frames nor TOC: what makes it a valid .zst or .xz file.

Every one of them follows from the rest, so a reader can check them all. See `trailer` for the
picture and docs/format.md for the byte tables.
"""

from __future__ import annotations

from unpackenv.archive import trailer, zstd
from unpackenv.errors import ArchiveCorrupt


def prefix(codec: str) -> bytes:
    """Return what stands before the first frame."""
    if codec == trailer.ZSTD:
        return b""
    from unpackenv.archive import xz

    return xz.stream_header()


def unpadded_size(codec: str, frame: bytes) -> int:
    """Return the size of a frame as the container counts it: an xz index leaves out a block's padding."""
    if codec == trailer.ZSTD:
        return len(frame)
    from unpackenv.archive import xz

    return xz.unpadded_size(frame)


def before_columns(codec: str, frames: list[tuple[int, int]], columns_size: int, facts_size: int) -> bytes:
    """Return what stands between the last frame and the columns; `frames` are pairs (unpadded, raw size)."""
    if codec == trailer.ZSTD:
        return zstd.skippable_header(columns_size + facts_size + trailer.FOOTER_SIZE)
    from unpackenv.archive import xz

    return xz.index_and_footer(frames)


def after_columns(codec: str, facts: bytes, footer: bytes) -> bytes:
    """Return facts and footer in their container."""
    if codec == trailer.ZSTD:
        return facts + footer
    from unpackenv.archive import xz

    return xz.stored(facts) + xz.stored(footer)


def payload_offset(codec: str) -> int:
    """Return how far from its start the payload of a stored stream begins."""
    if codec == trailer.ZSTD:
        return 0
    from unpackenv.archive import xz

    return xz.STORED_PAYLOAD


def check(codec: str, found: tuple[bytes, bytes, bytes], frames: list[tuple[int, int]], facts: bytes, footer: bytes,
          columns_size: int) -> None:  # fmt: skip
    """Raise `ArchiveCorrupt` unless the bytes `found` are those that belong there.

    `found` is what stands before the frames, before the columns and after them; `frames` are pairs
    (stored, raw size).
    """
    opening, before, after = found
    if opening != prefix(codec) or after != after_columns(codec, facts, footer):
        raise ArchiveCorrupt("its container is damaged")
    if codec == trailer.ZSTD:
        sound = before == before_columns(codec, frames, columns_size, len(facts))
    else:
        from unpackenv.archive import xz

        # Padding is known only to the index: a valid one with the right sizes it must be.
        records = xz.parse_index_and_footer(before)
        sound = [(xz.padded(unpadded), raw) for unpadded, raw in records] == frames
    if not sound:
        raise ArchiveCorrupt("its container does not fit its table of contents")
