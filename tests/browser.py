"""A real browser for pages: Debian's Chromium, without a window."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

# What Chromium writes to stderr for each message on a page's console.
_CONSOLE = ":CONSOLE"


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: the messages on its console, and how many pixels have which colour."""

    console: list[str]
    colours: dict[str, int]


def look(page: Path, work: Path) -> Seen:
    """Open a page in Chromium, with a work directory for what that writes; skip the test where there is none."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here")
    picture = work / "seen.png"
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={work / 'profile'}", "--enable-logging=stderr", "--hide-scrollbars",
            "--window-size=1000,4000", f"--screenshot={picture}", page.as_uri(),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": str(work)},
    )  # fmt: skip
    assert picture.exists(), done.stderr
    return Seen([line for line in done.stderr.splitlines() if _CONSOLE in line], _colours(picture))


def _colours(picture: Path) -> dict[str, int]:
    pixels = np.rint(image.imread(picture)[..., :3] * 255).astype(int)
    numbers, counts = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_counts=True)
    return {f"#{number:06x}": int(count) for number, count in zip(numbers, counts)}
