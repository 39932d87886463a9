"""Every setting, declared once: argument of `bootstrap()`, option of the wrapper, environment variable.

An argument wins over the environment, which wins over what the archive recorded, which wins over
the default.
"""

from __future__ import annotations

import sys

from unpackenv.archive.trailer import SUFFIXES
from unpackenv.errors import SettingError
from unpackenv.start.shim import unpackenv_site
from unpackenv.unpatched import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from unpackenv.archive.blob import Blob
    from unpackenv.start.command import Command

PREFIX = "UNPACKENV_"
# When the bootstrap of the wrapper ended, for its command: the process, and seconds of the monotonic clock.
END_VARIABLE = "UNPACKENV_BOOTSTRAPPED"


def path(value: str) -> str:
    """Return a path, with `~`, `~user`, and variables at its beginning or in braces expanded, as no shell has done."""
    if value[:1] not in ("~", "$") and "${" not in value:
        return value
    expanded = os.path.expandvars(os.path.expanduser(value))
    if expanded[:1] in ("~", "$") or "${" in expanded:
        raise ValueError("a path: it has a user or a variable that is not known here")
    return expanded


def _switch(value: str) -> bool:
    if value.lower() in ("1", "yes", "true", "on"):
        return True
    if value.lower() in ("0", "no", "false", "off", ""):
        return False
    raise ValueError("yes or no")


def _count(value: str) -> int:
    number = int(value) if value.isdigit() else -1
    if number < 0:
        raise ValueError("a whole number from 0")
    return number


def size(value: str) -> int:
    """Return the bytes that a text such as 256M means; K, M and G stand for powers of 1024."""
    shift = {"K": 10, "M": 20, "G": 30}.get(value[-1:].upper(), 0)
    try:
        return _count(value[:-1] if shift else value) << shift
    except ValueError:
        raise ValueError("a number of bytes, such as 256M") from None


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e9:
        raise ValueError("a number of seconds")
    return seconds


def _digest(value: str) -> str:
    if value == "any":
        return ""
    if not _is_sha256(value):
        raise ValueError("a sha256 in hex, 64 digits, or any")
    return value


def _is_sha256(value: str) -> bool:
    return len(value) == 64 and not value.strip("0123456789abcdefABCDEF")


def _choice(*choices: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(" or ".join(choices))
        return value

    return check


# Where a value is kept after its start: the wrapper passes it on to its command, `pack` records it in the archive,
# `hook` writes it into its file.
COMMAND, ARCHIVE, HOOK = "command", "archive", "hook"


# When files are filled.
FILLS = BEFORE, BEHIND, ON_DEMAND = "before", "behind", "on-demand"


class Setting:
    """One setting: its name everywhere, how its text is read, its default, and what it means.

    `parse` turns a text into a value of the type of `default`. In help, `placeholder` stands for the value ("" for a
    switch), `meaning` says what the setting is, and `otherwise` describes a default that needs words. `remembered` are
    the places where the value is kept after a start: COMMAND, ARCHIVE, HOOK.
    """

    __slots__ = ("default", "meaning", "name", "otherwise", "parse", "placeholder", "remembered")

    def __init__(
        self,
        name: str,
        parse: Callable[[str], object],
        default: object,
        placeholder: str,
        meaning: str,
        otherwise: str = "",
        remembered: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.parse = parse
        self.default = default
        self.placeholder = placeholder
        self.meaning = meaning
        self.otherwise = otherwise
        self.remembered = remembered

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """Name of its command-line option."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether its option takes no value."""
        return self.parse is _switch

    @property
    def is_path(self) -> bool:
        """Whether its value is a path."""
        return self.parse is path


# `--help`, the table in docs/reference.md and the docstring of `unpackenv.bootstrap` take their texts from here.
TABLE = (
    Setting(
        "archive", path, "", "FILE", "the archive, or its URL with its digest",
        f"site-packages, packages or venv with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, next to the caller of "
        "bootstrap() or in /opt/unpackenv",
        (COMMAND, HOOK),
    ),
    Setting(
        "target", path, "", "DIR", "the directory to unpack into",
        "the one that `pack --target` recorded, else one named by the digest below /opt/unpackenv/env, the user's "
        "cache or the temporary directory",
        (COMMAND, ARCHIVE, HOOK),
    ),
    Setting(
        "digest", _digest, "", "SHA256", "accept only the archive with this digest, which `unpackenv inspect` prints",
        "any",
    ),
    Setting(
        "insecure", _switch, False, "", "fetch an archive by http:// also from other machines, which encrypts nothing"
    ),
    Setting(
        "fetch_timeout", _seconds, 60.0, "SECONDS",
        "seconds for fetching a part of a remote archive, with all attempts",
    ),
    Setting(
        "cache", path, "", "DIR", "a directory that keeps what is fetched, for all containers and starts of a machine",
        "none",
    ),
    Setting(
        "cache_size", size, 4 << 30, "SIZE", "size of the cache in bytes, such as 4G; what was not used for longest "
        "makes room", "4G",
    ),
    Setting(
        "missing", _choice("error", "ignore"), "error", "HOW",
        "what to do without an archive: error, or ignore (the start does nothing)",
    ),
    Setting("in_place", _switch, False, "", "replace files one by one in a target that is already in use"),
    Setting(
        "force", _switch, False, "",
        "unpack even if the checks of interpreter, mount, space and memory fail",
    ),
    Setting(
        "sync", _switch, False, "",
        "sync the tree to the disk before it is published; it then needs no check after a reboot",
    ),
    Setting("workers", _count, 0, "N", "how many workers unpack; 0: as many as CPUs, CPU quota and memory allow"),
    Setting(
        "parallel", _choice("auto", "processes", "threads"), "auto", "HOW",
        "kind of workers: processes, threads, or auto, the faster of the two",
    ),
    Setting(
        "memory", size, 256 << 20, "SIZE", "budget in bytes for the buffers of all workers together, such as 256M",
        "256M",
    ),
    Setting(
        "fill", _choice(*FILLS), BEFORE, "WHEN",
        "when files are filled: before the application starts, behind it (names first), or on-demand (when they are "
        "opened); if nothing is said, as `pack --fill` recorded",
        remembered=(ARCHIVE,),
    ),
    Setting(
        "lock_timeout", _seconds, 600.0, "SECONDS",
        "seconds to wait for another start that is unpacking the same target",
    ),
    Setting(
        "log", _choice("text", "json", "off"), "text", "FORM", "the timing line on stderr: text, json or off",
        remembered=(COMMAND,),
    ),
    Setting(
        "log_file", path, "", "FILE", "a file to append each line to as JSON, whatever log is set to", "none",
        (COMMAND,),
    ),
    Setting(
        "imports", _count, 0, "N",
        'how many of the slowest imports mark("ready") lists; 0: imports are not measured',
        remembered=(COMMAND,),
    ),
    Setting(
        "trace", path, "", "FILE", "a file for a trace of the unpack, by worker and frame, in Chrome's format", "none"
    ),
    Setting(
        "relocate", _switch, False, "",
        "rewrite the scripts of a virtual environment for the path that it is unpacked to",
    ),
)  # fmt: skip


class Settings:
    """The value of each setting of `TABLE`, as attributes.

    Besides these: the directory of the caller (`caller_directory`), the facts of the interpreter that
    will import the tree, if it is not this one (`interpreter`), the program that the wrapper will
    become (`command`), what named the target, if it is named (`target_why`), whether a setting
    says when files are filled (`fill_is_named`), a file that records which of them are opened
    (`record`), the digest of the manifest that an oci:// URL pins (`pin`, 64 digits or ""), where a
    remote archive is read from once its end is known (`blob`), and warnings about the environment
    (`warnings`).
    """

    archive: str
    target: str
    digest: str
    insecure: bool
    fetch_timeout: float
    cache: str
    cache_size: int
    missing: str
    in_place: bool
    force: bool
    sync: bool
    workers: int
    parallel: str
    memory: int
    fill: str
    lock_timeout: float
    log: str
    log_file: str
    imports: int
    trace: str
    relocate: bool

    def __init__(
        self,
        arguments: Mapping[str, object],
        environ: Mapping[str, str] = os.environ,
        *,
        caller_directory: str = "",
        interpreter: dict[str, str] | None = None,
    ) -> None:
        """Resolve every setting; raises `SettingError` for an invalid value."""
        self.caller_directory = caller_directory
        self.interpreter = interpreter
        self.command: Command | None = None
        self.record = ""
        self.pin = ""
        self.blob: Blob | None = None
        self.fill_is_named = arguments.get("fill") is not None or bool(environ.get("UNPACKENV_FILL"))
        for setting in TABLE:
            value = arguments.get(setting.name)
            if value is None:
                text = environ.get(setting.variable)  # Compose passes a variable that is not set on as ""
                value = _parsed(setting, text, setting.variable) if text else setting.default
            else:
                value = _parsed(setting, _as_text(value), setting.name)
            setattr(self, setting.name, value)
        if self.is_remote:
            self._take_digest_of_url()
        self.target_why = "environment" if arguments.get("target") is None else "argument"
        self.warnings = list(_misspelled(environ))
        if environ.get("UNPACKENV_DIGEST") == "" and arguments.get("digest") is None:
            self.warnings.append("UNPACKENV_DIGEST is empty: any archive is accepted")

    @property
    def is_remote(self) -> bool:
        """Whether the archive is elsewhere, and named by a URL."""
        return "://" in self.archive

    def _take_digest_of_url(self) -> None:
        """Take the digest from the end of the URL, if it has one there; raises `SettingError` without any."""
        self.archive, _, fragment = self.archive.partition("#")
        if self.archive.startswith("oci://"):
            self.pin = self.archive.partition("@sha256:")[2]
            if self.pin and not _is_sha256(self.pin):
                raise SettingError(f"{self.pin!r} is no sha256 in hex, 64 digits", where="UNPACKENV_ARCHIVE")
        if fragment:
            kind, _, value = fragment.partition("=")
            if kind != "sha256":
                raise SettingError(f"{fragment!r} is no #sha256=DIGEST", where="UNPACKENV_ARCHIVE")
            try:
                digest = _digest(value)
            except ValueError as error:
                raise SettingError(f"{value!r} is not {error}", where="UNPACKENV_ARCHIVE") from None
            if self.digest and self.digest.lower() != digest.lower():
                raise SettingError("is another digest than that of the URL", where="UNPACKENV_DIGEST")
            self.digest = digest
        if not (self.digest or self.pin):
            raise SettingError(
                "a remote archive needs its digest",
                where="UNPACKENV_ARCHIVE",
                hint="Add #sha256=DIGEST to the URL, or set UNPACKENV_DIGEST; `pack` and `unpackenv inspect` print it",
            )


class Log:
    """Where lines go: to stderr in one `form` ("text", "json" or "off"), and to a `file` or none ("").

    It takes the settings unchecked: a start with invalid settings must write its line, too.
    """

    __slots__ = ("file", "form")

    def __init__(self, arguments: Mapping[str, object], environ: Mapping[str, str] = os.environ) -> None:
        self.form = str(arguments.get("log") or environ.get("UNPACKENV_LOG") or "text")
        self.file = str(arguments.get("log_file") or environ.get("UNPACKENV_LOG_FILE", ""))
        try:
            self.file = path(self.file)
        except ValueError:  # `Settings` reports it
            self.file = ""
        if sys.platform == "win32":  # it has no figures for lines in JSON
            self.form, self.file = self.form.replace("json", "text"), ""

    @property
    def is_json(self) -> bool:
        """Whether a line in JSON is wanted anywhere."""
        return self.form == "json" or self.file != ""


def is_off(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `UNPACKENV=off` turns every bootstrap into a no-op; raises `SettingError` for a value that is neither."""
    try:
        return not _switch(environ.get("UNPACKENV") or "on")
    except ValueError:
        raise SettingError(f"{environ['UNPACKENV']!r} is neither off nor on", where="UNPACKENV") from None


VARIABLES = {*(setting.variable for setting in TABLE), END_VARIABLE, unpackenv_site.VARIABLE}
"""Every variable with `PREFIX` that unpackenv reads or sets."""


def _misspelled(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each variable that is named almost like a setting; other programs may use the rest."""
    for name in environ:
        if name.startswith(PREFIX) and name not in VARIABLES and (meant := nearest_variable(name)):
            yield f"{name} is no setting: did you mean {meant}?"


def nearest_variable(name: str) -> str:
    """Return the variable that `name` may be a misspelling of, or ""."""
    meant = nearest(name[len(PREFIX) :], [variable[len(PREFIX) :] for variable in VARIABLES])
    return meant and PREFIX + meant


def nearest(name: str, names: Iterable[str], alike: float = 0.8) -> str:
    """Return the one of `names` that `name` may be a misspelling of, or ""; at least `alike`, from 0 (any) to 1."""
    import difflib

    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=alike)), "")


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return os.fspath(value) if isinstance(value, (str, os.PathLike)) else str(value)


def _parsed(setting: Setting, text: str, name: str) -> object:
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "the URL" if "://" in text else repr(text)  # it may have a password
        raise SettingError(f"{shown} is not {error}", where=name, hint=f"It means: {setting.meaning}") from None
