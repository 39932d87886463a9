"""Makes the site directories that unpackenv unpacked importable, in an application and in its children.

In children, `sitecustomize` or `usercustomize` next to this file calls `run`. The child may be any Python, even 2.7 or
one without unpackenv: this file stands alone, in syntax that all of them read. If the tree is for another Python than
the child, nothing is added.
"""

import os
import site
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # noqa: F401 - in the comment of a function

VARIABLE = "UNPACKENV_SITE"
PLACE = os.path.join("unpackenv", "start", "shim")


def joined(tag, directories, environ):  # type: (str, list[str], Any) -> str
    """Return the value of `VARIABLE`: the cache tag of the Python that the directories are for, and the directories.

    Those of an outer start, which are in the environment, come after them.
    """
    outer_tag, outer = inherited(environ)
    outer = [path for path in outer if tag == outer_tag and path not in directories]
    parts = [tag] + directories + outer  # noqa: RUF005 - for Python 2.7
    return os.pathsep.join([part.replace("%", "%25").replace(os.pathsep, "%3A") for part in parts])


def inherited(environ=os.environ):  # type: (Any) -> tuple[str, list[str]]
    """Return cache tag and site directories from the environment, as an application has set them; both may be empty."""
    parts = environ.get(VARIABLE, "").split(os.pathsep)
    parts = [part.replace("%3A", os.pathsep).replace("%25", "%") for part in parts]
    return parts[0], parts[1:]


def is_for_this_python(tag):  # type: (str) -> bool
    """Whether a cache tag is that of the running interpreter."""
    return tag == getattr(getattr(sys, "implementation", None), "cache_tag", None)


def add_site_directories(directories):  # type: (list[str]) -> None
    """Add site directories to `sys.path` as `site` does, `.pth` files included, each once in a process.

    They go before the interpreter's own: packed modules win over those of the image.
    """
    added_before = vars(site).setdefault("_added_by_unpackenv", set())
    # While `site` runs, as for the hook, it does not know the prefix of a virtual environment yet.
    own = set(site.getsitepackages() + site.getsitepackages([sys.prefix, sys.exec_prefix]) + [site.USER_SITE])
    for directory in directories:
        if directory not in added_before:
            added_before.add(directory)
            before = len(sys.path)
            site.addsitedir(directory)
            added = sys.path[before:]
            del sys.path[before:]
            at = next((index for index, path in enumerate(sys.path) if path in own), before)
            sys.path[at:at] = added


def run(name):  # type: (str) -> None
    """Add the directories, as "sitecustomize" or "usercustomize" (`name`); then import the module that it hides."""
    tag, directories = inherited()
    # PYTHONPATH names them, too, for children in which neither file runs; there they precede the standard library.
    sys.path[:] = [path for path in sys.path if path not in directories]
    if is_for_this_python(tag):
        add_site_directories(directories)
    # Others of that kind, such as that of an outer start by another unpackenv, would come here again.
    sys.path[:] = [path for path in sys.path if not os.path.abspath(path).endswith(PLACE)]
    this = sys.modules.pop(name)
    try:
        __import__(name)
    except ImportError as error:
        if str(error).replace("'", "") != "No module named " + name:
            raise
        sys.modules[name] = this
