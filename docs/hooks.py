"""Pages that mkdocs does not find in docs/: the documents at the top of the project, and the help of every command."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parents[1]
TOP = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in docs/."""
    for name, page in TOP.items():
        files.append(File.generated(config, page, content=(PROJECT / name).read_text()))
    files.append(File.generated(config, "cli.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links to pages of the site; the documents have them for readers of the project's files."""
    markdown = re.sub(r"\]\((?:\.\./)?docs/", "](", markdown)
    for name, page in TOP.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}(?=[)#])", f"]({page}", markdown)
    return markdown


def command_line() -> str:
    """Return the help of every command, from the parsers that the commands have."""
    os.environ["COLUMNS"] = "100"
    from unpackenv.cli import parsers

    parser = parsers.command_line()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    lines = ["# Command line", "", "What `--help` prints.", "", "## unpackenv", "", *_fenced(parser)]
    for name, command in commands.choices.items():
        lines += ["", f"## unpackenv {name}", "", *_fenced(command)]
    return "\n".join(lines) + "\n"


def _fenced(parser: argparse.ArgumentParser) -> list[str]:
    return ["```text", parser.format_help().rstrip(), "```"]
