"""What an archive records about the interpreter that it is for, and a start compares with its own.

This file stands alone, so that an interpreter which has no unpackenv can be asked by running it.
"""

from __future__ import annotations

import _imp
import os
import sys

NATIVE_FACTS = ("soabi", "machine", "system", "libc")
"""The facts that only matter to shared objects."""


def describe() -> dict[str, str]:
    """Return the facts of this interpreter.

    python: what its bytecode files are called after, "cpython-39"; soabi: what its extension
    modules are called after; machine and system as `uname` has them, system in lower case; libc:
    "glibc 2.36" or "musl".
    """
    uname = os.uname()
    # `sysconfig` knows the SOABI too, for ten times the time.
    suffix = _imp.extension_suffixes()[0].split(".")
    return {
        "python": sys.implementation.cache_tag or "",
        "soabi": suffix[1] if len(suffix) == 3 else "",
        "machine": uname.machine,
        "system": uname.sysname.lower(),
        "libc": _libc(),
    }


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return "musl"


if __name__ == "__main__":
    for key, value in describe().items():
        print(f"{key}={value}")
