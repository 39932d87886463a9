"""An environment in which unpackenv can be imported, and a time limit for processes in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import unpackenv

SOURCE = str(Path(unpackenv.__file__).resolve().parents[1])
# Seconds: a guard against hanging, for every machine, however slow and busy; never a measure of speed.
PATIENCE = 600.0


def environment(**variables: object) -> dict[str, str]:
    """Return an environment in which unpackenv can be imported, and nothing but TMPDIR is set from outside."""
    base = {
        "PATH": os.defpath, "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": tempfile.gettempdir()
    }  # fmt: skip
    return {**base, **{name: str(value) for name, value in variables.items()}}
