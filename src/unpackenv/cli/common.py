"""What several commands of the command line share."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

from unpackenv.start import settings
from unpackenv.start.settings import TABLE, Setting, Settings, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.reader import Archive
    from unpackenv.archive.toc import Toc

    Commands = argparse._SubParsersAction["Parser"]


class Help(argparse.HelpFormatter):
    """Breaks lines between words only, and keeps lines of longer texts that fit, such as examples."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [[line] if len(line) <= width else _wrapped(line, width) for line in text.splitlines()]
        return "\n".join(each for line in lines for each in line)

    def _format_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: str | None
    ) -> str:
        """Name the required arguments, and none of the many options."""
        needed = [action for action in actions if action.required or not action.option_strings]
        text = super()._format_usage(usage, needed, [], prefix)
        if usage is None:
            text = text.replace(self._prog, f"{self._prog} [options]", 1)
        return "\n".join([*_wrapped(text, self._width, "  "), "", ""])


def _wrapped(text: str, width: int, hanging: str = "") -> list[str]:
    """Return a text as lines with its margin, broken between words only; `hanging` indents all but the first more."""
    margin = text[: len(text) - len(text.lstrip(" "))]
    return textwrap.wrap(
        " ".join(text.split()), width, break_long_words=False, break_on_hyphens=False,
        initial_indent=margin, subsequent_indent=2 * margin + hanging,
    )  # fmt: skip


class Parser(argparse.ArgumentParser):
    """A parser that formats its help with `Help`, and suggests an option for a mistyped one.

    `commands` are the parsers of the commands, if it has any.
    """

    commands: Commands

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": Help, **options})

    def parse_known_args(  # type: ignore[override]
        self, args: Iterable[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Take options from between the arguments of a list, too, which argparse ends there, if none has a value."""
        words = list(sys.argv[1:] if args is None else args)
        has_values = any(action.option_strings and action.nargs != 0 for action in self._actions)
        if not (has_values or self._subparsers):
            end = words.index("--") if "--" in words else len(words)
            words[:end] = sorted(words[:end], key=lambda word: not word.startswith("-"))
        return super().parse_known_args(words, namespace)

    def check_options(self, words: Iterable[str], others: Collection[str] = ()) -> None:
        """End the process with an error for an unknown option; `others` are further options to suggest.

        argparse takes the value of an unknown option for a positional argument, and complains about that instead.
        """
        options = [*self._option_string_actions, *others]
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            is_option = len(name) > 1 and name[0] == "-" and not name[1].isdigit()
            if is_option and not any(option.startswith(name) for option in options):
                self.error(f"there is no option {name}{did_you_mean(name, options)}")


_ALIKE = 0.75  # as alike as two words of four letters that differ by two swapped ones


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the nearest of `names` as a suggestion, if one is near."""
    meant = nearest(name.lower(), names, _ALIKE)
    return f"; did you mean {meant}?" if meant else "."


def add_settings(parser: Parser, without: Collection[str] = ()) -> None:
    """Add an option for each setting of a start, except those in `without`."""
    for setting in TABLE:
        if setting.name not in without:
            value: dict[str, Any] = {"action": "store_true"}
            if not setting.is_switch:
                value = {"metavar": setting.placeholder}
            parser.add_argument(setting.option, help=help_of(setting), default=None, **value)


def add_json(parser: Parser, what: str) -> None:
    """Add the option that `say` looks at; `what` is what is printed."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as one JSON object; sizes are in bytes")


def say(options: argparse.Namespace, fields: Mapping[str, object], lines: Iterable[str]) -> None:
    """Print what a command did or found: for programs if they ask for it, else for people."""
    for line in [json.dumps(fields)] if options.json else lines:
        print(line)


def help_of(setting: Setting) -> str:
    """Return what a setting means, with its default."""
    return f"{setting.meaning} (default: {default_of(setting)})"


def default_of(setting: Setting) -> str:
    """Return the default of a setting as people write it, or a description of it."""
    value = setting.default
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return setting.otherwise or (f"{value:g}" if isinstance(value, float) else str(value))


def has(module: str) -> bool:
    """Whether a module of unpackenv is here: a runtime leaves many out."""
    try:
        return find_spec(f"unpackenv.{module}") is not None
    except ModuleNotFoundError:  # nor is its package
        return False


def bar(name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show the progress of a step on a terminal; a runtime shows none."""
    if not has("pack.progress"):
        return nullcontext(lambda done: None)
    from unpackenv.pack import progress

    return progress.bar(name, total)


def first_files(toc: Toc, count: int) -> str:
    """Say how many files come first in an archive, how large they are, and in how many frames they lie."""
    from unpackenv.report import amount, counted

    files, size, frames = first_figures(toc, count).values()
    return f"{counted(files, 'file')}, {amount(size)}, in {counted(frames, 'frame')}"


def first_figures(toc: Toc, count: int) -> dict[str, int]:
    """Return how many of the first `count` files an archive has, their bytes, and the number of their frames."""
    sizes = toc.file_size[:count]
    end = toc.file_position[len(sizes) - 1] + sizes[-1] if sizes else 0
    return {"files": len(sizes), "size": sum(sizes), "frames": bisect_left(toc.frame_starts()[:-1], end)}


_OF_ARCHIVES = ("UNPACKENV_ARCHIVE", "UNPACKENV_INSECURE", "UNPACKENV_FETCH_TIMEOUT")


def archive_settings(archive: str, digest: str | None = None) -> Settings:
    """Return the settings with which a command finds an archive to read; other variables are for starts."""
    environ = {name: value for name, value in os.environ.items() if name in _OF_ARCHIVES}
    return Settings({"archive": archive or None, "digest": digest}, environ)


def open_archive(settings: Settings) -> Archive:
    """Open the archive that settings name, here or by URL; raises `UnpackenvError`."""
    from unpackenv.archive import reader
    from unpackenv.start import locations

    path = locations.find_archive(settings)
    if not settings.is_remote:
        return reader.open_archive(path, settings.digest)
    from unpackenv.start.cold import remote

    identity = remote.identify(settings)
    assert settings.blob  # opened by the line before
    return reader.open_blob(settings.blob, identity.path, settings.digest)


def path(text: str) -> str:
    """Return a path with `~` and variables expanded: a shell does not expand them in `--target=~/env`."""
    try:
        return settings.path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None


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
    try:
        return settings.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
