"""A process that calls `bootstrap()`: its code, and how its start ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from helpers.processes import run

# What applications, or their tests, do to sockets before a start.
SOCKETS_REPLACED = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch(os=True)",
    "a test's": "import socket\nclass Refuse:\n  def __init__(*_): raise OSError('no network')\nsocket.socket = Refuse",
}


class End(NamedTuple):
    """How a start ended: the outcome, or the name of the error, with what it says and its place; and the facts.

    The facts are the fields of the report, or those of the error.
    """

    outcome: str
    said: str
    facts: dict[str, Any]
    where: str

    def __str__(self) -> str:
        return f"{self.outcome}: {self.said}" if self.said else self.outcome


_ENDED = """
import unpackenv
try:
{start}    end = [report.outcome, "", report.fields(), report.target]
except unpackenv.UnpackenvError as error:
    end = [type(error).__name__, str(error), error.facts, error.where]
import json
print(json.dumps(end))
"""


def boot_code(archive: object = None, target: object = None, rest: str = "", **settings: object) -> str:
    """Return code that calls `bootstrap()` with what is given, has what it returns in `report`, and does the `rest`."""
    given = {
        key: value for key, value in [("archive", archive), ("target", target), *settings.items()] if value is not None
    }
    words = [f"{key}={(str(value) if isinstance(value, Path) else value)!r}" for key, value in given.items()]
    return f"import unpackenv\nreport = unpackenv.bootstrap({', '.join(words)})\n{rest}\n"


def end_of(
    archive: Path | str | None,
    target: Path | str,
    env: dict[str, str] | None = None,
    *,
    before: str = "",
    prefix: Sequence[object] = (),
    **settings: object,
) -> End:
    """Start in a fresh process, which runs the code `before` and is run by the command `prefix`."""
    start = "".join(f"    {line}\n" for line in boot_code(archive, target, **settings).splitlines())
    done = run([*prefix, sys.executable, "-c", before + _ENDED.format(start=start)], env)
    assert done.returncode == 0, done.stderr
    return End(*json.loads(done.stdout))


def boot(archive: Path | str | None, target: Path | str, env: dict[str, str] | None = None, **options: Any) -> str:
    """Start as `end_of` does, and return the outcome, or the name of the error and what it says."""
    return str(end_of(archive, target, env, **options))
