"""A file in an object store, by a library for that store (fsspec, and s3fs, gcsfs or adlfs)."""

from __future__ import annotations

import random
from typing import Any

from unpackenv.errors import ArchiveNotFound, ArchiveUnreachable, ExtraMissing, UnpackenvError
from unpackenv.start.remote import remotefile
from unpackenv.start.remote.address import STORES
from unpackenv.start.remote.remotefile import TAIL, RemoteFile
from unpackenv.unpatched import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from unpackenv.archive.traffic import Traffic

    T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0


class StoredFile(RemoteFile):
    """The object at a URL such as s3://BUCKET/KEY. The library finds credentials, regions and endpoints itself."""

    def __init__(self, url: str, timeout: float, traffic: Traffic | None) -> None:
        self.shown = url
        self._timeout = timeout
        self._traffic = traffic
        self._scheme = url.partition("://")[0]
        try:
            import fsspec

            # Its own listings and instances must not outlive a fork.
            self._files = fsspec.filesystem(self._scheme, skip_instance_cache=True, use_listings_cache=False)
        except ImportError as error:
            raise ExtraMissing(
                f"archives by {self._scheme}:// need {STORES[self._scheme]} ({error})",
                where="unpackenv",
                hint=f"pip install 'unpackenv[{self._scheme}]'",
            ) from error

    def look(self, whole: int) -> dict[str, Any]:
        info = self._retried(lambda: self._files.info(self.shown))
        size = int(info["size"])
        tail = self._read(max(0, size - TAIL), size)
        return {"size": size, "tail": tail, "version": "", "state": {}}

    def fetch(self, buffers: list[memoryview], offset: int, size: int, version: str) -> None:
        data = memoryview(self._read(offset, offset + sum(map(len, buffers))))
        for buffer in buffers:
            buffer[:] = data[: len(buffer)]
            data = data[len(buffer) :]

    def close(self) -> None:
        """Keep what is open: the library closes it."""

    def _read(self, begin: int, end: int) -> bytes:
        data: bytes = self._retried(lambda: self._files.cat_file(self.shown, start=begin, end=end))
        if self._traffic:
            self._traffic.add(bytes=len(data), requests=1)
        if len(data) != end - begin:
            raise remotefile.replaced(self.shown)
        return data

    def _retried(self, work: Callable[[], T]) -> T:
        deadline, delay = time.monotonic() + self._timeout, _FIRST_DELAY
        while True:
            try:
                return work()
            except UnpackenvError:
                raise
            except FileNotFoundError as error:
                hint = "Check the URL, and that it was uploaded"
                raise ArchiveNotFound("there is no archive", where=self.shown, hint=hint) from error
            except PermissionError as error:
                hint = f"Check the credentials that {STORES[self._scheme]} finds here"
                raise ArchiveUnreachable("the object store refuses it", where=self.shown, hint=hint) from error
            except Exception as error:
                wait = delay * random.uniform(0.5, 1.5)
                if time.monotonic() + wait > deadline or _is_final(error):
                    # The message of a library may hold what nobody may see.
                    why = type(error).__name__
                    raise ArchiveUnreachable(
                        f"cannot be fetched within {self._timeout:g} s ({why})",
                        where=self.shown,
                        hint=f"Check the credentials, the region and the endpoint that {STORES[self._scheme]} uses",
                    ) from error
                if self._traffic:
                    self._traffic.add(retries=1)
                time.sleep(wait)
                delay = min(2 * delay, _LONGEST_DELAY)


def _is_final(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    return type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError")
