"""A file in an object store, by a library for that store (fsspec, and s3fs, gcsfs or adlfs).

The library has a thread for its requests, which a fork does not copy: each process has its own instance.
"""

from __future__ import annotations

import errno
import gc
import sys
from typing import Any

from unpackenv.errors import ArchiveNotFound, ArchiveUnreachable, ExtraMissing
from unpackenv.start.remote import address, remotefile
from unpackenv.start.remote.patience import Attempts, stalled_after, time_for
from unpackenv.start.remote.remotefile import TAIL, RemoteFile
from unpackenv.start.remote.unpatched_network import LIBRARIES
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.traffic import Traffic

_IMPORTED_BEFORE = frozenset(sys.modules)
# What another attempt does not change: names of exceptions and of errors of stores, and error numbers.
_REFUSED = ("ClientAuthenticationError", "ExpiredToken", "InvalidToken")
_WRONG = (
    "InvalidRegionError", "NoCredentialsError", "NoRegionError", "ParamValidationError", "PartialCredentialsError",
    "ProfileNotFound", "SSLCertVerificationError", "TokenRetrievalError",
)  # fmt: skip
_FINAL = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EREMCHG)
_MISTAKES = (AttributeError, ImportError, NotImplementedError, TypeError, ValueError)


class StoredFile(RemoteFile):
    """The object at a URL such as s3://BUCKET/KEY. The library finds credentials, regions and endpoints itself."""

    def __init__(self, url: str, timeout: float, traffic: Traffic | None) -> None:
        """Raises `ExtraMissing`, and `ArchiveUnreachable` if the library does not take its configuration."""
        self.shown = address.check(url, insecure=True)
        self._url = url
        self._timeout = timeout
        self._traffic = traffic
        scheme = url.partition("://")[0]
        self._library = address.STORES[scheme]
        try:
            import fsspec
            from fsspec.asyn import sync

            # Its own listings and instances must not outlive a fork.
            self._files: Any = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
        except ImportError as error:
            raise ExtraMissing(
                f"archives by {scheme}:// need {self._library} ({error})",
                where="unpackenv",
                hint=f"pip install 'unpackenv[{scheme}]'",
            ) from None
        except Exception as error:
            raise self._refusal(f"{self._library} does not start here ({_name(error)})") from None
        self._sync: Any = sync
        if scheme == "s3":
            _leave_attempts(self._files, stalled_after(timeout))

    def look(self, whole: int) -> dict[str, Any]:
        info: dict[str, Any] = self._retried("_info")
        if info.get("type") != "file":
            raise self._absent("is a folder, and no archive")
        size = int(info["size"])
        tail = self._read(max(0, size - TAIL), size) if size else b""
        return {"size": size, "tail": tail, "version": "", "state": {}}

    def fetch(self, buffers: list[memoryview], offset: int, size: int, version: str) -> None:
        data = memoryview(self._read(offset, offset + sum(map(len, buffers))))
        for buffer in buffers:
            buffer[:] = data[: len(buffer)]
            data = data[len(buffer) :]

    def close(self) -> None:
        self._files = None  # which closes its connections when it is collected

    def _read(self, begin: int, end: int) -> bytes:
        data: bytes = self._retried("_cat_file", end - begin, start=begin, end=end)
        if self._traffic:
            self._traffic.add(bytes=len(data))
        if len(data) != end - begin:
            raise remotefile.replaced(self.shown)
        return data

    def _retried(self, method: str, size: int = 0, **options: object) -> Any:
        """Return what a method of the library does for `size` bytes of the file, as often as `Requests.retried`.

        One attempt has the whole time limit for each MiB, whatever the library waits for meanwhile.
        """
        attempts, limit = Attempts(self._timeout), time_for(size, self._timeout)
        while True:
            if self._traffic:
                self._traffic.add(requests=1)
            try:
                return self._sync(self._files.loop, getattr(self._files, method), self._url, timeout=limit, **options)
            except Exception as error:
                problem = self._problem(error)
                if problem is None and not attempts.wait():
                    problem = self._refusal(f"cannot be fetched within {self._timeout:g} s ({_name(error)})")
            if problem:  # without the error of the library: its message may hold what nobody may see
                raise problem
            if self._traffic:
                self._traffic.add(retries=1)

    def _problem(self, error: Exception) -> ArchiveNotFound | ArchiveUnreachable | None:
        """Return the error for one of the library; None if another attempt may go better."""
        name = _name(error)
        if isinstance(error, FileNotFoundError):
            return self._absent("there is no archive")
        if isinstance(error, PermissionError) or name in _REFUSED:
            return ArchiveUnreachable(
                f"the object store refuses it ({name})",
                where=self.shown,
                hint=f"Check the credentials that {self._library} finds here, and the URL",
            )
        is_final = isinstance(error, _MISTAKES) or (isinstance(error, OSError) and error.errno in _FINAL)
        if name in _WRONG or is_final:
            return self._refusal(f"cannot be fetched ({name})")
        return None

    def _absent(self, what: str) -> ArchiveNotFound:
        return ArchiveNotFound(what, where=self.shown, hint="Check the URL, and that it was uploaded")

    def _refusal(self, what: str) -> ArchiveUnreachable:
        hint = f"Check the credentials, the region and the endpoint that {self._library} uses"
        return ArchiveUnreachable(what, where=self.shown, hint=hint)


def forget() -> None:
    """End what the library runs in this process, and undo its import: the application may have its own.

    What was there before this module stays; this module is imported anew the next time.
    """
    asynchronous = None if "fsspec" in _IMPORTED_BEFORE else sys.modules.get("fsspec.asyn")
    if asynchronous and asynchronous.loop[0]:
        gc.collect()  # instances that nobody has any more close their connections then
        loop, thread = asynchronous.loop[0], asynchronous.iothread[0]
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    for name in set(sys.modules) - _IMPORTED_BEFORE:
        if name.partition(".")[0] in LIBRARIES:
            del sys.modules[name]
    sys.modules.pop(__name__, None)


def _leave_attempts(files: Any, stalled: float) -> None:
    """Have s3fs, and botocore below it, try once: a start tries again by itself, within its time.

    A connection is given up after so many seconds without a byte.
    """
    files.retries = 1
    once = {"retries": {"total_max_attempts": 1}, "connect_timeout": stalled, "read_timeout": stalled}
    files.config_kwargs = {**files.config_kwargs, **once}


def _name(error: Exception) -> str:
    """Return what may be said of an error: the code that S3 has for it, such as "SlowDown", or its name."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    if isinstance(code, str) and code.isalnum():
        return code
    if type(error) is OSError and error.errno:
        return os.strerror(error.errno)
    name = type(error).__name__
    return "no answer in time" if name.endswith("TimeoutError") else name
