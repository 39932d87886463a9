"""Telling a person how far a long step is: a bar on a terminal, a line a step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def step(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show one step of `total` units while entered; call what it yields with the units done so far.

    The bar is `rich`'s (extra `build`); without it, and where stderr is no terminal, a line says
    when the step is over.
    """
    if sys.stderr.isatty():
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            pass
        else:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(name, total=total)
                yield lambda done: bar.update(task, completed=done)
            return
    started = time.monotonic()
    yield lambda done: None
    print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr)
