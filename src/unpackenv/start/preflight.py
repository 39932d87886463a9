"""What can be known before the first byte is written."""

from __future__ import annotations

import os

from unpackenv.archive import interpreter
from unpackenv.archive.facts import first
from unpackenv.errors import InterpreterMismatch, NoSpace, TargetNoExec, TargetNotWritable
from unpackenv.start.places import Place, is_ours

_BLOCK = 4096


def check_interpreter(facts: dict[str, list[str]], where: str, running: dict[str, str] | None) -> None:
    """Raise `InterpreterMismatch` unless the environment was packed for `running`, by default this interpreter.

    A tree without shared objects runs on every platform; one for another Python version on none.
    """
    running = running or interpreter.describe()
    native = first(facts, "native") == "yes"
    for key in ("python", *interpreter.NATIVE_FACTS) if native else ("python",):
        packed, found = first(facts, key), running[key]
        if key == "libc":  # any newer version of the same libc will do
            packed, found = packed.partition(" ")[0], found.partition(" ")[0]
        if packed and found and packed != found:
            raise InterpreterMismatch(
                f"was packed for {key} {packed}, and this interpreter has {found}",
                where=where,
                hint=f"Run it with the interpreter that it was packed for, or pack it for {found} (pack --python)",
                fact=key,
                packed=packed,
                found=found,
            )


def check_room(directory: str, size: int, members: int) -> None:
    """Raise `NoSpace` unless the file system of `directory` has room for a tree of `size` bytes."""
    status = os.statvfs(directory)
    have = status.f_bavail * status.f_frsize
    # Half a block is lost at the end of each file, on average, and a directory has one.
    need = size + members * _BLOCK // 2
    if have < need:
        raise NoSpace(
            f"needs {need / 1e6:.1f} MB and has {have / 1e6:.1f} MB free",
            where=directory,
            hint="Free space there, or name another target with UNPACKENV_TARGET",
            need=need,
            have=have,
        )
    if status.f_files and status.f_favail < members:
        raise NoSpace(
            f"needs {members} inodes and has {status.f_favail} free",
            where=directory,
            hint="Free inodes there, or name another target with UNPACKENV_TARGET",
            need=members,
            have=status.f_favail,
        )


def check_exec(directory: str) -> None:
    """Raise `TargetNoExec` if shared objects below `directory` cannot be loaded."""
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        raise TargetNoExec(
            "is mounted noexec, and the archive has shared objects, which could not be loaded from there",
            where=directory,
            hint="Mount it with exec, name another target with UNPACKENV_TARGET, or say UNPACKENV_FORCE=yes",
        )


def prepare_default(place: Place) -> None:
    """Make the directories above a default place, ours alone; raises `TargetNotWritable` if they are not."""
    for directory in (place.shared_root, os.path.dirname(place.path)):
        if not os.path.isdir(directory):
            os.makedirs(os.path.dirname(directory), exist_ok=True)
            try:
                os.mkdir(directory, 0o755 if os.geteuid() == 0 else 0o700)
            except FileExistsError:
                pass
    if not is_ours(place):
        raise TargetNotWritable(
            "belongs to another user, or others may write to it",
            where=place.shared_root,
            hint="Name a target with UNPACKENV_TARGET",
        )
