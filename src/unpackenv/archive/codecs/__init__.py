"""The codecs of archives: one module for each, found by its name.

`base` is the contract; `trailer.CODECS` is where a codec is registered. Nothing outside this package asks which codec
an archive has: it asks the codec's object.
"""

from __future__ import annotations

from unpackenv.archive import trailer
from unpackenv.errors import SettingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from unpackenv.archive.codecs.base import Codec

DEFAULT = "zstd"
"""What an archive is packed with where nobody says otherwise."""


def names() -> list[str]:
    """Return the names of all codecs, in the order of their numbers."""
    return [name for name, *_ in trailer.CODECS.values()]


def get(name: str) -> Codec:
    """Return the codec of a name, and import no other; raises `SettingError` where there is no such codec."""
    if name not in names():
        raise SettingError(f"{name!r} is no codec; known are {', '.join(names())}", where="codec")
    codec: Codec = __import__(f"{__name__}.{name}", fromlist=["CODEC"]).CODEC
    return codec


def every() -> Iterator[Codec]:
    """Yield all codecs, in the order of their numbers; each is imported when it is its turn."""
    return map(get, names())


def of_file_name(path: str) -> str:
    """Return the name of the codec that a file is named after, "" if there is none."""
    return next((name for name, suffixes, _ in trailer.CODECS.values() if path.endswith(suffixes)), "")
