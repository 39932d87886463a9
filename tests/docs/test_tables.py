"""Documents and docstrings describe settings and the timing log as the code declares them."""

from __future__ import annotations

import sys

from helpers.documented import PROJECT
from helpers.processes import run


def test_documents_say_what_the_code_declares() -> None:
    """Else `make tables` writes it."""
    done = run([sys.executable, PROJECT / "docs/tables.py", "--check"])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
