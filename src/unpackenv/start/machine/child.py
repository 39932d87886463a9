"""Run work in a child process, and handle stop signals meanwhile: the application's process stays as it was.

The child imports codecs, sets its umask, allocates memory, and exits; the parent only waits. If the
caller has several threads, a fork is not safe, and the work runs in its process.

A stop signal (SIGTERM, SIGINT, SIGHUP) ends the work promptly if the program left it at its default;
for PID 1 too, where the kernel would drop it. The program's own handlers are left alone. The handlers
that are set here are removed after the work.
"""

from __future__ import annotations

import _signal  # `signal` imports enum: too slow for a warm start, and a cold one must not leave it loaded
import marshal

from unpackenv.errors import UnpackFailed
from unpackenv.start.machine import workers
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")
    Result = dict[str, Any]

_STOP = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)


class ForkRefused(Exception):
    """The system starts no more processes for this user or container."""


def is_single_threaded() -> bool:
    """Whether this process has only one thread: then a fork is safe."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        import _thread

        return _thread._count() == 0


def with_stop_signals(work: Callable[[], T]) -> T:
    """Run `work` and return its result; meanwhile a stop signal raises KeyboardInterrupt or SystemExit(128 + n).

    After the first one, stop signals are ignored until this returns: cleaning up is quick. This is no context manager:
    after a signal between its entry and its block, nothing would restore the handlers.
    """
    previous: dict[int, object] = {}

    def stop(signum: int, _frame: object) -> None:
        for each in previous:
            _signal.signal(each, _signal.SIG_IGN)
        if signum == _signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signum)

    try:
        for signum in _STOP:
            handler = _signal.getsignal(signum)
            if handler in (_signal.SIG_DFL, _signal.default_int_handler):
                previous[signum] = handler
                try:
                    _signal.signal(signum, stop)
                except ValueError:  # not the main thread, which alone may set handlers
                    previous.clear()
                    break
        return work()
    finally:
        try:
            for signum in previous:
                _signal.signal(signum, previous[signum])
        except BaseException:  # a stop signal came just now
            for signum in previous:
                _signal.signal(signum, previous[signum])
            raise


def run(work: Callable[[], Result]) -> Result:
    """Run `work` in a forked child and return its result; raises the error that it raised there, or `ForkRefused`.

    If this process gets a stop signal, it kills the child and all its workers first.
    """
    reader, writer = os.pipe()
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    try:
        # A handler that ran between the fork and the next line would not know in which process it is.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _STOP)
        pid = _fork()
        if pid == 0:
            _child(work, reader, writer, mask)
    except BaseException:
        os.close(reader)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        raise
    finally:
        os.close(writer)
    try:
        _lead_group(pid)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        data = workers.read_all(reader)  # ends when the child and all its workers have ended
        status = workers.wait(pid)
    except BaseException:
        _kill_group(pid)
        workers.read_all(reader)
        workers.wait(pid)
        raise
    finally:
        os.close(reader)
    if data[:1] == b"+":
        result: Result = marshal.loads(data[1:])
        return result
    raise workers.error_of(data[1:], status) or UnpackFailed("the process that unpacks ended without a result")


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        raise ForkRefused(error.strerror) from error


def _child(work: Callable[[], Result], reader: int, writer: int, mask: set[int]) -> None:
    """Run `work` in the child, write the result, and exit; `mask` is the caller's signal mask."""
    result: Result = {}

    def keep() -> None:
        result.update(work())

    try:
        os.close(reader)
        _lead_group(0)
        for signum in (*_STOP, _signal.SIGCHLD):
            _signal.signal(signum, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        problem = workers.caught(keep)
        os.write(writer, b"-" + problem if problem else b"+" + marshal.dumps(result))
    finally:
        os._exit(0)


def _lead_group(pid: int) -> None:
    """Put the child into its own group, which one signal ends, workers included; parent and child both call this."""
    try:
        os.setpgid(pid, pid)
    except OSError:
        pass


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, _signal.SIGKILL)
    except OSError:
        pass
    try:
        os.kill(pid, _signal.SIGKILL)
    except OSError:
        pass
