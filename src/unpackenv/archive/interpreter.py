"""The facts of an interpreter: an archive records them, and a start compares them with its own.

This file stands alone: an interpreter without unpackenv can run it to print its facts. Even Python 2.7 reads its
syntax.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional  # noqa: F401 - in comments

NATIVE_FACTS = ("soabi", "machine", "system", "libc")
"""The facts that only matter to shared objects."""
UNKNOWN = {"python": ""}
"""The facts of an interpreter of which nothing is known: no tree mismatches them."""


def describe():  # type: () -> dict[str, str]
    """Return the facts of this interpreter.

    python: the tag in the names of its bytecode files, "cpython-39"; soabi: the tag in the names of
    its extension modules; machine and system as `uname` returns them, system in lower case; libc:
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
    """Return a fact in which a tree with `facts` differs from `running`, and its value in each; None if none does.

    `running` are the facts of an interpreter, by default this one. A tree without shared objects runs
    on every platform, one for another Python version on none. A fact that is unknown on either side is
    no mismatch.
    """
    running = running or describe()
    native = facts.get("native") == ["yes"]
    for key in ("python",) + (NATIVE_FACTS if native else ()):
        packed, own = facts.get(key, [""])[0], running.get(key, "")
        if packed and own and packed != own and not (key == "libc" and _is_newer(own, packed)):
            return key, packed, own
    return None


def _cache_tag():  # type: () -> str
    implementation = getattr(sys, "implementation", None)
    if implementation is None:  # Python 2.7 has none, nor a tag in the names of its bytecode files
        return "python-{}{}".format(*sys.version_info)
    return implementation.cache_tag or ""


def _soabi():  # type: () -> str
    """`sysconfig` returns it, too, in ten times the time."""
    try:
        import _imp
    except ImportError:
        return ""
    suffix = _imp.extension_suffixes()[0].split(".")
    return suffix[1] if len(suffix) == 3 else ""


def _is_newer(own, needed):  # type: (str, str) -> bool
    """Whether a libc is the one that is needed, in the same version or a newer one."""
    own_name, _, own_version = own.partition(" ")
    name, _, version = needed.partition(" ")
    return own_name == name and _numbers(own_version) >= _numbers(version)


def _numbers(version):  # type: (str) -> list[int]
    return [int(part) for part in version.split(".") if part.isdigit()]


def _libc():  # type: () -> str
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return "musl"


if __name__ == "__main__":
    sys.stdout.write("".join(["{}={}\n".format(*fact) for fact in describe().items()]))
