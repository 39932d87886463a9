"""Tables on a terminal, with `rich` (extra `report`), and as plain lines elsewhere."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from unpackenv.report.timings.tables import Bar, Cell, Table

if TYPE_CHECKING:
    from rich.console import Console

_BAR = 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_COLOURS = {
    "unpacked": "blue", "reused": "green", "waited": "yellow", "failed": "red", "slower": "bold red",
    "faster": "bold green",
}  # fmt: skip


def show(headline: str, tables: Sequence[Table]) -> None:
    """Write to stdout."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            _show_rich(Console(), headline, tables)
            return
    _show_plain(sys.stdout, headline, tables)


def _show_rich(console: Console, headline: str, tables: Sequence[Table]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(headline))
    for table in tables:
        drawn = RichTable(title=table.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        for name in table.columns:
            drawn.add_column(name, justify="right" if name in table.numbers else "left", overflow="fold")
        for row in table.rows:
            # A Text, because a path may look like the markup of rich.
            drawn.add_row(*(Text(_plain(cell), style=_style(cell)) for cell in row))
        console.print(drawn)
        if table.note:
            console.print(Text(table.note, style="dim"))
        console.print()


def _style(cell: Cell) -> str:
    return "cyan" if isinstance(cell, Bar) else _COLOURS.get(cell, "")


def _show_plain(file: TextIO, headline: str, tables: Sequence[Table]) -> None:
    print(headline, file=file)
    for table in tables:
        rows = [[*table.columns], *([_plain(cell, file.encoding or "utf-8") for cell in row] for row in table.rows)]
        widths = [max(map(len, column)) for column in zip(*rows)]
        print(f"\n{table.title}\n", file=file)
        for row in rows:
            cells = [
                cell.rjust(width) if name in table.numbers else cell.ljust(width)
                for name, cell, width in zip(table.columns, row, widths)
            ]
            print(f"  {'  '.join(cells)}".rstrip(), file=file)
        if table.note:
            print(textwrap.fill(table.note, 120, initial_indent="  ", subsequent_indent="  "), file=file)


def _plain(cell: Cell, encoding: str = "utf-8") -> str:
    """Return a cell as text; a bar is made of blocks, or of what the encoding has."""
    if not isinstance(cell, Bar):
        return cell
    full, eighths = divmod(round(cell.share * _BAR * 8), 8)
    bar = "█" * full + _EIGHTHS[eighths].strip()
    try:
        bar.encode(encoding)
    except UnicodeEncodeError:
        return "#" * round(cell.share * _BAR)
    return bar
