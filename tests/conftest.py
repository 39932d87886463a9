"""The real workload: the renderer's interpreter, its packages, and what unpackenv itself needs there."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

from renderer import install

# Examples write to the disk: how long one takes says nothing.
hypothesis.settings.register_profile("unpackenv", deadline=None)
hypothesis.settings.load_profile("unpackenv")

# In the background of a script, and under nohup, these are ignored, and every process started here would inherit that.
for _signum, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, _handler)


@pytest.fixture(scope="session")
def renderer_python() -> str:
    """A CPython 3.9 for the renderer, whichever interpreter runs the suite."""
    if sys.platform != "linux":
        pytest.skip("the renderer runs on Linux")
    return install.find_python() or pytest.skip("no CPython 3.9 with pip here; UNPACKENV_PYTHON39 can name one")


@pytest.fixture(scope="session")
def renderer_app() -> Path:
    """The renderer itself: `renderer_python renderer_app PICTURE.jpg` draws a picture."""
    return install.HERE / "app.py"


@pytest.fixture(scope="session")
def renderer_site(renderer_python: str) -> Path:
    """A directory with the renderer's packages and their bytecode. Shared by all runs: never write to it."""
    return install.site(renderer_python)


@pytest.fixture(scope="session")
def renderer_runtime(renderer_python: str) -> Path:
    """A directory with what unpackenv needs: beside `src` on PYTHONPATH, `renderer_python` can import it."""
    return install.runtime(renderer_python)


@pytest.fixture
def renderer_env(renderer_runtime: Path) -> dict[str, str]:
    """An environment for `renderer_python` in which `import unpackenv` works, and nothing is set from outside."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join([str(install.PROJECT / "src"), str(renderer_runtime)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
