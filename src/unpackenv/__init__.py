"""Start Python containers from a compressed environment.

`bootstrap()` at the top of an application, or `python -m unpackenv -- CMD` as the entrypoint of an
image, unpacks an archive that `unpackenv pack` made, and makes it importable.
"""

from __future__ import annotations

from unpackenv.errors import UnpackenvError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from unpackenv.start.report import Report

__all__ = ["UnpackenvError", "__version__", "bootstrap", "mark"]
__version__ = "0.1.0"


def bootstrap(
    archive: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    *,
    digest: str | None = None,
    missing: str | None = None,
    in_place: bool | None = None,
    force: bool | None = None,
    sync: bool | None = None,
    workers: int | None = None,
    parallel: str | None = None,
    memory: int | None = None,
    lock_timeout: float | None = None,
    log: str | None = None,
    log_file: str | os.PathLike[str] | None = None,
    imports: int | None = None,
    trace: str | os.PathLike[str] | None = None,
    relocate: bool | None = None,
) -> Report:
    """Unpack the environment if it is not there yet, and make it importable.

    Call it before the application's first import. Every argument left out is taken from
    `UNPACKENV_<NAME>` in the environment, else from what `pack` recorded, else a default.

    Args:
        archive: the archive; by default a well-known name beside the calling file, then in /opt/unpackenv.
        target: directory to unpack into; by default one named by the digest under /opt/unpackenv/env,
            the user's cache, or the temporary directory, the first that is writable.
        digest: accept only the archive with this sha256, in hex, as `unpackenv inspect` prints it; by default "any".
        missing: "ignore" makes a start without an archive a no-op; by default it is an error.
        in_place: replace files one by one in a target that is already in use.
        force: unpack whatever the checks before it say of interpreter, mount, room and memory.
        sync: wait until the tree is on the disk, so that it need not be looked at after a reboot.
        workers: how many workers unpack; by default as many as CPUs, CPU quota and memory allow.
        parallel: "processes" or "threads"; by default what measures faster.
        memory: budget in bytes for the buffers of all workers together.
        lock_timeout: seconds to wait for another start that is unpacking the same target.
        log: "text", "json" or "off": the timing line on stderr.
        log_file: a file to which each line is appended as JSON, whatever `log` says.
        imports: how many of the slowest imports `mark("ready")` tells; by default imports are not measured.
        trace: a file for a trace of the unpack, by worker and frame, in Chrome's format.
        relocate: where it unpacks a virtual environment elsewhere than that was made, rewrite its scripts for there.

    Returns a `Report`; a second call that names neither archive nor target returns the first one's. Raises
    `UnpackenvError`: its subclasses in `unpackenv.errors` say what can go wrong. With
    `UNPACKENV=off` in the environment it does nothing.
    """
    arguments = dict(locals())
    import os
    import sys

    from unpackenv.start.bootstrap import bootstrap as start

    caller = sys._getframe(1).f_globals.get("__file__")
    try:
        return start(arguments, os.path.dirname(os.path.abspath(caller)) if caller else "")
    except (UnpackenvError, KeyboardInterrupt) as error:
        # The application's own frames are what its reader needs; what the system said is in `__context__`.
        raise error.with_traceback(None) from None


def mark(name: str) -> None:
    """Log that the application has reached the point `name`, and when; "ready" is the last one.

    The line gives the milliseconds since the process started (the kernel counts them in steps of
    10) and since its bootstrap ended, where there was one. Where `imports` is set, it also gives
    how many of these were spent importing, and "ready" the slowest imports.
    """
    from unpackenv.start.log.marks import mark as log_mark

    log_mark(name)
