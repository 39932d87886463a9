"""Where the archive is, and where its tree may be."""

from __future__ import annotations

from unpackenv.archive import trailer
from unpackenv.archive.trailer import SUFFIXES, Identity
from unpackenv.errors import ArchiveNotFound
from unpackenv.start.settings import Settings
from unpackenv.unpatched import os

HOME = "/opt/unpackenv"
CACHE_TAG = "CACHEDIR.TAG"
_STEMS = ("site-packages", "packages", "venv")
NAMES = tuple(stem + suffix for stem in _STEMS for suffix in SUFFIXES)


def find_archive(settings: Settings) -> str:
    """Return the path of the archive: the one that was named, or the first well-known one.

    Well-known names are looked for next to the caller and then in /opt/unpackenv, never in the
    working directory. Raises `ArchiveNotFound`.
    """
    if settings.is_remote:
        return settings.archive
    if settings.archive:
        if os.path.exists(settings.archive):
            return settings.archive
        raise ArchiveNotFound(
            "there is no archive",
            where=os.path.abspath(settings.archive),
            hint="Check UNPACKENV_ARCHIVE and the COPY of the image build",
        )
    directories = [directory for directory in (settings.caller_directory, HOME) if directory]
    for directory in directories:
        for name in NAMES:
            path = os.path.join(directory, name)
            if os.path.exists(path):
                return path
    raise ArchiveNotFound(
        f"no archive: none of {', '.join(_STEMS)} with {', '.join(SUFFIXES)}",
        where=" and ".join(directories),
        hint="Name it with UNPACKENV_ARCHIVE; on a machine that has the packages installed set UNPACKENV=off",
    )


def identify(archive: str, settings: Settings) -> Identity:
    """Return the identity of the archive that was found: of a remote one its digest alone, which asks no network.

    Raises what `trailer.identify` does.
    """
    if settings.is_remote:
        return Identity("", 0, settings.pin or settings.digest.lower(), None, {})
    return trailer.identify(archive)


class TargetCandidate:
    """A directory that may hold the tree. A default (`is_default`) was not named, and must be safe to share.

    `why` says what named it: "argument", "environment" or "recorded"; or which default it is.
    """

    __slots__ = ("is_default", "path", "shared_root", "why")

    def __init__(self, path: str, is_default: bool, why: str, shared_root: str = "") -> None:
        self.path = path
        self.is_default = is_default
        self.why = why
        self.shared_root = shared_root


def candidates(settings: Settings, identity: Identity) -> list[TargetCandidate]:
    """Return the places for the tree of an archive, in the order in which they are tried.

    A target that was named, or recorded when the archive was packed, is the only one.
    """
    if settings.target:
        return [named(settings)]
    recorded = (identity.facts.get("target") or [""])[0]
    if recorded:
        return [TargetCandidate(os.path.realpath(recorded), False, "recorded")]
    return [
        TargetCandidate(os.path.join(trees_of(root), identity.key[:32]), True, why, root)
        for why, root in roots().items()
    ]


def named(settings: Settings) -> TargetCandidate:
    """Return the place that was named."""
    return TargetCandidate(os.path.realpath(settings.target), False, settings.target_why)


def roots() -> dict[str, str]:
    """Return the roots of the default places, by what they are, in the order in which they are tried."""
    directory = os.environ.get("TMPDIR", "")
    temporary = os.path.join(directory if os.path.isabs(directory) else "/tmp", f"unpackenv-{os.geteuid()}")
    by_kind = {"default": HOME, "default-cache": _cache_home(), "default-temporary": temporary}
    return {why: root for why, root in by_kind.items() if root}


def trees_of(root: str) -> str:
    """Return the directory that holds the trees below one of the `roots`."""
    return os.path.join(root, "env")


def is_private(candidate: TargetCandidate) -> bool:
    """Whether nobody but this user and root could have put something into a default place."""
    root = candidate.shared_root
    return not is_open(os.path.dirname(root)) and is_safe(root) and is_safe(os.path.dirname(candidate.path))


def is_safe(directory: str) -> bool:
    """Whether nobody but this user and root may write to a directory; a link to one never is."""
    status = os.lstat(directory)
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def is_open(directory: str) -> bool:
    """Whether any user may rename the files of others in a directory: a sticky bit forbids that."""
    return os.stat(directory).st_mode & 0o1002 == 0o002


def _cache_home() -> str:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home) or home == "/":
            return ""
        cache = os.path.join(home, ".cache")
    return os.path.join(cache, "unpackenv")
