"""Facts: short `key=value` text, used in an archive's trailer and in a tree's stamp.

One fact per line, UTF-8 with surrogate escapes; a backslash, a newline and a carriage return in a
value are written `\\\\`, `\\n` and `\\r`. A key may be on several lines: its value is a list. Every
warm start reads facts, so they are not JSON: importing `json` alone takes milliseconds.
"""

from __future__ import annotations

from unpackenv.errors import ArchiveCorrupt

VENV, OWN_PYTHON = ENVIRONMENTS = ("venv", "python")
"""Kinds of environments: a virtual one, and a prefix with an interpreter of its own, as conda makes it."""


def encode(facts: dict[str, list[str]]) -> bytes:
    """Return the text of `facts`, in the order of the dictionary."""
    return "".join(f"{key}={_escape(value)}\n" for key, values in facts.items() for value in values).encode(
        "utf-8", "surrogateescape"
    )


def decode(text: bytes) -> dict[str, list[str]]:
    """Return the facts in `text`; raises `ArchiveCorrupt` if a line is no fact."""
    facts: dict[str, list[str]] = {}
    *lines, rest = text.decode("utf-8", "surrogateescape").split("\n")
    if rest:
        raise ArchiveCorrupt("the last line of its facts is cut off", line=rest[:100])
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals:
            raise ArchiveCorrupt("a line of its facts is not key=value", line=line[:100])
        if "\\" in value:
            value = _unescape(value)
        facts.setdefault(key, []).append(value)
    return facts


def first(facts: dict[str, list[str]], key: str, default: str = "") -> str:
    """Return the first value of `key`, or `default`."""
    values = facts.get(key)
    return values[0] if values else default


def count(facts: dict[str, list[str]], key: str) -> int:
    """Return the first value of `key` as a number; 0 if it is none."""
    value = first(facts, key)
    return int(value) if value.isdecimal() else 0


def is_environment(facts: dict[str, list[str]]) -> bool:
    """Whether an archive holds an environment, whose scripts run its own Python and name its place."""
    return first(facts, "kind") in ENVIRONMENTS


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(value: str) -> str:
    pieces = value.split("\\\\")
    return "\\".join(piece.replace("\\n", "\n").replace("\\r", "\r") for piece in pieces)
