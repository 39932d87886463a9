"""How long imports take, as `-X importtime` tells it: in this process, from when it is asked for.

Every import that finds its module not yet loaded passes one function of the interpreter's own,
`_frozen_importlib._find_and_load`. While imports are watched, another one is in its place that
looks at the clock before and after. Nothing of this happens, and this module is not loaded, unless
asked for.
"""

from __future__ import annotations

import _thread
import sys

from unpackenv.unpatched import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_importlib: Any = sys.modules["_frozen_importlib"]
_find_and_load: Callable[[str, object], ModuleType] = _importlib._find_and_load


class Watch:
    """The times of all imports from when this is made; one that was made before ends."""

    def __init__(self, count: int) -> None:
        """`count` is how many of the slowest will be told."""
        self._count = count
        self._alone: dict[str, float] = {}  # seconds of each module without what it imported, by name
        self._together: dict[str, float] = {}  # and with it
        self._outermost = 0.0  # seconds of those that no other import asked for
        self._thread = _Thread()
        self._installed = self._timer()
        _importlib._find_and_load = self._installed

    def milliseconds(self) -> float:
        """Return the time that was spent importing, by all threads together.

        Of a module that is being imported now, such as the one that calls this, counts what it imported.
        """
        return (self._outermost + sum(self._thread.imports)) * 1e3

    def end(self) -> list[dict[str, object]]:
        """Stop measuring, and return the slowest imports, without what they imported themselves, slowest first."""
        if _importlib._find_and_load is self._installed:
            _importlib._find_and_load = _find_and_load
        names = sorted(self._alone, key=self._alone.__getitem__, reverse=True)[: self._count]
        return [
            {
                "module": name,
                "self_ms": round(self._alone[name] * 1e3, 3),
                "cumulative_ms": round(self._together[name] * 1e3, 3),
            }
            for name in names
        ]

    def _timer(self) -> Callable[[str, object], ModuleType]:
        def timed(name: str, import_: object) -> ModuleType:
            imports = self._thread.imports
            imports.append(0.0)
            began = time.perf_counter()
            try:
                return _find_and_load(name, import_)
            finally:
                self._count_in(name, time.perf_counter() - began)

        # Where a module fails to import, the interpreter leaves frames of this file out of the traceback.
        timed.__code__ = timed.__code__.replace(co_filename="<frozen importlib._bootstrap>")
        return timed

    def _count_in(self, name: str, spent: float) -> None:
        imports = self._thread.imports
        self._alone[name] = self._alone.get(name, 0.0) + spent - imports.pop()
        self._together[name] = self._together.get(name, 0.0) + spent
        if imports:
            imports[-1] += spent
        else:
            self._outermost += spent


class _Thread(_thread._local):
    """The imports that a thread is in the middle of: of each, the seconds of those that it asked for."""

    def __init__(self) -> None:
        self.imports: list[float] = []
