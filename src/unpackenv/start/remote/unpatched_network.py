"""The modules for requests, with the interpreter's own sockets, even if an application has replaced them.

gevent and eventlet replace them with sockets that wait for an event loop, tests with ones that refuse everything.
"""

from __future__ import annotations

import sys
from importlib import import_module

from unpackenv.unpatched import is_built_in, new_instance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

# What is built on sockets; their submodules, too.
_NETWORK = ("http", "select", "selectors", "socket", "ssl", "urllib")
# What libraries for object stores are built on besides; and they themselves.
_BUILT_IN = ("_thread", "time")
_THREADS = (*_BUILT_IN, "asyncio", "concurrent", "logging", "queue", "signal", "subprocess", "threading")
LIBRARIES = (
    "adlfs", "aiobotocore", "aiohttp", "aioitertools", "aiosignal", "attr", "attrs", "botocore", "dateutil",
    "frozenlist", "fsspec", "gcsfs", "idna", "jmespath", "multidict", "propcache", "requests", "s3fs", "six",
    "urllib3", "wrapt", "yarl",
)  # fmt: skip


def load(name: str) -> ModuleType:
    """Import a module of this room that makes requests; those of the application stay as they are."""
    if not _is_replaced():
        return import_module(name)
    replaced = {each: sys.modules.pop(each) for each in list(sys.modules) if each.partition(".")[0] in _NETWORK}
    try:
        return import_module(name)
    finally:
        for each in list(sys.modules):
            if each.partition(".")[0] in _NETWORK:
                del sys.modules[each]
        sys.modules.update(replaced)


def undo() -> None:
    """Have this process import the interpreter's own modules for sockets and threads from now on.

    For a process that runs nothing of the application.
    """
    if _is_replaced():
        for each in list(sys.modules):
            if each.partition(".")[0] in (*_NETWORK, *_THREADS, *LIBRARIES):
                del sys.modules[each]
        sys.modules.update({name: new_instance(name) for name in _BUILT_IN})


def _is_replaced() -> bool:
    """Whether something that sockets need is not the interpreter's own."""
    socket, select = sys.modules.get("socket"), sys.modules.get("select")
    own = getattr(getattr(socket, "socket", None), "__module__", "socket")
    # While another thread imports `socket`, its class is the one of the module below.
    return own not in ("socket", "_socket") or not is_built_in(getattr(select, "select", len))
