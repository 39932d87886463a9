"""Threads that work ahead, for packing and verifying; a start has its own workers.

They are daemons. A caller that stops early does not wait for running work: a frame at a high level takes seconds, and
its compression cannot be interrupted.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS_BETWEEN_LOOKS = 0.2


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    ahead: int,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order, with at most `ahead` of them begun; raises what `work` raises.

    `on_wait` is called in the calling thread several times a second while it waits.
    """
    pool = _Pool(work, workers)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(item))
            if len(pending) == ahead:
                yield _result(pending.popleft(), on_wait)
        while pending:
            yield _result(pending.popleft(), on_wait)
    finally:
        for future in pending:
            future.cancel()
        pool.end()
    pool.join()  # at once, as all work has ended


def aside(work: Callable[[], Result]) -> Result:
    """Run `work` in a thread of its own, and return its result; meanwhile this thread can be interrupted."""
    (result,) = in_order(lambda run: run(), [work], 1, 1)
    return result


def _result(future: Future[Result], on_wait: Callable[[], None]) -> Result:
    while not wait([future], _SECONDS_BETWEEN_LOOKS).done:
        on_wait()
    return future.result()


class _Pool(Generic[Item, Result]):
    """`workers` threads that do `work`, each started when there is a job for it.

    If a limit on processes refuses some, there are fewer; without any, the caller does the work.
    """

    def __init__(self, work: Callable[[Item], Result], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[tuple[Future[Result], Item] | None] = queue.SimpleQueue()

    def submit(self, item: Item) -> Future[Result]:
        future: Future[Result] = Future()
        if len(self._threads) < self._workers:
            self._begin()
        if self._threads:
            self._jobs.put((future, item))
        else:
            self._do(future, item)
        return future

    def _begin(self) -> None:
        thread = threading.Thread(target=self._serve, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._workers = len(self._threads)
        else:
            self._threads.append(thread)

    def end(self) -> None:
        """Let each thread end after its job."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self) -> None:
        """Wait until each thread has ended."""
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while job := self._jobs.get():
            self._do(*job)
            del job  # frees its memory while the thread waits

    def _do(self, future: Future[Result], item: Item) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(self._work(item))
            except BaseException as error:
                future.set_exception(error)
