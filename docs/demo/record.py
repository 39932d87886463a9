"""Record the demo as a picture: docs/pictures/demo.svg, a terminal that plays what `make demo` and `timings` print.

    .venv/bin/python docs/demo/record.py            # --check only says whether the picture is current

Pauses of more than a second are cut to one. Where a reader prefers less motion, all lines are there at once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from html import escape, unescape
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PICTURE = PROJECT / "docs/pictures/demo.svg"
COLUMNS, LONGEST_PAUSE, AT_THE_END = 104, 1.0, 6.0
_LINE, _CHARACTER, _MARGIN = 18, 7.83, 16  # pixels
# What depends on the machine: progress, and what pip says of its mirrors.
_NOT_SHOWN = re.compile(r"WARNING: |\[notice\]|[a-z]+: \d+%|[a-z]+: \d+\.\d MB so far|$")
_COLOURS = (("== ", "#7dcfff"), ("$ ", "#9ece6a"), ("unpackenv: ", "#e0af68"), ("app: ", "#c0caf5"))
_PLAIN = "#a9b1d6"
_TITLE = "make demo installs and packs packages, and starts an application cold, then warm; timings reads the log"


def record(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[float, str]]:
    """Run the demo, and yield each line that is shown, with the seconds since the one before."""
    log = PROJECT / "build/demo.log"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    env = {**environ, "UNPACKENV_LOG_FILE": str(log)}
    yield 0, "$ make demo"
    yield from _lines(["sh", "docs/demo/demo.sh", sys.executable], env)
    yield 0, "$ unpackenv timings starts.log"
    timings = list(_lines([sys.executable, "-m", "unpackenv", "timings", str(log)], env))
    until = next(number for number, (_, line) in enumerate(timings) if line.startswith("  p50: "))
    yield from timings[:until]


def _lines(command: list[str], env: Mapping[str, str]) -> Iterator[tuple[float, str]]:
    process = subprocess.Popen(
        command, cwd=PROJECT, env=env, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    before = time.monotonic()
    for line in process.stdout or ():
        shown = line.rstrip().replace(str(PROJECT), "~/unpackenv")
        if not _NOT_SHOWN.match(shown):
            yield time.monotonic() - before, shown
            before = time.monotonic()
    if process.wait():
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")


def picture(lines: list[tuple[float, str]]) -> str:
    """Return an SVG that shows the lines one after the other, and begins again."""
    shown = []
    at = 0.0
    for pause, line in lines:
        at += min(pause, LONGEST_PAUSE) + 0.05
        shown += [(at, part) for part in _wrapped(line)]
    whole = at + AT_THE_END
    width, height = COLUMNS * _CHARACTER + 2 * _MARGIN, len(shown) * _LINE + 2 * _MARGIN
    text, moments = [], []
    for number, (when, line) in enumerate(shown):
        colour = next((colour for start, colour in _COLOURS if line.startswith(start)), _PLAIN)
        y = _MARGIN + number * _LINE + 13
        text.append(f'<text class="l{number}" x="{_MARGIN}" y="{y}" fill="{colour}">{escape(line)}</text>')
        part = f"{when / whole:.2%}"
        moments.append(
            f"@keyframes k{number} {{ 0%, {part} {{ opacity: 0 }} {part}, 100% {{ opacity: 1 }} }}\n"
            f".l{number} {{ animation: k{number} {whole:.1f}s step-end infinite }}"
        )
    newline = "\n"
    space = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}"'
    return f"""<svg {space} role="img" aria-labelledby="title">
<title id="title">{_TITLE}</title>
<style>
text {{ font: 13px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }}
@media (prefers-reduced-motion: no-preference) {{
{newline.join(moments)}
}}
</style>
<rect width="100%" height="100%" rx="8" fill="#1a1b26"/>
{newline.join(text)}
</svg>
"""


def _wrapped(line: str) -> Iterator[str]:
    while len(line) > COLUMNS:
        at = line.rfind(" ", 0, COLUMNS)
        yield line[:at]
        line = "    " + line[at + 1 :]
    yield line


def shape(lines: list[str]) -> list[str]:
    """Return what stays of lines on another machine and day: no figures, no bars, no phases of a start, one blank."""
    words = re.sub(r"\((?:check|lock|open)[^)]*\)", "", " ".join(" ".join(lines).split()))
    return re.sub(r"digest \w+|[\d.,:]+|[█▏▎▍▌▋▊▉]+|\bworkers?\b|\b[kM]B\b", "", words).split()


def is_current(lines: list[tuple[float, str]]) -> bool:
    """Whether the picture shows what the demo prints."""
    there = [unescape(text) for text in re.findall(r"<text[^>]*>(.*)</text>", PICTURE.read_text(encoding="utf-8"))]
    now = [part for _, line in lines for part in _wrapped(line)]
    return shape(there) == shape(now)


def main() -> int:
    """Record, or check; return the exit code."""
    lines = list(record())
    if "--check" in sys.argv[1:]:
        if is_current(lines):
            return 0
        print(*(line for _, line in lines), sep="\n")
        print(f"{PICTURE.name} is not up to date; run docs/demo/record.py")
        return 1
    PICTURE.write_text(picture(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
