"""For how long something is fetched, and how often it is tried: the same for all that fetches."""

from __future__ import annotations

from unpackenv.unpatched import os, time

_STALLED = 20.0
_LEAST = 0.1
_PART = 1 << 20
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0


def stalled_after(timeout: float) -> float:
    """Return after how many seconds without a byte a connection is given up: there is time for another attempt then."""
    return min(_STALLED, max(timeout / 3, _LEAST))


def time_for(size: int, timeout: float) -> float:
    """Return the seconds that one attempt to fetch `size` bytes may take: `timeout` seconds more for each MiB."""
    return timeout * (1 + size / _PART)


class Attempts:
    """Attempts that begin within so many seconds: after a while that doubles each time, with jitter."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._delay = _FIRST_DELAY

    def wait(self, after: float = 0.0) -> bool:
        """Wait until the next attempt, for `after` seconds at least; return whether there is time for one."""
        # Starts that failed together shall not come back together.
        pause = max(self._delay * (0.5 + os.urandom(1)[0] / 255), after)
        if time.monotonic() + pause > self._deadline:
            return False
        time.sleep(pause)
        self._delay = min(2 * self._delay, _LONGEST_DELAY)
        return True
