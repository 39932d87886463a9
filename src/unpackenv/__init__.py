"""Start Python containers from a compressed environment.

`bootstrap()` at the top of an application, or `python -m unpackenv -- CMD` as the entrypoint of an
image, unpacks an archive that `unpackenv pack` made, and makes it importable.
"""

from __future__ import annotations

from unpackenv.errors import UnpackenvError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from unpackenv.start.report import Report

__all__ = ["UnpackenvError", "__version__", "bootstrap", "mark"]
__version__ = "0.1.0"


def bootstrap(
    archive: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    *,
    digest: str | None = None,
    insecure: bool | None = None,
    fetch_timeout: float | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_size: int | None = None,
    missing: str | None = None,
    in_place: bool | None = None,
    force: bool | None = None,
    sync: bool | None = None,
    workers: int | None = None,
    parallel: str | None = None,
    memory: int | None = None,
    fill: str | None = None,
    lock_timeout: float | None = None,
    log: str | None = None,
    log_file: str | os.PathLike[str] | None = None,
    imports: int | None = None,
    trace: str | os.PathLike[str] | None = None,
    relocate: bool | None = None,
) -> Report:
    """Unpack the environment if it is not there yet, and make it importable.

    Call it before the application's first import. An argument that is left out is taken from
    `UNPACKENV_<NAME>` in the environment, else from what `pack` recorded, else from the default.

    Args:
        archive: the archive, or its URL with its digest (default: site-packages, packages or venv with .tar.zst,
            .tar.xz, .tar.gz or .tar, next to the caller of bootstrap() or in /opt/unpackenv)
        target: the directory to unpack into (default: the one that `pack --target` recorded, else one named by the
            digest below /opt/unpackenv/env, the user's cache or the temporary directory)
        digest: accept only the archive with this digest, which `unpackenv inspect` prints (default: any)
        insecure: fetch an archive by http:// also from other machines, which encrypts nothing (default: no)
        fetch_timeout: seconds for fetching a part of a remote archive, with all attempts (default: 60)
        cache: a directory that keeps what is fetched, for all containers and starts of a machine (default: none)
        cache_size: size of the cache in bytes, such as 4G; what was not used for longest makes room (default: 4G)
        missing: what to do without an archive: error, or ignore (the start does nothing) (default: error)
        in_place: replace files one by one in a target that is already in use (default: no)
        force: unpack even if the checks of interpreter, mount, space and memory fail (default: no)
        sync: sync the tree to the disk before it is published; it then needs no check after a reboot (default: no)
        workers: how many workers unpack; 0: as many as CPUs, CPU quota and memory allow (default: 0)
        parallel: kind of workers: processes, threads, or auto, the faster of the two (default: auto)
        memory: budget in bytes for the buffers of all workers together, such as 256M (default: 256M)
        fill: when files are filled: before the application starts, behind it (names first), or on-demand (when they are
            opened); if nothing is said, as `pack --fill` recorded (default: before)
        lock_timeout: seconds to wait for another start that is unpacking the same target (default: 600)
        log: the timing line on stderr: text, json or off (default: text)
        log_file: a file to append each line to as JSON, whatever log is set to (default: none)
        imports: how many of the slowest imports mark("ready") lists; 0: imports are not measured (default: 0)
        trace: a file for a trace of the unpack, by worker and frame, in Chrome's format (default: none)
        relocate: rewrite the scripts of a virtual environment for the path that it is unpacked to (default: no)

    Returns a `Report`; a second call that names neither archive nor target returns that of the first. Raises
    `UnpackenvError`; `unpackenv.errors` lists its subclasses. With `UNPACKENV=off` in the environment it does nothing.
    """
    arguments = dict(locals())
    import os
    import sys

    start = _import_start()
    caller = sys._getframe(1).f_globals.get("__file__")
    try:
        return start(arguments, os.path.dirname(os.path.abspath(caller)) if caller else "")
    except (UnpackenvError, KeyboardInterrupt) as error:
        # A reader needs only the application's frames; the error of the system stays in `__context__`.
        raise error.with_traceback(None) from None


def _import_start() -> Callable[[Mapping[str, object], str], Report]:
    """Import and return the function that does what `bootstrap` says.

    No garbage is collected meanwhile: a collection finds nothing in new modules, and takes as long as five of them.
    """
    import gc

    is_collecting = gc.isenabled()
    gc.disable()
    try:
        from unpackenv.start.bootstrap import bootstrap as start
    finally:
        if is_collecting:
            if not gc.get_freeze_count():  # else the application has frozen objects, and unfreezes them itself
                gc.freeze()
                gc.unfreeze()  # what there is counts as old now, and the next collection does not come at once
            gc.enable()
    return start


def mark(name: str) -> None:
    """Log that the application has reached the point `name`, and when; "ready" is the last one.

    The line gives the milliseconds since the process started (the kernel counts them in steps of
    10) and since its bootstrap ended, if there was one. With `imports` set, it also gives how many
    of these were spent importing, and "ready" lists the slowest imports.
    """
    from unpackenv.start.log.marks import mark as log_mark

    log_mark(name)
