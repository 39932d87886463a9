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
import sys

from unpackenv.errors import UnpackFailed
from unpackenv.start.machine import workers
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    T = TypeVar("T")
    Result = dict[str, Any]

_STOP = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)


class ForkRefused(Exception):
    """The system starts no more processes for this user or container."""


def open_descriptors() -> list[int]:
    """Return the open descriptors of this process beyond those of the standard streams."""
    found = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
    return [fd for fd in found if os.path.lexists(f"/proc/self/fd/{fd}")]  # not the one that listed them


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors, some of which may be closed already."""
    for fd in descriptors:
        try:
            os.close(fd)
        except OSError:
            pass


def wait_for_end(pidfd: int, seconds: float | None = None) -> bool:
    """Wait until the process of a pidfd has ended, `seconds` at most; return whether it has."""
    import select  # not in the application, which has a cold start without it

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1e3))


def set_name(name: str) -> None:
    """Set the name that `ps` and `top` show for this process: 15 bytes of it."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write(name)
    except OSError:
        pass


def silence(*streams: int) -> None:
    """Have standard streams of this process lead nowhere: whoever reads their other end must not wait for it."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in streams:
        os.dup2(null, fd)
    if null not in streams:
        os.close(null)


def ignore_stop_signals(ignore: bool = True) -> None:
    """Ignore stop signals, or end at them, whatever handlers the application has."""
    for signum in _STOP:
        _signal.signal(signum, _signal.SIG_IGN if ignore else _signal.SIG_DFL)


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
    stopped: list[BaseException] = []

    def stop(signum: int, _frame: object) -> None:
        for each in previous:
            _signal.signal(each, _signal.SIG_IGN)
        stopped.append(KeyboardInterrupt() if signum == _signal.SIGINT else SystemExit(128 + signum))
        raise stopped[0]

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
    except Exception:
        if stopped:  # some library has caught it, and went on with what was half done
            raise stopped[0] from None
        raise
    finally:
        try:
            for signum in previous:
                _signal.signal(signum, previous[signum])
        except BaseException:  # a stop signal came just now
            for signum in previous:
                _signal.signal(signum, previous[signum])
            raise


def run(work: Callable[[], Result], afterwards: Callable[[], None] | None = None) -> Result:
    """Run `work` in a forked child and return its result; raises the error that it raised there, or `ForkRefused`.

    If this process gets a stop signal, it kills the child and all its workers first. With `afterwards`, the child calls
    that when its result is on its way: it is a grandchild then, which the application neither knows nor waits for.
    """
    reader, writer = os.pipe()
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    try:
        # A handler that ran between the fork and the next line would not know in which process it is.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _STOP)
        pid = _fork()
        if pid == 0:
            if afterwards:
                _leave_parent()
            _child(work, reader, writer, mask, afterwards)
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


def _leave_parent() -> None:
    """Go on in a child, in the group of this process, which ends."""
    _lead_group(0)
    pid = 0
    try:
        pid = os.fork()
    finally:  # also if that is refused: the parent sees that there is no result
        if pid or sys.exc_info()[0]:
            os._exit(0)


def _child(
    work: Callable[[], Result], reader: int, writer: int, mask: set[int], afterwards: Callable[[], None] | None
) -> None:
    """Run `work` in the child, write the result, and exit; `mask` is the caller's signal mask."""
    result: Result = {}

    def keep() -> None:
        result.update(work())

    try:
        os.close(reader)
        if not afterwards:
            _lead_group(0)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        ignore_stop_signals(bool(afterwards))  # they are for the application, which kills this process if it stops
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        problem = workers.caught(keep)
        os.write(writer, b"-" + problem if problem else b"+" + marshal.dumps(result))
        if afterwards and not problem:
            os.close(writer)
            afterwards()
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
