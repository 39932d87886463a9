"""The Dockerfiles of the documentation, and the `docker run` lines below them, as they are written there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DOCKER_MD = PROJECT / "docs" / "docker.md"

_FENCE = re.compile(r"^```dockerfile\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN = re.compile(r"^    docker run (.+)$", re.MULTILINE)
_BORROWED = re.compile(r"^With the image of \*(.+)\*:$", re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """A section: its heading, its Dockerfile or the heading of the one that it uses, the words behind `docker run`."""

    heading: str
    dockerfile: str
    uses: str
    runs: tuple[tuple[str, ...], ...]


def recipes(document: Path = DOCKER_MD) -> dict[str, Recipe]:
    """Return the sections of a document that have a Dockerfile or use one, by heading."""
    found = {}
    for section in re.split(r"^## ", document.read_text(), flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        dockerfiles, borrowed = _FENCE.findall(section), _BORROWED.findall(section)
        if dockerfiles or borrowed:
            (dockerfile,) = dockerfiles or [""]
            runs = tuple(tuple(shlex.split(line)) for line in _RUN.findall(section))
            found[heading] = Recipe(heading, dockerfile, (borrowed or [heading])[0], runs)
    return found


def dockerfiles(document: Path) -> list[str]:
    """Return the Dockerfiles of a document."""
    return _FENCE.findall(document.read_text())


def documents() -> list[Path]:
    """Return all documents of the project with a Dockerfile in them."""
    paths = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]
    return sorted(path for path in paths if "```dockerfile" in path.read_text().lower())
