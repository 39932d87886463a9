"""The blocks of the documents that readers type or copy: Dockerfiles, commands of a shell, Python.

A fence names the language of its block. A block that is indented by four spaces has commands, unless it begins with an
instruction of a Dockerfile, or with `name:` or `name =` as figures do. Figures and the languages in `SHOWN` do not run.
Every other block runs in the tests, or `NOT_RUN` names it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.environment import PATIENCE

PROJECT = Path(__file__).resolve().parents[2]
DOCKER_MD = PROJECT / "docs" / "docker.md"
KUBERNETES_MD = PROJECT / "docs" / "kubernetes.md"
REMOTE_RECIPES = PROJECT / "docs" / "remote-recipes.md"
SERVERLESS_MD = PROJECT / "docs" / "serverless.md"

SHOWN = ("", "text", "json")  # what commands print, formats, diagrams

# Document and beginning of a line (or of a whole block that is no shell): the test that runs it.
ELSEWHERE = {
    ("README.md", "# In the build stage"): "tests/containers/test_dockerfiles.py",
    ("docker.md", "FROM python"): "tests/containers/test_dockerfiles.py",
    ("docker.md", "COPY unpackenv-*.whl"): "tests/containers/test_dockerfiles.py",
    ("docker.md", "pip wheel "): "tests/containers/test_dockerfiles.py",
    ("docker.md", "RUN python -m compileall"): "tests/containers/test_dockerfiles.py",
    ("docker.md", "unpackenv dockerfile "): "tests/containers/test_projects.py",
    ("docker.md", "docker run "): "tests/containers/test_dockerfiles.py",
    ("docker.md", "docker build "): "tests/containers/test_documents.py",
    ("fleet.md", "unpackenv launcher "): "tests/start/test_launcher.py",
    ("fleet.md", "spark-submit "): "tests/fleet/test_spark.py",
    ("fleet.md", "export UNPACKENV_ARCHIVE"): "tests/fleet/test_dask.py",
    ("fleet.md", "dask worker "): "tests/fleet/test_dask.py",
    ("fleet.md", "from distributed"): "tests/fleet/test_dask.py",
    ("fleet.md", "import ray"): "tests/fleet/test_ray.py",
    ("fleet.md", "mpirun "): "tests/fleet/test_mpi.py",
    ("fleet.md", "#!/bin/sh\n#SBATCH"): "tests/fleet/test_slurm.py",
    ("format.md", "import hashlib"): "tests/archive/test_format_document.py",
    ("reference.md", "unpackenv dockerfile "): "tests/pack/test_dockerfile.py",
    ("reference.md", 'eval "$(unpackenv completion'): "tests/start/test_completion.py",
    ("reference.md", "unpackenv push "): "tests/publish/test_push.py",
    ("kubernetes.md", "unpackenv push "): "tests/containers/test_deploy.py",
    ("packagers.md", "unpackenv dockerfile"): "tests/containers/test_projects.py",
    ("remote.md", "unpackenv push "): "tests/publish/test_push.py",
    ("remote-recipes.md", "FROM python"): "tests/containers/test_elsewhere.py",
    ("remote-recipes.md", "docker run "): "tests/containers/test_elsewhere.py",
    ("remote-recipes.md", "server {"): "tests/docs/test_remote_recipes.py",
    ("remote-recipes.md", "export UNPACKENV_ARCHIVE=https:"): "tests/docs/test_remote_recipes.py",
    ("remote-recipes.md", "export UNPACKENV_ARCHIVE=s3:"): "tests/start/test_stores.py",
    ("remote-recipes.md", "python -m unpackenv -- "): "tests/docs/test_remote_recipes.py",
    ("remote-recipes.md", "import boto3"): "tests/start/test_stores.py",
    ("remote-recipes.md", "UNPACKENV_ARCHIVE=http://archives/"): "tests/containers/test_deploy.py",
    ("remote-recipes.md", "export https_proxy="): "tests/docs/test_remote_recipes.py",
    ("serverless.md", "FROM python"): "tests/containers/test_elsewhere.py",
    ("serverless.md", "import unpackenv"): "tests/start/test_lambda.py",
    ("timing-log.md", "import unpackenv"): "tests/start/test_log_document.py",
    ("timings.md", "docker compose logs app |"): "tests/containers/test_deploy.py",
}

# The same: why no test runs it.
NOT_RUN = {
    ("reference.md", "unpackenv prune "): "it would clear the default places of the machine; test_prune.py has its own",
    ("docker.md", "docker buildx "): "needs a builder, a registry and emulation of another architecture",
    ("names-first.md", "RUN unpackenv pack "): "the recipe of recipes.md has these commands, and runs",
    ("kubernetes.md", "kubectl create secret "): "needs a cluster; test_deploy.py makes what it makes",
    ("performance.md", "perf record "): "needs perf, and a kernel that lets it look",
}

_BLOCK = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<fenced>(?:.*\n)*?)```$'
    r"|(?<=\n\n)(?P<indented>(?:    .*\n(?:\n+(?=    ))?)+)",
    re.MULTILINE,
)
_INSTRUCTION = re.compile(r"(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|FROM|HEALTHCHECK|RUN|USER|WORKDIR) ")
_FIGURES = re.compile(r"\w+(:| +=) ")
_BORROWED = re.compile(r"^With the image of \*(.+)\*:$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A block of a document: the heading of its section, its language, the name of the file that it is."""

    document: Path
    heading: str
    language: str
    title: str
    text: str
    fenced: bool

    @property
    def needs_docker(self) -> bool:
        """Whether a part that is run with its document is for an engine."""
        return self.language == "sh" and re.search(r"^docker ", self.runs, re.MULTILINE) is not None

    @property
    def lines(self) -> list[str]:
        """What is named by itself in the lists above: lines of a shell, or all of it."""
        return self.text.splitlines() if self.language == "sh" else [self.text]

    @property
    def runs(self) -> str:
        """What of it is run as a part of its document."""
        return "".join(f"{line.rstrip()}\n" for line in self.lines if not self._named(line))

    def _named(self, line: str) -> bool:
        return any(
            self.document.name == name and line.startswith(beginning) for name, beginning in (*ELSEWHERE, *NOT_RUN)
        )


def documents() -> list[Path]:
    """Return all documents of the project."""
    return sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])


def snippets(document: Path) -> list[Snippet]:
    """Return the blocks of a document, in their order."""
    found = []
    for section in re.split(r"^## ", document.read_text(), flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        for block in _BLOCK.finditer(section):
            text, language = block["fenced"], block["language"]
            if text is None:
                text = textwrap.dedent(block["indented"])
                language = "dockerfile" if _INSTRUCTION.match(text) else "text" if _FIGURES.match(text) else "sh"
            found.append(Snippet(document, heading, language, block["title"] or "", text, block["fenced"] is not None))
    return found


def run(documents: Sequence[Path], folder: Path, env: dict[str, str]) -> dict[str, str]:
    """Run the commands and the Python of documents, and return what each section prints, by its heading.

    A block of Python is run as the file that its title names, or as `app.py`; one with a title is only written.
    """
    script = ["set -eu"]
    heading = None
    for snippet in (each for document in documents for each in snippets(document)):
        if snippet.heading != heading:
            heading = snippet.heading
            script.append(f"printf '%s\\n' {shlex.quote(chr(30) + heading)}")
        if snippet.language == "python" and snippet.runs:
            name = snippet.title or "app.py"
            script.append(f"cat > {name} <<'END OF {name}'\n{snippet.runs}END OF {name}")
            script.append("" if snippet.title else f"python {name}")
        elif snippet.language == "sh":
            script.append(snippet.runs)
    done = subprocess.run(
        ["sh", "-c", "\n".join(script)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in done.stdout.split("\036")[1:]}


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
    blocks = snippets(document)
    for section in re.split(r"^## ", document.read_text(), flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        here = [snippet for snippet in blocks if snippet.heading == heading]
        dockerfiles = [snippet.text for snippet in here if snippet.text.startswith("FROM ")]
        borrowed = _BORROWED.findall(section)
        if dockerfiles or borrowed:
            (dockerfile,) = dockerfiles or [""]
            lines = [line for snippet in here if snippet.language == "sh" for line in snippet.lines]
            runs = tuple(tuple(shlex.split(line)[2:]) for line in lines if line.startswith("docker run "))
            found[heading] = Recipe(heading, dockerfile, (borrowed or [heading])[0], runs)
    return found


def line_of(document: Path, beginning: str) -> str:
    """Return the only line or block of a document that begins like this."""
    lines = [line for snippet in snippets(document) for line in snippet.lines if line.startswith(beginning)]
    (line,) = lines
    return line


def file(document: Path, title: str) -> str:
    """Return the block of a document that is the file with this name."""
    (text,) = [snippet.text for snippet in snippets(document) if snippet.title == title]
    return text


def block(document: Path, heading: str, beginning: str) -> str:
    """Return the only block of a section that begins like this."""
    found = [snippet.text for snippet in snippets(document) if snippet.heading == heading]
    (text,) = [text for text in found if text.startswith(beginning)]
    return text


def adapted(text: str, replaced: Mapping[str, object]) -> str:
    """Return a block for this machine: with other words in the place of some, all of which it has."""
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, str(new))
    return text
