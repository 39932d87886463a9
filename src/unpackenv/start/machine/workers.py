"""Workers that run one loop, as forked processes or as threads; the caller is one of them.

Jobs are numbers in a pipe that all workers read from: the next free worker takes the next job. To
stop all workers, the pipe is emptied.
"""

from __future__ import annotations

import marshal

from unpackenv import errors
from unpackenv.errors import UnpackenvError, UnpackFailed
from unpackenv.unpatched import is_built_in, os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Work = Callable[[int, Callable[[], int], Callable[[], None]], None]

_NUMBER = 4
_DONE = b"+"
_PIPE_NUMBERS = 8192  # half of what fits a pipe of the usual 64 KiB


def run(prepare: Callable[[], None], work: Work, jobs: int, workers: int, processes: bool) -> int:
    """Do the jobs 0 to `jobs` - 1 with `workers` workers, each calling `work(number, take, ready)`.

    Returns how many workers there were: fewer if the system refused to start more.

    `take()` returns the next job, or -1; `ready()` returns when `prepare()`, which the caller runs
    meanwhile, has ended. Raises the first error, after all workers have stopped.
    """
    queue = _Queue(jobs)
    prepared = _Latch()
    others: list[Worker] = []
    try:
        try:
            _start(others, work, workers, queue, prepared, processes)
            prepare()
            prepared.open()
            work(0, queue.taker(), prepared.wait)
        except BaseException:
            queue.drain()
            for worker in others:
                worker.stop()
            prepared.open()
            for worker in others:
                worker.join()
            raise
        problems = [problem for worker in others if (problem := worker.join())]
        if problems:
            raise problems[0]
        return 1 + len(others)
    finally:
        prepared.close()
        queue.close()


def _start(others: list[Worker], work: Work, count: int, queue: _Queue, prepared: _Latch, processes: bool) -> None:
    """Start all of `count` workers but the caller; if a limit on processes forbids more, fewer will do."""
    try:
        others.extend(start(_body(work, number, queue, prepared, processes), processes) for number in range(1, count))
    except (OSError, RuntimeError):  # what a fork, or the start of a thread, raises
        pass


def why_fewer(processes: bool) -> str:
    """Return why there were fewer workers than planned."""
    if processes or _has_threads():
        return "the system refused to start more workers"
    return "the application has replaced threads: only one worker unpacked"


def _has_threads() -> bool:
    """Whether threads are the interpreter's own.

    A replacement by the application, such as a greenlet, would run only while the caller waits for an event loop.
    """
    import _thread

    return is_built_in(_thread.start_new_thread)


class _Queue:
    """Numbers from 0, each handed out once, to threads and processes alike."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stride = max(1, -(-count // _PIPE_NUMBERS))
        self._reader, writer = os.pipe()
        starts = range(0, count, self._stride)
        os.write(writer, b"".join(number.to_bytes(_NUMBER, "little") for number in starts))
        os.close(writer)

    def taker(self) -> Callable[[], int]:
        """Return a function for one worker that returns the next number, or -1."""
        numbers = self._numbers()
        return lambda: next(numbers, -1)

    def _numbers(self) -> Iterator[int]:
        while data := os.read(self._reader, _NUMBER):
            start = int.from_bytes(data, "little")
            yield from range(start, min(start + self._stride, self._count))

    def drain(self) -> None:
        """Take all numbers that are left: every worker ends after the job that it has."""
        while os.read(self._reader, 1 << 16):
            pass

    def close(self) -> None:
        os.close(self._reader)


class _Latch:
    """Opens once, for threads and processes alike: a pipe whose writing end is closed."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def open(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def wait(self) -> None:
        os.read(self._reader, 1)

    def close(self) -> None:
        self.open()
        os.close(self._reader)


def _body(work: Work, number: int, queue: _Queue, prepared: _Latch, processes: bool) -> Callable[[], None]:
    """Return the body of one worker: it works until the queue is empty, and empties it if it fails."""
    caller = os.getpid()

    def body() -> None:
        take = queue.taker()
        try:
            if processes:  # a forked worker ends if its parent has ended
                prepared.open()
                work(number, lambda: take() if os.getppid() == caller else -1, prepared.wait)
            else:
                work(number, take, prepared.wait)
        except BaseException:
            queue.drain()
            raise

    return body


class Worker:
    """A worker other than the caller, in a process or a thread."""

    def stop(self) -> None:
        """End it as soon as that is possible; it still has to be joined."""
        raise NotImplementedError

    def join(self) -> UnpackenvError | None:
        """Wait until it has ended and return its error, if any."""
        raise NotImplementedError


def start(body: Callable[[], None], processes: bool) -> Worker:
    """Run `body` concurrently with the caller, in a forked process or in a thread.

    Raises `OSError` or `RuntimeError` if the system, or the application, does not let it start.
    """
    return _Process(body) if processes else _Thread(body)


class _Process(Worker):
    """A forked worker. It reports its error, if any, through a pipe."""

    def __init__(self, body: Callable[[], None]) -> None:
        self._reader, writer = os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._reader)
            os.close(writer)
            raise
        if self._pid == 0:
            try:
                os.close(self._reader)
                os.write(writer, caught(body) or _DONE)
            finally:  # even if the write fails: this process must not go on with the code of the caller
                os._exit(0)
        os.close(writer)

    def stop(self) -> None:
        os.kill(self._pid, 9)

    def join(self) -> UnpackenvError | None:
        data = read_all(self._reader)
        os.close(self._reader)
        status = wait(self._pid)
        if data == _DONE:
            return None
        return error_of(data, status) or UnpackFailed("a worker ended without a result")


class _Thread(Worker):
    """A worker in a thread of this process. It closes a pipe when it ends."""

    def __init__(self, body: Callable[[], None]) -> None:
        import _thread

        if not _has_threads():
            raise RuntimeError("the application has replaced threads")
        self._body = body
        self._problem = b""
        self._ended, self._end = os.pipe()
        try:
            _thread.start_new_thread(self._run, ())
        except BaseException:
            os.close(self._ended)
            os.close(self._end)
            raise

    def _run(self) -> None:
        try:
            self._problem = caught(self._body)
        finally:
            os.close(self._end)

    def stop(self) -> None:
        """Nothing to do: there is no more work for it, and it ends by itself."""

    def join(self) -> UnpackenvError | None:
        read_all(self._ended)
        os.close(self._ended)
        return error_of(self._problem, 0)


# --- errors between processes -------------------------------------------------------------------


def caught(work: Callable[[], object]) -> bytes:
    """Run `work` and return b"", or its error as bytes for `error_of`."""
    try:
        work()
    except UnpackenvError as error:
        facts = {key: value for key, value in error.facts.items() if isinstance(value, (str, int, float))}
        return marshal.dumps((type(error).__name__, error.what, error.where, error.hint, facts))
    except MemoryError:
        return marshal.dumps(("UnpackFailed", "a worker ran out of memory", "", "Lower UNPACKENV_WORKERS", {}))
    except BaseException as error:
        import traceback

        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return marshal.dumps(("UnpackFailed", f"unexpected {type(error).__name__} in a worker\n{text}", "", "", {}))
    return b""


def error_of(data: bytes, status: int) -> UnpackenvError | None:
    """Return the error that `caught` encoded, or the one for a wait status; None if there is none."""
    if data:
        name, what, where, hint, facts = marshal.loads(data)
        error: UnpackenvError = getattr(errors, name)(what, where=where, hint=hint, **facts)
        return error
    if status:
        signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        how = f"was killed by signal {signal}" if signal else f"ended with status {status}"
        return UnpackFailed(
            f"a worker {how}" + (", as the kernel does when a memory limit is exceeded" if signal == 9 else ""),
            hint="Raise the memory limit, or lower UNPACKENV_WORKERS" if signal == 9 else "",
            signal=signal,
        )
    return None


def wait(pid: int) -> int:
    """Wait for a child and return its wait status; 0 if something else has taken it.

    That happens in a program that ignores SIGCHLD, or waits for any child in a handler.
    """
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def read_all(fd: int) -> bytes:
    """Read a pipe until all its writers have closed it."""
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)
