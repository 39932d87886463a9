"""`unpackenv completion`: each shell completes commands, options and paths with what it prints."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from helpers.processes import run, wrapper
from rig.environment import environment
from unpackenv.cli import parsers

BASH = """
source {script}
COMP_WORDS=({words} {last}) COMP_CWORD={at}
COMPREPLY=()
$(complete -p unpackenv | sed 's/.*-F \\([^ ]*\\).*/\\1/') unpackenv {last} ''
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "source {script}; complete --do-complete {line}"


def completed(shell: str, tmp_path: Path, line: str) -> set[str]:
    """Return the words that a shell proposes for the last word of a line."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not here")
    script = tmp_path / "script"
    script.write_text(run(wrapper("completion", shell)).stdout)
    *words, last = line.split(" ")
    code = FISH.format(script=script, line=shlex.quote(line))
    if shell == "bash":
        code = BASH.format(script=script, words=" ".join(words), last=last or "''", at=len(words))
    done = run([shell, "-c", code], environment(HOME=tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return {each.partition("\t")[0] for each in done.stdout.splitlines() if each}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_it_completes(shell: str, tmp_path: Path) -> None:
    (tmp_path / "app.tar.zst").write_text("")
    assert completed(shell, tmp_path, "unpackenv ") >= set(parsers.COMMANDS)
    assert completed(shell, tmp_path, "unpackenv pa") == {"pack"}
    assert completed(shell, tmp_path, "unpackenv pack --exc") == {"--exclude", "--exclude-tests"}
    assert completed(shell, tmp_path, "unpackenv completion f") == {"fish"}
    assert completed(shell, tmp_path, "unpackenv inspect app") == {"app.tar.zst"}


def test_it_completes_in_zsh(tmp_path: Path) -> None:
    """A terminal of its own is needed to see more than that it is taken."""
    if not shutil.which("zsh"):
        pytest.skip("zsh is not here")
    (tmp_path / "script").write_text(run(wrapper("completion", "zsh")).stdout)
    code = 'autoload -U compinit; compinit -u -D; eval "$(<script)"; print $_comps[unpackenv]'
    done = run(["zsh", "-f", "-c", code], environment(HOME=tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "_shtab_unpackenv"


def test_without_its_library(tmp_path: Path) -> None:
    (tmp_path / "shtab.py").write_text("raise ImportError")
    done = run(wrapper("completion", "bash"), environment(PYTHONPATH=tmp_path))
    assert (done.returncode, done.stdout) == (125, "")
    assert "pip install 'unpackenv[build]'" in done.stderr
