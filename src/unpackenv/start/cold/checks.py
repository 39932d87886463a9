"""Check that a place can be used for a tree, and trusted, before anything is made there."""

from __future__ import annotations

from unpackenv.errors import TargetReadOnly, TargetUntrusted
from unpackenv.start.locations import CACHE_TAG, TargetCandidate, is_open, is_safe
from unpackenv.start.unpack.preflight import how_mounted
from unpackenv.unpatched import os

_TAG = b"""\
Signature: 8a477f597d28d172789f06886806bc55
# This directory holds environments that unpackenv unpacked. Each can be made again from its archive.
# Information about cache directory tags: https://bford.info/cachedir/
"""


def check_writable(directory: str) -> None:
    """Raise `TargetReadOnly` if the file system of `directory`, or of its nearest parent that exists, is read-only."""
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise TargetReadOnly(
            f"{how_mounted(directory)} read-only",
            where=directory,
            hint="Mount a volume or a tmpfs there, or name a writable directory with UNPACKENV_TARGET",
        )


_WHO_NAMED = {
    "argument": "This target was given as an argument",
    "environment": "UNPACKENV_TARGET names this target",
    "recorded": "The archive records this target (a virtual environment's own path, or `pack --target`): name another "
    "one with UNPACKENV_TARGET, or set UNPACKENV=off where the packages are installed",
}


def who_named(candidate: TargetCandidate) -> str:
    """Return a sentence that says who named a target, for an error that refuses it."""
    return _WHO_NAMED[candidate.why]


def doubts(target: str) -> list[str]:
    """Return why a target that was named may not be safe: others may have put something into it."""
    reasons = []
    for directory, what in ((os.path.dirname(target), "its parent"), (target, "it")):
        try:
            status = os.stat(directory)
        except OSError:
            continue
        if status.st_uid not in (0, os.geteuid()):
            reasons.append(f"{what} belongs to uid {status.st_uid}")
        elif status.st_mode & 0o022:
            reasons.append(f"{what} may be written by others")
    return reasons


def check_trusted(candidate: TargetCandidate) -> None:
    """Raise `TargetUntrusted` if others may put something into a default place; missing directories are safe."""
    above = os.path.dirname(candidate.shared_root)
    if os.path.isdir(above) and is_open(above):
        raise TargetUntrusted(
            "may be written by everybody and has no sticky bit: others could replace what is in it",
            where=above,
            hint="Set the sticky bit (chmod +t), or name a target with UNPACKENV_TARGET",
        )
    for directory in (candidate.shared_root, os.path.dirname(candidate.path)):
        if os.path.lexists(directory) and not is_safe(directory):
            raise TargetUntrusted(
                "belongs to another user, or others may write to it",
                where=directory,
                hint="Name a target with UNPACKENV_TARGET",
            )


def prepare_default(candidate: TargetCandidate) -> None:
    """Make the directories above a default place; raises `TargetUntrusted` if others may write to them."""
    check_trusted(candidate)
    for directory in (candidate.shared_root, os.path.dirname(candidate.path)):
        if not os.path.isdir(directory):
            os.makedirs(os.path.dirname(directory), exist_ok=True)
            try:
                os.mkdir(directory, 0o755 if os.geteuid() == 0 else 0o700)
            except FileExistsError:
                pass
            check_trusted(candidate)  # before anything is made in it
    _tag(os.path.dirname(candidate.path))


def _tag(directory: str) -> None:
    """Mark a directory of trees as a cache, which backups leave out (https://bford.info/cachedir/)."""
    path = os.path.join(directory, CACHE_TAG)
    try:
        if os.lstat(path).st_size:  # else a start was killed before it wrote the tag
            return
    except FileNotFoundError:
        pass
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, _TAG)
    finally:
        os.close(fd)
