"""The trailer's own arithmetic, against the library's."""

from __future__ import annotations

import random
import zlib

from unpackenv.archive import trailer


def test_the_checksum_is_that_of_zlib() -> None:
    values = random.Random(1)
    for size in range(200):
        data = values.randbytes(size)
        assert trailer._crc32(data) == zlib.crc32(data)


def test_a_footer_is_read_as_it_was_written() -> None:
    fields = {"columns_offset": 1 << 40, "columns_size": 2, "columns_raw": 3, "facts_offset": 1 << 33, "facts_size": 5}
    footer = trailer.Footer(codec="xz", digest=bytes(range(32)), **fields)  # type: ignore[arg-type]
    data = footer.pack()
    assert len(data) == trailer.FOOTER_SIZE == 84
    read = trailer.Footer.unpack(data)
    assert {name: getattr(read, name) for name in footer.__slots__} == {
        name: getattr(footer, name) for name in footer.__slots__
    }
