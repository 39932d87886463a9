"""Text of documents and docstrings that the code declares: `make tables` writes it, and a test checks that it did.

The settings are declared in start/settings.py, the words of a timing log in report/timings/words.py, the commands in
cli/. A table of a document is found by the names of its columns. The manual page is all from the code.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

from argparse_manpage.manpage import Manpage

from unpackenv.cli import parsers
from unpackenv.cli.common import default_of, help_of
from unpackenv.report.timings.words import CAUSES, FETCHED, OUTCOMES, PHASES, STEPS, Word
from unpackenv.start.settings import TABLE

PROJECT = Path(__file__).resolve().parents[1]
_OFF = ("UNPACKENV", "on", "off: do nothing at all, as on a laptop that has the packages installed")


def main() -> int:
    """Write the tables; with `--check` only name the files whose tables are not up to date, and return 1 for any."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, write in _FILES.items():
        path = PROJECT / name
        text = path.read_text(encoding="utf-8")
        written = write(text)
        if written != text:
            stale.append(name)
            if not check:
                path.write_text(written, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'not up to date; run `make tables`' if check else 'written'}")
    return 1 if check and stale else 0


def _settings(text: str) -> str:
    settings = [*((setting.variable, default_of(setting), setting.meaning) for setting in TABLE), _OFF]
    rows = [(f"`{name}`", default, meaning) for name, default, meaning in settings]
    return _with_table(text, "| variable | default | what it is |", rows)


def _signature(text: str) -> str:
    """Return the source of `unpackenv.bootstrap` with the arguments that its docstring describes."""
    before, args, rest = text.partition("    Args:\n")
    _, returns, after = rest.partition("\n    Returns ")
    lines = [
        textwrap.fill(f"{setting.name}: {help_of(setting)}", 120, initial_indent=" " * 8, subsequent_indent=" " * 12,
                      break_long_words=False, break_on_hyphens=False)
        for setting in TABLE
    ]  # fmt: skip
    return before + args + "\n".join(lines) + "\n" + returns + after


def _manual(_: str) -> str:
    """Return the manual page: the help of every command, the settings, and the exit codes of the reference."""
    parser = parsers.command_line()
    parser.epilog = None
    page = Manpage(parser)
    page.date, page.manual, page.description = "", "unpackenv", "start Python from one compressed file of its packages"
    settings = [*((setting.variable, help_of(setting)) for setting in TABLE), (_OFF[0], f"{_OFF[2]} (default: on)")]
    codes = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", (PROJECT / "docs/reference.md").read_text(), re.MULTILINE)
    exits = [(code, f"{of}: {meaning}") for code, of, meaning in codes if re.match(r"\d|the command", code)]
    wrapper = (
        "As an entrypoint, python -m unpackenv -- CMD ARG… unpacks the packages if they are not there yet, and "
        "becomes CMD. Each of its settings is an option, too: --target for UNPACKENV_TARGET."
    )
    lines = [".SH ENTRYPOINT", wrapper, ".SH ENVIRONMENT", *_described(settings), ".SH EXIT STATUS", *_described(exits)]
    return f"{page}".rstrip() + "\n" + "".join(f"{line}\n" for line in lines)


def _described(terms: Iterable[tuple[str, str]]) -> list[str]:
    return [line for term, text in terms for line in (".TP", f"\\fB{term}\\fR", text.replace("`", ""))]


def _timing_log(text: str) -> str:
    text = _with_table(text, "| outcome | what it means |", _meanings(OUTCOMES.values()))
    text = _with_table(text, "| phase | what happens in it |", _meanings(PHASES.values()))
    text = _with_table(text, "| part | what it counts |", _meanings(FETCHED.values()))
    return _with_table(text, "| step | what happens in it |", _meanings(STEPS.values()))


def _timings(text: str) -> str:
    outcomes = [(_shown(word), word.expected, word.helps) for word in OUTCOMES.values() if word.helps]
    text = _with_table(text, "| outcome | expected | if it is slow |", outcomes)
    causes = [(_shown(word), word.meaning, word.expected, word.helps) for word in CAUSES]
    return _with_table(text, "| it says | it means | expected | what helps |", causes)


def _schema(text: str) -> str:
    schema = json.loads(text)
    start, error = (schema["$defs"][kind]["properties"] for kind in ("start", "error"))
    well = [word for word in OUTCOMES.values() if word.name != error["outcome"]["const"]]
    start["outcome"]["enum"] = [word.name for word in well]
    start["outcome"]["description"] = "; ".join(f"{word.name}: {word.meaning}" for word in well)
    for each in start, error:
        each["phases"]["description"] = (
            f"Milliseconds by phase, in their order: {', '.join(PHASES)}. "
            "Phases that a start did not reach are missing. Their sum is `milliseconds`, less the writing of the line"
        )
    for each in start, schema["$defs"]["filled"]["properties"]:
        each["fetched"]["required"] = list(FETCHED)
        for word in FETCHED.values():
            kind = "number" if word.name.endswith("_ms") else "integer"
            described = {"type": kind, "minimum": 0, "description": word.meaning[:1].upper() + word.meaning[1:]}
            each["fetched"].setdefault("properties", {})[word.name] = described
    return json.dumps(schema, indent=2) + "\n"


def _meanings(words: Iterable[Word]) -> list[tuple[str, ...]]:
    return [(f"`{word.name}`", word.meaning) for word in words]


def _shown(word: Word) -> str:
    return f"`{word.name}`" + (f", shown as `{word.label}`" if word.label else "")


def _with_table(text: str, head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Return a document in which the table of which `head` names the columns has these rows."""
    lines = "".join("|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|\n" for row in rows)
    parts = re.split(rf"(?<=^{re.escape(head)}\n)(\|[-|]+\|\n)(?:\|.*\n)*", text, flags=re.MULTILINE)
    if len(parts) != 3:
        raise SystemExit(f"there are {len(parts) // 2} tables with the columns {head}")
    before, line, after = parts
    return before + line + lines + after


_FILES: dict[str, Callable[[str], str]] = {
    "docs/reference.md": _settings,
    "docs/timing-log.md": _timing_log,
    "docs/timing-log.schema.json": _schema,
    "docs/timings.md": _timings,
    "docs/unpackenv.1": _manual,
    "src/unpackenv/__init__.py": _signature,
}

if __name__ == "__main__":
    sys.exit(main())
