"""The mounts that this process sees, as /proc/self/mountinfo lists them (proc_pid_mountinfo(5))."""

from __future__ import annotations

from unpackenv.unpatched import os

MOUNTINFO = "/proc/self/mountinfo"


class Mount:
    """One mount: where it is, which directory of its file system it shows, its type, the options of both."""

    __slots__ = ("kind", "options", "point", "root")

    def __init__(self, point: str, root: str, kind: str, options: str) -> None:
        self.point = point
        self.root = root
        self.kind = kind
        self.options = frozenset(options.split(","))


def read(path: str = MOUNTINFO) -> list[Mount]:
    """Return the mounts, in the order in which they cover each other; none where /proc is missing."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            lines = file.read().split("\n")[:-1]
    except OSError:
        return []
    mounts = []
    for line in lines:
        fields, _, rest = line.partition(" - ")
        _, _, _, root, point, options, *_ = fields.split(" ")
        kind, _, super_options = rest.split(" ", 2)
        mounts.append(Mount(_plain(point), _plain(root), kind, f"{options},{super_options}"))
    return mounts


def holding(path: str) -> Mount | None:
    """Return the mount on which the directory `path`, free of links, lies; None where /proc is missing."""
    deepest = None
    for mount in read():
        below = mount.point.rstrip("/") + "/"
        if (path + "/").startswith(below) and (deepest is None or len(mount.point) >= len(deepest.point)):
            deepest = mount
    return deepest


def is_mount(path: str) -> bool:
    """Whether something is mounted at `path`, also where it is a bind mount of the same file system."""
    mounts = read()
    return any(mount.point == path for mount in mounts) if mounts else os.path.ismount(path)


def _plain(text: str) -> str:
    """Undo the escapes: a space, tab, newline or backslash is written as \\ and three octal digits."""
    first, *rest = text.split("\\")
    return first + "".join(chr(int(piece[:3], 8)) + piece[3:] for piece in rest)
