"""Have `pack` and `analyze` compress at a low level, where the size of an archive does not matter: see `quickly`."""

import sys

if {"pack", "analyze"} & {*sys.argv}:
    from unpackenv.archive import codecs

    for codec in codecs.every():
        codec.level = codec.levels[0]
    try:
        import quickly_too  # noqa: F401 - of a test that changes more
    except ImportError:
        pass
