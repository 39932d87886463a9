"""The recorded demo shows what the demo prints today."""

from __future__ import annotations

import sys

import pytest

from helpers.documented import PROJECT
from helpers.processes import quickly, run
from helpers.snippets import PATH
from rig.environment import environment


@pytest.mark.slow
def test_the_recording_is_current() -> None:
    env = environment(PATH=PATH, PIP_DISABLE_PIP_VERSION_CHECK=1, **quickly())
    done = run([sys.executable, "docs/demo/record.py", "--check"], env, cwd=PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr
