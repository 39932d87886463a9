"""`unpackenv hook`: the `.pth` file that makes a published tree importable in every interpreter."""

from __future__ import annotations

import os
import sysconfig

from unpackenv.errors import TargetNotWritable
from unpackenv.start.importpaths import HOOK


def install(*, auto: bool, archive: str = "", target: str = "", site_directory: str = "") -> str:
    """Write the hook into the site directory of this interpreter, or the one given; return its path.

    `archive`, which may be a URL, and `target` are recorded for starts whose environment names none. Raises
    `TargetNotWritable`.
    """
    path = hook_path(site_directory)
    # In ASCII, because the interpreter reads the file in the encoding of its locale.
    is_here = archive and "://" not in archive
    arguments = f"auto={auto!r}, archive={os.path.abspath(archive) if is_here else archive!a}"
    arguments += f", target={target and os.path.abspath(target)!a}"
    make_importable = _importable(os.path.dirname(path))
    line = f"import sys; {make_importable}import unpackenv.start.hook; unpackenv.start.hook.run({arguments})\n"
    partial = path + ".partial"
    try:
        with open(partial, "w", encoding="ascii") as file:
            file.write(line)
        os.replace(partial, path)
    except OSError as error:
        raise TargetNotWritable(f"cannot be written ({error.strerror})", where=path) from error
    return path


def remove(site_directory: str = "") -> bool:
    """Remove the hook; return whether there was one. Raises `TargetNotWritable`."""
    path = hook_path(site_directory)
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise TargetNotWritable(f"cannot be removed ({error.strerror})", where=path) from error
    return True


def hook_path(site_directory: str = "") -> str:
    """Return where the hook of this interpreter, or of the site directory given, belongs."""
    return os.path.join(os.path.abspath(site_directory or sysconfig.get_path("purelib")), HOOK)


def _importable(directory: str) -> str:
    """Return code that makes unpackenv importable, or "" if it is in the site directory of the hook."""
    home = os.path.abspath(__file__).rpartition("/unpackenv/start/")[0]
    own = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    if home == directory or (home in own and directory in own):
        return ""
    return f"sys.path.append({home!a}); "
