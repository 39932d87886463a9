"""The words of timing logs and traces: every outcome, phase and step, with its explanation.

Tables, charts, causes, the page, and the documents (`make tables` writes these) take the words from here. A start has
the names in start/report.py; a log may come from another machine and another version, so nothing of a start is imported
here. A test checks that both have the same words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unpackenv.report.terminal import BLUE, GREEN, RED, YELLOW


@dataclass(frozen=True)
class Word:
    """One word of a log or a trace.

    `colour` is its colour on a page (CSS), `style` the one on a terminal. `expected` says how long it usually takes,
    `helps` what to do where it takes longer. People read the `label`, which is the name unless it is given.
    """

    name: str
    meaning: str
    colour: str = "#999999"
    expected: str = ""
    helps: str = ""
    style: str = ""
    label: str = ""


def _by_name(words: Iterable[Word]) -> dict[str, Word]:
    return {word.name: word for word in words}


# Colours are Okabe and Ito's, which people with any colour vision can tell apart.

OUTCOMES = _by_name(
    [
        Word(
            "unpacked",
            "this start wrote the tree",
            "#0072b2",
            "once per container: 0.1 s for 40 MB, 1 s for 500 MB",
            "see below what it waited for",
            BLUE,
        ),
        Word(
            "named",
            "this start made the names of all files, which are filled behind the application",
            "#117733",
            "once per container: 0.4 s for 30,000 files",
            "see below what it waited for, and then for which files the application waited",
            BLUE,
        ),
        Word(
            "joined",
            "another start is filling the tree",
            "#56b4e9",
            "a few ms",
            "as for `named`: what it opens may not be filled yet",
            GREEN,
        ),
        Word(
            "waited",
            "another start wrote the tree meanwhile",
            "#e69f00",
            "as long as the `unpacked` of another start",
            "give every container a target of its own, or unpack in an init container",
            YELLOW,
        ),
        Word(
            "reused",
            "the tree was there already",
            "#009e73",
            "a few ms",
            "the machine is busy, or `check` counts the files of a tree that a reboot may have damaged "
            "(`UNPACKENV_SYNC=yes`)",
            GREEN,
        ),
        Word("off", "UNPACKENV=off: nothing was done", expected="less than 1 ms"),
        Word("missing", "there is no archive, and UNPACKENV_MISSING=ignore", expected="a few ms"),
        Word(
            "error",
            "the start failed",
            "#aa0044",
            "no start at all",
            "the table of failures says what to do for each reason",
            RED,
            label="failed",
        ),
    ]
)
"""The outcomes of starts, in the order in which readers expect them."""

LOCK = Word(
    "lock",
    "load what unpacks, lock the target, wait for another start",
    "#e69f00",
    "10 to 30 ms",
    "a machine that is less busy",
)
NAMES = Word(
    "names",
    "check room and memory; make all directories and the names of all files, and verify the archive",
    "#117733",
    "0.3 s for 30,000 files",
    "fewer files (`pack --exclude`), more CPUs",
)
UNPACK = Word(
    "unpack",
    "check room and memory; read or fetch, verify, decode and write all files, with their modes and times",
    "#0072b2",
    "most of the start",
    "fewer files (`pack --exclude`), more CPUs",
)
UNTIL_FAILED = Word("until it failed", "what it was doing when it failed", "#aa0044", helps="see the reason")
"""The rest of the time of a start that failed: not a phase of the log, but shown like one."""
BEFORE = Word("before unpackenv", "start the interpreter and what ran before the bootstrap", "#cccccc")
"""The time of a process before its start: shown like a phase of the slowest start."""

PHASES = _by_name(
    [
        Word(
            "check",
            "find the archive, fetch the end of a remote one, and look for a tree that is already there; wait if it "
            "must be whole and is not yet",
            "#56b4e9",
            "a few ms",
            "a target on a local disk",
        ),
        LOCK,
        Word(
            "open",
            "load the codec, read and check the archive's table of contents",
            "#cc79a7",
            "10 to 30 ms",
            "a machine that is less busy",
        ),
        NAMES,
        UNPACK,
        Word(
            "publish",
            "wait for the disk if sync asks for that, write the stamp, rename the tree to its place",
            "#009e73",
            "a few ms",
            "a faster disk, or no `UNPACKENV_SYNC`",
        ),
        Word(
            "fork",
            "start and end the process that unpacks, where it is one of its own",
            "#999999",
            "a few ms",
            "a bootstrap before the application takes much memory",
        ),
        Word(
            "import paths",
            "set sys.path, PYTHONPATH and PATH, run .pth files",
            "#b8a800",
            "less than 1 ms",
            "packages whose `.pth` files import less",
        ),
    ]
)
"""The phases of a start, in their order in the log. All but `fork` follow each other in time."""

FETCHED = _by_name(
    [
        Word("bytes", "bytes of the archive that the server sent", label="MB that were fetched"),
        Word("cached", "bytes of the archive that the cache had", label="MB from the cache"),
        Word("requests", "requests to servers, with attempts after one that failed", label="requests"),
        Word("retries", "attempts after one that failed", label="requests that were tried again"),
        Word(
            "wait_ms",
            "milliseconds that workers waited for all of this, summed over workers",
            label="how long workers waited for it together, ms",
        ),
    ]
)
"""What a log says of fetching a remote archive."""

STEPS = _by_name(
    [
        Word("read", "read the frame from the archive", "#332288"),
        Word("fetch", "wait for the frame of a remote archive, from the server or the cache", "#44aa99"),
        Word("verify", "compare its sha256 with the table of contents", "#882255"),
        Word("decode", "decompress it", "#0072b2"),
        Word("write", "write the files that lie in it", "#d55e00"),
    ]
)
"""The steps of a worker with each frame, as in a trace."""
WAIT = Word("wait", "an open waits for a file that is not filled yet", "#ddcc77")

ANOTHER_START = Word(
    "another start, which held the lock",
    "half of the time or more went into waiting for a start with the same target",
    helps="targets of their own; `UNPACKENV_LOCK_TIMEOUT` limits it",
)
CPU_QUOTA = Word(
    "the CPU quota: throttled",
    "the quota held the start back for a quarter of the time or more",
    helps="a higher CPU limit, at least while it starts",
)
IDLE_CPUS = Word(
    "CPUs used for … of it: disk, or other processes",
    "after `unpack`: it waited for the disk, or for CPUs that others used; `unpackenv doctor` (`pressure`) and "
    "`/proc/pressure/` say which",
    helps="a faster disk or a tmpfs as target; more CPUs, or fewer neighbours",
)

NETWORK = Word(
    "the network",
    "half of the time or more went into waiting for parts of a remote archive, or for the cache that has them",
    helps="a server that is nearer, `UNPACKENV_CACHE`, or the archive in the image; `unpackenv doctor` looks at the "
    "way to the server",
)

CAUSES = (ANOTHER_START, CPU_QUOTA, NETWORK, *PHASES.values(), IDLE_CPUS, UNTIL_FAILED)
"""The things that a start may have waited for."""

_SHOWN_AS_PHASES = {**PHASES, **_by_name([UNTIL_FAILED, BEFORE])}


def phase_meaning(name: str) -> str:
    """Return what happens in a phase; "" for one that a later version has added."""
    word = _SHOWN_AS_PHASES.get(name)
    return word.meaning if word else ""


def phase_colours() -> dict[str, str]:
    """Return the colours of everything that is shown as a phase."""
    return {name: word.colour for name, word in _SHOWN_AS_PHASES.items()}


def outcome(name: str) -> Word:
    """Return the word for an outcome, also for one that a later version has added."""
    return OUTCOMES.get(name) or Word(name, "")


def outcome_label(name: str) -> str:
    """Return the word that people read for an outcome."""
    return outcome(name).label or name


def outcome_styles() -> dict[str, str]:
    """Return the colours of outcomes on a terminal, by label."""
    return {outcome_label(name): word.style for name, word in OUTCOMES.items() if word.style}
