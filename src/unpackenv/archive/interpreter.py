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


def mismatch(facts: dict[str, list[str]], running: dict[str, str] | None = None) -> tuple[str, str, str] | None:
    """Return which fact speaks against a tree with `facts`, as it was packed and as `running` has it; None if none.

    `running` are the facts of an interpreter, by default this one. A tree without shared objects runs
    on every platform, one for another Python version on none. What is not known, on either side, is
    no mismatch.
    """
    running = running or describe()
    native = facts.get("native") == ["yes"]
    for key in ("python", *NATIVE_FACTS) if native else ("python",):
        packed, found = facts.get(key, [""])[0], running.get(key, "")
        if packed and found and packed != found and not (key == "libc" and _is_newer(found, packed)):
            return key, packed, found
    return None


def _is_newer(found: str, needed: str) -> bool:
    """Whether one version of a libc has all that was built for another one needs."""
    found_name, _, found_version = found.partition(" ")
    name, _, version = needed.partition(" ")
    return found_name == name and _numbers(found_version) >= _numbers(version)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return "musl"


if __name__ == "__main__":
    for key, value in describe().items():
        print(f"{key}={value}")
