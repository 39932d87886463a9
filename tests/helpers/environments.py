"""Virtual environments for tests: real ones, without the parts that take time to install."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rig.sites import pack_tree, write_tree

VERSION = "{}.{}".format(*sys.version_info[:2])
SITE = f"lib/python{VERSION}/site-packages"


class Environment:
    """A virtual environment, made at `root` by the interpreter `python` of an image, packed, and no longer there.

    Its scripts: `tool` names its Python, `by-env` has it looked for on PATH.
    """

    def __init__(self, folder: Path, **facts: str) -> None:
        """`facts` replace or complete those of the archive."""
        self.python = folder / "image" / "bin" / f"python{VERSION}"
        self.python.parent.mkdir(parents=True)
        self.lead_to(os.path.realpath(sys.executable))
        self.root = folder / "venv"
        self.archive = folder / "venv.tar.zst"
        body = "import flask, sys\nprint(flask.NAME, sys.prefix, *sys.argv[1:])\n"
        self.made = write_tree(
            folder / "made",
            {
                f"{SITE}/flask.py": "NAME = 'packed'\n",
                "pyvenv.cfg": f"home = {self.python.parent}\nversion = {VERSION}\n",
                "bin/tool": f"#!{self.root}/bin/python{VERSION}\n{body}",
                "bin/by-env": f"#!/usr/bin/env python{VERSION}\n{body}",
                "bin/activate": f'VIRTUAL_ENV="{self.root}"\nexport VIRTUAL_ENV\n# not {self.root}-2\n',
            },
        )
        for name in "tool", "by-env":
            (self.made / "bin" / name).chmod(0o755)
        links = {"python": self.python, f"python{VERSION}": "python", "python3": "python"}
        for name, leads_to in links.items():
            (self.made / "bin" / name).symlink_to(leads_to)
        self.pack(**facts)

    def pack(self, **facts: str) -> None:
        """Pack what was made, for where it was made."""
        usual = {"kind": "venv", "bin": "bin", "target": str(self.root), "import": SITE}
        pack_tree(self.archive, self.made, **{**usual, **facts})

    def lead_to(self, python: str | None) -> None:
        """Make the interpreter of the image another one, or none."""
        self.python.unlink(missing_ok=True)
        if python:
            self.python.symlink_to(python)
