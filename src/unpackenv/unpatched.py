"""`os` and `time` with the interpreter's own functions, even if an application has replaced some of them.

gevent and eventlet replace them with functions that wait for an event loop, tests with mocks. A start must not wait for
an event loop, and works on real files.
"""

from __future__ import annotations

import os as _os
import sys
import time as _time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os as os
    import time as time
    from types import ModuleType
    from typing import Any


def is_built_in(function: object) -> bool:
    """Whether a function is the interpreter's own, written in C."""
    return isinstance(function, type(len))


def _copy(module: ModuleType) -> ModuleType:
    copy = type(module)(module.__name__)
    copy.__dict__.update(vars(module))
    return copy


def _unpatched_os() -> ModuleType:
    """Return a copy of `os` with the functions of the built-in module below it, where nobody replaces them."""
    copy = _copy(_os)
    built_in = vars(sys.modules[_os.name])
    copy.__dict__.update([(name, value) for name, value in built_in.items() if callable(value)])
    if "memfd_create" not in vars(copy):  # a Python that was built for an old glibc
        vars(copy).update(MFD_CLOEXEC=1, memfd_create=_unnamed_file)
    return copy


def _unnamed_file(name: str, flags: int = 1) -> int:
    """Return a descriptor of a file in memory that no directory names, as `os.memfd_create` does."""
    return _os.open("/dev/shm", _os.O_TMPFILE | _os.O_RDWR | _os.O_CLOEXEC, 0o700)


def _unpatched_time() -> ModuleType:
    """Return a copy of `time`, or a new instance of it if functions in it are replaced already."""
    names = ("clock_gettime", "monotonic", "perf_counter", "process_time", "sleep", "time")
    if all(is_built_in(getattr(_time, name, len)) for name in names):
        return _copy(_time)
    return new_instance("time")


def new_instance(name: str) -> ModuleType:
    """Return a new instance of a module that is built into the interpreter: nobody has replaced anything in it."""
    importer: Any = sys.modules["_frozen_importlib"].BuiltinImporter
    instance: ModuleType = importer.create_module(importer.find_spec(name))
    importer.exec_module(instance)
    return instance


if not TYPE_CHECKING:
    os = _unpatched_os()
    time = _unpatched_time()
