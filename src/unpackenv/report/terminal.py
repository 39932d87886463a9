"""Tables for people: as wide as the terminal, in colours; in a pipe as plain text, with one line for each row.

Where a table does not fit, its cells are broken into lines between words. Where even its longest words do not fit
side by side, each row becomes a paragraph, with a line for each cell.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union
from unicodedata import east_asian_width


@dataclass(frozen=True)
class Bar:
    """A cell that is a bar: how long it is, from 0 to 1."""

    share: float


Cell = Union[str, Bar]


@dataclass(frozen=True)
class Table:
    """A table: its title, the heads of its columns, its rows, and a sentence on how to read it.

    `numbers` are the columns of figures, which are aligned at the right. A cell may have several lines. It has a colour
    if its whole text is a key of `styles`.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    numbers: frozenset[str] = field(default=frozenset())
    styles: Mapping[str, str] = field(default_factory=dict)


_MARGIN, _GAP = 2, 2
_BAR, _SHORTEST_BAR = 20, 8
_LONG_WORD = 28  # longer words, such as paths, may be broken
_NOTE = 120
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BOLD, _DIM, _BAR_COLOUR = "1", "2", "36"
# Colours that a table may give to words, as a terminal numbers them.
RED, GREEN, YELLOW, BLUE = "31", "32", "33", "34"
BOLD_RED, BOLD_GREEN = f"{_BOLD};{RED}", f"{_BOLD};{GREEN}"


def show(headline: str, tables: Sequence[Table], conclusion: str = "") -> None:
    """Write a headline, tables and a conclusion to stdout; lines of the texts may be indented."""
    screen = _Screen()
    if headline:
        screen.paragraphs(headline)
    for number, table in enumerate(tables):
        if headline or number:
            screen.line("")
        screen.table(table)
    if conclusion:
        screen.line("")
        screen.paragraphs(conclusion)


class _Screen:
    """The output: its width (None in a pipe), whether it has colours, and whether its encoding can draw bars."""

    def __init__(self) -> None:
        at_terminal = sys.stdout.isatty()
        self.width = max(20, shutil.get_terminal_size().columns) if at_terminal else None
        self.coloured = at_terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
        try:
            (_EIGHTHS + "─").encode(sys.stdout.encoding or "utf-8")
            self.draws = True
        except UnicodeEncodeError:
            self.draws = False

    def line(self, text: str) -> None:
        print(text.rstrip())

    def paragraphs(self, text: str, margin: int = 0, style: str = "") -> None:
        """Write the lines of a text with their indentation, broken to fit; items of lists hang by their dash."""
        for paragraph in text.split("\n"):
            body = paragraph.lstrip(" ")
            indent = " " * (margin + len(paragraph) - len(body))
            hanging = indent + ("  " if body.startswith("- ") else "")
            width = (self.width or (_NOTE if margin else sys.maxsize)) - len(hanging)
            for number, line in enumerate(_wrapped(body, width)):
                self.line((hanging if number else indent) + self._styled(line, style))

    def table(self, table: Table) -> None:
        self.paragraphs(table.title, style=_BOLD)
        rows = [[cell if isinstance(cell, Bar) else _printable(cell) for cell in row] for row in table.rows]
        widths = _widths([[*table.columns], *rows], self.width)
        if rows:
            self.line("")
        if not widths:
            self._rows_as_paragraphs(table, rows)
        elif rows:
            self._row(table, [*table.columns], widths, _BOLD)
            if self.width:
                self.line(" " * _MARGIN + ("─" if self.draws else "-") * (sum(widths) + _GAP * (len(widths) - 1)))
            for row in rows:
                self._row(table, row, widths)
        if table.note:
            self.paragraphs(table.note, _MARGIN, _DIM)

    def _row(self, table: Table, row: Sequence[Cell], widths: Sequence[int], style: str = "") -> None:
        cells = [self._lines(cell, width) for cell, width in zip(row, widths)]
        for number in range(max(map(len, cells))):
            pieces = []
            for name, cell, lines, width in zip(table.columns, row, cells, widths):
                text = lines[number] if number < len(lines) else ""
                room = " " * (width - _width(text))
                styled = self._styled(text, style or _style(cell, table))
                pieces.append(room + styled if name in table.numbers else styled + room)
            self.line(" " * _MARGIN + (" " * _GAP).join(pieces))

    def _rows_as_paragraphs(self, table: Table, rows: Sequence[Sequence[Cell]]) -> None:
        """Write each row as a paragraph: the heads of its columns, and next to them or below them its cells."""
        assert self.width
        heads_width = max(map(_width, table.columns)) + _GAP
        side_by_side = self.width - heads_width >= _LONG_WORD // 2
        margin = heads_width if side_by_side else _MARGIN
        for number, row in enumerate(rows):
            if number:
                self.line("")
            for name, cell in zip(table.columns, row):
                lines = [
                    self._styled(line, _style(cell, table)) for line in self._lines(cell, self.width - margin) if line
                ]
                head = self._styled(name, _BOLD) + " " * (margin - _width(name))
                if lines and not side_by_side and name:
                    self.line(head)
                for at, line in enumerate(lines):
                    self.line((head if side_by_side and not at else " " * margin) + line)
        if table.note:
            self.line("")

    def _lines(self, cell: Cell, width: int) -> list[str]:
        if isinstance(cell, Bar):
            return [self._bar(cell.share, min(_BAR, width))]
        return [line for text in cell.split("\n") for line in _indented(text, width)]

    def _bar(self, share: float, length: int) -> str:
        """Return a bar of blocks, or of number signs if the encoding has no blocks."""
        if not self.draws:
            return "#" * round(share * length)
        full, eighths = divmod(round(share * length * 8), 8)
        return "█" * full + _EIGHTHS[eighths].strip()

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if text and style and self.coloured else text


def _style(cell: Cell, table: Table) -> str:
    return _BAR_COLOUR if isinstance(cell, Bar) else table.styles.get(cell, "")


def _widths(rows: Sequence[Sequence[Cell]], screen: int | None) -> list[int]:
    """Return the widths of the columns; none if they cannot be made to fit."""
    columns = list(zip(*rows))
    widths = [max(_longest(cell) for cell in column) for column in columns]
    if screen is None:
        return widths
    least = [max(map(_least, column)) for column in columns]
    room = screen - _MARGIN - _GAP * (len(columns) - 1)
    if sum(least) > room:
        return []
    bars = [any(isinstance(cell, Bar) for cell in column) for column in columns]
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda at: (widths[at] > least[at], bars[at], widths[at]))
        widths[widest] -= 1
    return widths


def _longest(cell: Cell) -> int:
    return _BAR if isinstance(cell, Bar) else max(map(_width, cell.split("\n")))


def _least(cell: Cell) -> int:
    """Return how wide a cell must be for its words; long words may be broken."""
    return _SHORTEST_BAR if isinstance(cell, Bar) else min(_LONG_WORD, max(map(_width, cell.split() or [""])))


def _indented(text: str, width: int) -> list[str]:
    """Return a text as lines, each with the indentation of the text."""
    body = text.lstrip(" ")
    indent = text[: len(text) - len(body)]
    return [indent + line for line in _wrapped(body, width - len(indent))]


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines that are broken between words, or in words that are longer than a line."""
    lines = [""]
    for word in text.split(" "):
        line = f"{lines[-1]} {word}" if lines[-1] else word
        if _width(line) > width and lines[-1].strip():
            lines.append(word)
        else:
            lines[-1] = line
        while _width(lines[-1]) > width:
            at = _break(lines[-1], width)
            lines[-1:] = [lines[-1][:at], lines[-1][at:]]
    return lines


def _break(word: str, width: int) -> int:
    """Return where to break a word that is wider than `width`: after a slash, if it has one."""
    used = at = 0
    while used <= width:
        used += _width(word[at])
        at += 1
    return word.rfind("/", 1, at - 1) + 1 or max(1, at - 1)


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def _printable(text: str) -> str:
    """Return a text without control characters that a terminal would obey, except newlines."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)
