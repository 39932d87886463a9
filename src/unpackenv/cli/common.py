"""What several commands of the command line share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.start.settings import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def has(module: str) -> bool:
    """Whether a module of ours is here: a runtime leaves out much."""
    try:
        return find_spec(f"unpackenv.{module}") is not None
    except ModuleNotFoundError:  # nor is its package
        return False


def bar(name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show the progress of a step on a terminal, where what shows it is installed."""
    if not has("build.progress"):
        return nullcontext(lambda done: None)
    from unpackenv.build import progress

    return progress.bar(name, total)


def archive_settings(archive: str, digest: str | None = None) -> Settings:
    """Return what a command that only reads an archive needs to find it; other variables are for starts."""
    from unpackenv.start.settings import Settings

    environ = {name: value for name, value in os.environ.items() if name == "UNPACKENV_ARCHIVE"}
    return Settings({"archive": archive or None, "digest": digest}, environ)


def positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def duration(text: str) -> float:
    """Return the seconds that a text such as 12h or 30d means."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}.get(text[-1:])
    try:
        seconds = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        seconds = -1
    if not seconds >= 0:  # nor is "nan"
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 12h or 30d")
    return seconds


def size(text: str) -> int:
    from unpackenv.start import settings

    try:
        return settings.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
