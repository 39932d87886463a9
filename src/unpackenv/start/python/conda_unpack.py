"""Adapt a conda environment to its place with the script that conda-pack has put into it.

The script (`bin/conda-unpack`, of conda-pack 0.9) replaces the prefix of the machine where the environment was made, in
texts and in machine code. It takes its own directory for the new prefix; here the tree is not at its place yet.
Imported only where scripts are to be rewritten.
"""

from __future__ import annotations

from unpackenv.errors import UnpackFailed
from unpackenv.unpatched import os

_SCRIPT = "bin/conda-unpack"
_CODE = """
import os, runpy, sys
root, prefix = sys.argv[1:]
sys.path.insert(0, os.path.join(root, "bin"))
script = runpy.run_path(os.path.join(root, "bin/conda-unpack"))
added = 0
for path, placeholder, mode in script["_prefix_records"]:
    path = os.path.join(root, path)
    before = os.stat(path)
    script["update_prefix"](path, prefix, placeholder, mode=mode)
    added += os.stat(path).st_size - before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
print(added)
"""


def run(root: int, target: str) -> int:
    """Run the script on the tree in the open directory `root`, which will be at `target`, if it has one.

    Returns by how many bytes the tree has grown. Raises `UnpackFailed` if the script fails.
    """
    place = f"/proc/self/fd/{root}"
    if not os.path.exists(f"{place}/{_SCRIPT}"):
        return 0
    import subprocess

    command = [f"{place}/bin/python", "-I", "-S", "-B", "-c", _CODE, place, target]
    done = subprocess.run(
        command, pass_fds=(root,), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise UnpackFailed(
            f"{_SCRIPT} failed ({said})",
            where=target,
            hint="Its new place must not be longer than the old one; or unpack without --relocate",
        )
    return int(done.stdout)
