"""How much of a remote archive was fetched, by all processes of a start together."""

from __future__ import annotations

from unpackenv.unpatched import os, time

_FIELD = 8
_COUNTS = ("bytes", "requests", "retries", "cached")
_FIELDS = (*_COUNTS, "wait_us")
_RECORD = _FIELD * len(_FIELDS)
_READ = 1 << 16


class Traffic:
    """Counts what is fetched: bytes, requests, retries, the time that readers wait, and bytes that a cache has.

    Each process appends records to a file in memory that all of them have open: that takes no lock.
    """

    def __init__(self) -> None:
        import fcntl

        self.fd = os.memfd_create("unpackenv-traffic")
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)

    def add(self, **counted: int) -> None:
        """Count more of some fields."""
        os.write(self.fd, b"".join(counted.get(name, 0).to_bytes(_FIELD, "little") for name in _FIELDS))

    def add_wait(self, began: float) -> None:
        """Count the time since `began`, in seconds of `time.perf_counter`, as one in which a reader waited."""
        self.add(wait_us=int((time.perf_counter() - began) * 1e6))

    def total(self) -> dict[str, float]:
        """Return the sum of each field so far; the time in milliseconds (`wait_ms`)."""
        sums, at = [0] * len(_FIELDS), 0
        while data := os.pread(self.fd, _READ - _READ % _RECORD, at):
            for begin in range(0, len(data), _RECORD):
                for field in range(len(_FIELDS)):
                    number = data[begin + field * _FIELD : begin + (field + 1) * _FIELD]
                    sums[field] += int.from_bytes(number, "little")
            at += len(data)
        *counts, wait_us = sums
        return {**dict(zip(_COUNTS, counts)), "wait_ms": wait_us / 1e3}

    def close(self) -> None:
        os.close(self.fd)
