"""How long imports take in this process, measured as `-X importtime` does, but from any moment on.

Every import of a module that is not loaded yet calls `_frozen_importlib._find_and_load`. While
imports are measured, another function takes its place and reads the clock before and after. This
module is loaded only if imports are to be measured.
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
    """Measures all imports from its creation on; an earlier one ends."""

    def __init__(self, count: int) -> None:
        """`count` is how many of the slowest `end` will return."""
        self._count = count
        self._alone: dict[str, float] = {}  # seconds of each module without what it imported, by name
        self._together: dict[str, float] = {}  # and with it
        self._outermost = 0.0  # seconds of the imports that are not inside another one
        self._thread = _ThreadImports()
        self._installed = self._timer()
        _importlib._find_and_load = self._installed

    def milliseconds(self) -> float:
        """Return the time that was spent importing, by all threads together.

        Of a module whose import has not ended, such as the caller, only the imports inside it count.
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
                self._add(name, time.perf_counter() - began)

        # Where a module fails to import, the interpreter leaves frames of this file out of the traceback.
        timed.__code__ = timed.__code__.replace(co_filename="<frozen importlib._bootstrap>")
        return timed

    def _add(self, name: str, spent: float) -> None:
        imports = self._thread.imports
        self._alone[name] = self._alone.get(name, 0.0) + spent - imports.pop()
        self._together[name] = self._together.get(name, 0.0) + spent
        if imports:
            imports[-1] += spent
        else:
            self._outermost += spent


class _ThreadImports(_thread._local):
    """The imports of a thread that have not ended: for each, the seconds of the imports inside it."""

    def __init__(self) -> None:
        self.imports: list[float] = []
