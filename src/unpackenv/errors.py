"""Every error that unpackenv raises, one class for each problem that a user can solve.

An error says what is wrong, where, and what to do; `reason` is a stable code for logs, and
`facts` holds the figures of the message. This module imports nothing: every start loads it.
"""

from __future__ import annotations

EXIT_BOOTSTRAP_FAILED = 125


class UnpackenvError(Exception):
    """Base class of all errors of unpackenv.

    `what` says what is wrong, `where` names the file, directory or setting, `hint` says what to do.
    All three are text; `facts` are plain numbers and strings.
    """

    reason = "error"
    advice = ""  # the hint, if the error is raised without one

    def __init__(self, what: str, *, where: str = "", hint: str = "", **facts: object) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint or self.advice
        self.facts = facts

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.hint}" if self.hint else text


class SettingError(UnpackenvError):
    """A setting has an invalid value."""

    reason = "setting"


class ArchiveNotFound(UnpackenvError):
    """There is no archive at the given path, or at any of the well-known ones."""

    reason = "archive-not-found"


class ArchiveUnreadable(UnpackenvError):
    """The archive is there but the operating system refuses to read it."""

    reason = "archive-unreadable"


class ArchiveUnreachable(UnpackenvError):
    """The server of a remote archive cannot be reached, or does not hand it out."""

    reason = "archive-unreachable"


class ArchiveUnsupported(UnpackenvError):
    """The file is not an archive that this version, or this installation, can read."""

    reason = "archive-unsupported"


class ArchiveCorrupt(UnpackenvError):
    """The bytes of the archive are not those that were packed."""

    reason = "archive-corrupt"
    advice = "Copy or pack the archive again"


class ArchiveUnsafe(UnpackenvError):
    """A member would be written outside the target, or is of a kind that is never unpacked."""

    reason = "archive-unsafe"


class DigestMismatch(UnpackenvError):
    """The archive is sound but does not have the required digest."""

    reason = "digest-mismatch"


class MemoryBudgetExceeded(UnpackenvError):
    """Decoding the archive needs more memory than the budget allows."""

    reason = "memory-budget"


class MemoryTooSmall(UnpackenvError):
    """The container's memory limit leaves less than unpacking is estimated to need."""

    reason = "memory-limit"


class InterpreterMismatch(UnpackenvError):
    """The environment was packed for another interpreter, platform or libc."""

    reason = "interpreter-mismatch"


class TargetRefused(UnpackenvError):
    """The target holds something that unpackenv did not put there."""

    reason = "target-refused"


class TargetNotWritable(UnpackenvError):
    """The target, or every default place, cannot be written to."""

    reason = "target-not-writable"


class TargetReadOnly(TargetNotWritable):
    """The target is on a file system that is mounted read-only."""

    reason = "target-read-only"


class TargetUntrusted(UnpackenvError):
    """A default place belongs to another user, or others may write to it."""

    reason = "target-untrusted"


class TargetInMemory(UnpackenvError):
    """The target is on a tmpfs, and the memory limit does not leave enough for the tree."""

    reason = "target-in-memory"


class TargetNoExec(UnpackenvError):
    """The target's mount forbids mapping shared objects as code."""

    reason = "target-noexec"


class NoSpace(UnpackenvError):
    """Too few free bytes or inodes for the tree."""

    reason = "no-space"


class UnpackFailed(UnpackenvError):
    """The operating system refused a step of the unpack, or a worker died."""

    reason = "unpack-failed"
    advice = "Start again, or name another target with UNPACKENV_TARGET"


class LockTimeout(UnpackenvError):
    """Another start held the lock of the target for longer than `lock_timeout`."""

    reason = "lock-timeout"


class PlatformUnsupported(UnpackenvError):
    """This operating system lacks what a bootstrap needs."""

    reason = "platform-unsupported"


class PackError(UnpackenvError):
    """The environment cannot be packed, or its archive cannot be written."""

    reason = "pack"


class PushError(UnpackenvError):
    """The archives cannot be published together, or not at this tag."""

    reason = "push"


class TreeMismatch(UnpackenvError):
    """A tree differs from its archive."""

    reason = "tree-mismatch"


class TreeUnfilled(UnpackenvError):
    """A tree that applications use could not be filled."""

    reason = "tree-unfilled"
    advice = "Start again: the tree is unpacked again"


class TimingLogUnreadable(UnpackenvError):
    """A timing log or a trace has nothing that can be read."""

    reason = "timing-log-unreadable"


class ExtraMissing(UnpackenvError):
    """A library is missing; an extra of unpackenv installs it."""

    reason = "extra-missing"
