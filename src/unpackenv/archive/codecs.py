"""The two codecs of native archives, as one pair of operations each: encode a frame, decode a frame."""

from __future__ import annotations

import sys

from unpackenv.archive import trailer
from unpackenv.archive.toc import FRAME_LIMIT
from unpackenv.errors import ArchiveCorrupt, ArchiveUnsupported, MemoryBudgetExceeded
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]
    Decode = Callable[[Buffer, memoryview], None]

_BACKEND = "zstandard.backend_c"
BACKEND_DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "backend")
"""Where a runtime has its copy of zstandard's C extension."""
# The window (zstd) or dictionary (xz) that decoding a frame may take, beside the frame itself.
LARGEST_WINDOW = FRAME_LIMIT


def encoder(codec: str, level: int, frame_size: int) -> Callable[[bytes], bytes]:
    """Return the function that encodes one frame; it may be called from one thread at a time."""
    if codec == trailer.XZ:
        from unpackenv.archive import xz

        dictionary = max(1 << 12, min(frame_size, LARGEST_WINDOW, 1 << 26))
        return lambda raw: xz.encode_block(raw, level, dictionary)
    zstandard = import_zstandard()
    window_log = max(10, min((frame_size - 1).bit_length(), LARGEST_WINDOW.bit_length() - 1))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=frame_size, window_log=window_log, write_checksum=False
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    compress: Callable[[bytes], bytes] = compressor.compress
    return compress


def decoder(codec: str) -> Decode:
    """Return a function `decode(stored, out)` that fills `out` exactly, for the use of one thread.

    It raises `ArchiveCorrupt` if the frame does not decode to `len(out)` bytes, and never writes or
    allocates more than that and one window.
    """
    return _xz_decoder() if codec == trailer.XZ else _zstd_decoder()


def _zstd_decoder() -> Decode:
    zstandard = import_zstandard()
    decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)

    def decode(stored: Buffer, out: memoryview) -> None:
        # With all input at hand and room for all output, zstd decodes straight into `out`.
        reader = decompressor.stream_reader(stored)
        got = 0
        try:
            while got < len(out):
                read = reader.readinto(out[got:])
                if not read:
                    break
                got += read
            more = reader.read(1)
        except zstandard.ZstdError as error:
            raise ArchiveCorrupt(f"a zstd frame does not decode ({error})") from error
        if got != len(out) or more:
            raise ArchiveCorrupt("a zstd frame has another size than announced")

    return decode


def _xz_decoder() -> Decode:
    from unpackenv.archive import xz

    header = xz.stream_header()

    def decode(stored: Buffer, out: memoryview) -> None:
        at = 0
        # The decompressor copies what it was given and has not used yet: it gets a little at a time.
        given = (stored[begin : begin + xz.STEP] for begin in range(0, len(stored), xz.STEP))
        block = xz.Block(0, xz.unpadded_size(stored), len(out), header)
        try:
            for piece in xz.decode_block(block, given, 2 * LARGEST_WINDOW):
                out[at : at + len(piece)] = piece
                at += len(piece)
        except MemoryBudgetExceeded as error:  # no setting can help
            raise ArchiveCorrupt("an xz frame has a larger dictionary than the format allows") from error

    return decode


def encode_columns(codec: str, raw: bytes) -> bytes:
    """Return the TOC's columns as they are stored: one zstd frame, or one xz stream."""
    if codec == trailer.XZ:
        import lzma

        return lzma.compress(raw, check=lzma.CHECK_CRC32, preset=9)
    return encoder(codec, 19, len(raw))(raw)


def decode_columns(codec: str, stored: bytes, raw_size: int) -> bytes:
    """Return the TOC's columns; raises `ArchiveCorrupt` if they have not `raw_size` bytes."""
    if codec == trailer.ZSTD:
        out = bytearray(raw_size)
        decoder(codec)(stored, memoryview(out))
        return bytes(out)
    import lzma

    try:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * LARGEST_WINDOW)
        raw = decompressor.decompress(stored, max_length=raw_size + 1)
    except lzma.LZMAError as error:
        raise ArchiveCorrupt(f"its table of contents does not decode ({error})") from error
    if decompressor.check != lzma.CHECK_CRC32:  # of one that it does not know, liblzma checks nothing
        raise ArchiveCorrupt("its table of contents has another check than the format's")
    if len(raw) != raw_size or not decompressor.eof or decompressor.unused_data:
        raise ArchiveCorrupt("its table of contents has another size than announced")
    return raw


def import_zstandard() -> ModuleType:
    """Return the module with zstandard's classes; raises `ArchiveUnsupported` where it is not installed.

    That is its C extension alone: the package around it imports 15 ms of modules for what no start
    needs. A runtime that `unpackenv runtime` made has a copy of the extension and no package.
    """
    broken = ""
    if "zstandard" not in sys.modules:
        try:
            module = sys.modules.get(_BACKEND) or _load_backend()
            if module:
                return module
        except ImportError as error:
            broken = str(error)
    try:
        import zstandard
    except ImportError as error:
        made_for = _runtime_made_for()
        why = broken or (f"this runtime is for {made_for}" if made_for else str(error))
        raise ArchiveUnsupported(
            f"it is compressed with zstd and this interpreter, {sys.implementation.cache_tag}, cannot import zstandard "
            f"({why})",
            hint="Install zstandard; write a runtime with the Python that starts it; or pack with --codec xz, "
            "which needs only the standard library",
        ) from error
    return zstandard


def _runtime_made_for() -> str:
    """Return the interpreters for which a runtime has the extension, "" where this is no runtime."""
    try:
        names = os.listdir(BACKEND_DIRECTORY)
    except OSError:
        return ""
    return ", ".join(sorted(name.split(".")[1] for name in names if name.endswith(".so")))


def find_backend() -> ModuleSpec | None:
    """Find the C extension in the runtime or in the installed package, if it is where it always was."""
    from importlib.machinery import ExtensionFileLoader, PathFinder

    package = PathFinder.find_spec("zstandard")
    places = [BACKEND_DIRECTORY, *((package and package.submodule_search_locations) or ())]
    spec = PathFinder.find_spec(_BACKEND, places)
    return spec if spec and isinstance(spec.loader, ExtensionFileLoader) else None


def _load_backend() -> ModuleType | None:
    spec = find_backend()
    if spec is None or spec.loader is None:
        return None
    module = spec.loader.create_module(spec)
    if module:
        spec.loader.exec_module(module)
    return module
