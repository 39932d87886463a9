"""A real browser for HTML pages: Debian's Chromium, without a window."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from rig.environment import PATIENCE

# What Chromium writes to stderr for each message on a page's console.
_CONSOLE = ":CONSOLE"


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: the messages on its console, and how many pixels have which colour."""

    console: list[str]
    colours: dict[str, int]


def look(page: Path, work: Path) -> Seen:
    """Open a page in Chromium, with a work directory for what that writes; skip the test where there is none."""
    picture = work / "seen.png"
    done = _chromium(work, "--enable-logging=stderr", "--hide-scrollbars", "--window-size=1000,6000",
                     f"--screenshot={picture}", page.as_uri())  # fmt: skip
    assert picture.exists(), done.stderr
    return Seen([line for line in done.stderr.splitlines() if _CONSOLE in line], _colours(picture))


def ask(page: Path, work: Path, width: int, question: str) -> Any:
    """Return what an expression in JavaScript is in a page that is shown that wide: a window cannot be so narrow."""
    content = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text())  # the policy, which lets no script run
    content += f"<script>parent.document.title = JSON.stringify({question})</script>"
    around = work / "asked.html"
    around.write_text(f'<!DOCTYPE html><title></title><iframe width={width} height=4000 srcdoc="{escape(content)}">')
    done = _chromium(work, "--window-size=1400,4000", "--dump-dom", around.as_uri())
    return json.loads(unescape(done.stdout.partition("<title>")[2].partition("</title>")[0]))


def _chromium(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={work / 'profile'}", *arguments,
    ]  # fmt: skip
    env = {"PATH": os.environ["PATH"], "HOME": str(work)}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, env=env)


def _colours(picture: Path) -> dict[str, int]:
    pixels = np.rint(image.imread(picture)[..., :3] * 255).astype(int)
    numbers, counts = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_counts=True)
    return {f"#{number:06x}": int(count) for number, count in zip(numbers, counts)}
