"""What an archive records about the interpreter that it is for, and a start compares with its own.

This file stands alone, so that an interpreter which has no unpackenv can be asked by running it; also Python 2.7 reads
its syntax.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional  # noqa: F401 - in comments

NATIVE_FACTS = ("soabi", "machine", "system", "libc")
"""The facts that only matter to shared objects."""
UNKNOWN = {"python": ""}
"""The facts of an interpreter of which nothing is known, so that nothing can be said against it."""


def describe():  # type: () -> dict[str, str]
    """Return the facts of this interpreter.

    python: what its bytecode files are called after, "cpython-39"; soabi: what its extension
    modules are called after; machine and system as `uname` has them, system in lower case; libc:
    "glibc 2.36" or "musl".
    """
    uname = os.uname()
    return {
        "python": _cache_tag(),
        "soabi": _soabi(),
        "machine": uname[4],
        "system": uname[0].lower(),
        "libc": _libc(),
    }


def mismatch(facts, running=None):
    # type: (dict[str, list[str]], Optional[dict[str, str]]) -> Optional[tuple[str, str, str]]
    """Return which fact speaks against a tree with `facts`, as it was packed and as `running` has it; None if none.

    `running` are the facts of an interpreter, by default this one. A tree without shared objects runs
    on every platform, one for another Python version on none. What is not known, on either side, is
    no mismatch.
    """
    running = running or describe()
    native = facts.get("native") == ["yes"]
    for key in ("python",) + (NATIVE_FACTS if native else ()):
        packed, found = facts.get(key, [""])[0], running.get(key, "")
        if packed and found and packed != found and not (key == "libc" and _is_newer(found, packed)):
            return key, packed, found
    return None


def _cache_tag():  # type: () -> str
    implementation = getattr(sys, "implementation", None)
    if implementation is None:  # Python 2.7 has none, nor a tag in the names of its bytecode files
        return "python-{}{}".format(*sys.version_info)
    return implementation.cache_tag or ""


def _soabi():  # type: () -> str
    """`sysconfig` knows it, too, for ten times the time."""
    try:
        import _imp
    except ImportError:
        return ""
    suffix = _imp.extension_suffixes()[0].split(".")
    return suffix[1] if len(suffix) == 3 else ""


def _is_newer(found, needed):  # type: (str, str) -> bool
    """Whether one version of a libc has all that was built for another one needs."""
    found_name, _, found_version = found.partition(" ")
    name, _, version = needed.partition(" ")
    return found_name == name and _numbers(found_version) >= _numbers(version)


def _numbers(version):  # type: (str) -> list[int]
    return [int(part) for part in version.split(".") if part.isdigit()]


def _libc():  # type: () -> str
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return "musl"


if __name__ == "__main__":
    sys.stdout.write("".join(["{}={}\n".format(*fact) for fact in describe().items()]))
