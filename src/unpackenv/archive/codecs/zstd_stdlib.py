"""zstd as CPython 3.14 and later have it, `compression.zstd`: it decodes where `zstandard` is missing."""

from __future__ import annotations

import sys

from unpackenv.archive.codecs.base import LARGEST_WINDOW, READ
from unpackenv.errors import ArchiveCorrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from unpackenv.archive.codecs.base import Buffer

_NAME, _SINCE = "compression.zstd", (3, 14)


def find() -> ModuleType | None:
    """Return the module, None where this CPython has none."""
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    if sys.version_info < _SINCE:  # a module of that name would be somebody else's
        return None
    try:
        return __import__(_NAME, fromlist=["ZstdDecompressor"])
    except ImportError:  # built without it
        return None


def decode(stored: Buffer, out: memoryview) -> None:
    """Fill `out` exactly with what one frame decodes to; raises `ArchiveCorrupt`."""
    # The decoder copies what it was given and has not used yet: it gets a little at a time.
    given = (stored[begin : begin + READ] for begin in range(0, len(stored), READ))
    at = 0
    for piece in decode_frame(given, LARGEST_WINDOW):
        if len(piece) > len(out) - at:
            raise ArchiveCorrupt("a zstd frame has another size than announced")
        out[at : at + len(piece)] = piece
        at += len(piece)
    if at != len(out):
        raise ArchiveCorrupt("a zstd frame has another size than announced")


def decode_frame(stored: Iterable[Buffer], largest_window: int) -> Iterator[bytes]:
    """Yield what one frame, in the pieces `stored`, decodes to, in pieces of at most `READ` bytes.

    Raises `ArchiveCorrupt`, also where the window is larger than `largest_window`, rounded up to a power of 2.
    """
    module = find()
    assert module
    window_log = max(10, (largest_window - 1).bit_length())
    decoder = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: window_log})
    try:
        for given in stored:
            if decoder.eof:
                raise ArchiveCorrupt("a zstd frame ends earlier than announced")
            piece = decoder.decompress(given, READ)
            while piece:
                yield piece
                piece = b"" if decoder.eof or decoder.needs_input else decoder.decompress(b"", READ)
    except module.ZstdError as error:
        raise ArchiveCorrupt(f"a zstd frame does not decode ({error})") from error
    if not decoder.eof or decoder.unused_data:
        raise ArchiveCorrupt("a zstd frame does not end where it is said to end")
