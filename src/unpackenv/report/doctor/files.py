"""Whether a start can write the files that settings ask for besides the tree: the log file and the trace.

A start goes on without them. It warns in its line, which is easily overlooked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator

from unpackenv.report.doctor.findings import OK, WARNING, Finding
from unpackenv.start.log import json_lines
from unpackenv.start.settings import Settings


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield whether each of these files can be written; the attempt leaves nothing."""
    if settings.log_file:
        yield _of("log file", settings.log_file, _append_to, "UNPACKENV_LOG_FILE")
    if settings.trace:
        yield _of("trace", settings.trace, _replace, "UNPACKENV_TRACE")


def _of(topic: str, path: str, attempt: Callable[[str], str], variable: str) -> Finding:
    try:
        problem = attempt(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a path"
        problem = f"the {topic} {path} cannot be written ({why})"
    if not problem:
        return Finding(topic, OK, f"{path}: can be written", facts={"path": path})
    hint = f"A start goes on without it; name a file in a writable directory with {variable}"
    return Finding(topic, WARNING, problem, hint, facts={"path": path})


def _append_to(path: str) -> str:
    """Append nothing, in the way a start appends a line. A missing file is not made: another start may be making it."""
    if os.path.exists(path):
        return json_lines.append(path, "", "the log file")
    _make_unnamed_file(os.path.realpath(path))
    return ""


def _replace(path: str) -> str:
    """Check that a trace can be made under another name and renamed: it replaces a file or a link, but no directory."""
    if os.path.isdir(path) and not os.path.islink(path):
        return f"the trace {path} cannot be written (it is a directory)"
    _make_unnamed_file(path)
    return ""


def _make_unnamed_file(path: str) -> None:
    """Make a file without a name in the directory of `path`."""
    with tempfile.TemporaryFile(dir=os.path.dirname(path) or os.curdir):
        pass
