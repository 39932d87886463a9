"""Starts with names first: files are filled before the application starts, or behind it."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import measure
import opened
import peers
import sametree
import workload
from cache import Unavailable, execute, key, once
from measure import Command, Usage
from parts.common import WARM, Options, Part, Rounds, compared, difference, left_out, plain, python, same, walls
from renderer import install
from rig import freshfs
from tables import Claim, megabytes, milliseconds, ratio, spread, table
from unpackenv.start import stamp
from workload import Renderer, Workload

BEFORE, BEHIND, ON_DEMAND, PLAIN = "before", "behind", "on-demand", "plain tree"
IMPORTS = "import flask, numpy, pandas, plotly.graph_objects, plotly.io"
SCIENCE = "import numpy, scipy, sklearn, pyarrow, polars, matplotlib"
WORKERS = "2"
LEAST_WARM_ROUNDS = 21
MEMORY_LIMIT = 96e6
APP, PICTURE = install.HERE / "app.py", "picture.jpg"
# An application that has nothing to do until its tree is complete.
WAITS = """\
import os, time
from unpackenv.start import stamp
file = os.open(os.path.join(os.environ["UNPACKENV_TARGET"], stamp.NAME), os.O_RDONLY)
while not stamp.is_whole(file): time.sleep(0.01)
"""
_WHAT = f"""\
Files filled behind the application (`fill=behind`, names first) against files filled before it, with {WORKERS} workers,
in whole processes, each sample on a new file system. *Beyond it*: of the seconds of a command those are subtracted that
the same command took on a copy of the plain tree, in the same round. The copy has just been made on the new file
system, and is in the page cache. *÷* divides these seconds within a round. What is left running is waited for before
the next sample. After each picture the tree was compared with the plain one: names, modes, times of files, and every
byte."""
# As `pack` has it by default; it makes the same bytecode again. Of an archive with other bytecode, a start looks at 64
# modules in the new tree, and would wait for them.
_BYTECODE = ("--bytecode", "unchecked-hash")
_PLAIN, _JPEG = "plain", b"\xff\xd8\xff"
# What the stamp of a tree says in the end.
_LETTERS = {BEFORE: ("",), BEHIND: (stamp.WHOLE, stamp.SYNCED_WHOLE), ON_DEMAND: (stamp.ON_DEMAND,)}


@dataclass(frozen=True)
class _Figure:
    """One figure: the command that takes it from the plain tree, if it can, and from ours; and what it may be at most.

    `ours` are the commands of a start that fills before, and of one that fills behind.
    """

    name: str
    place: freshfs.FileSystem
    plain: Command | None
    ours: Mapping[str, Command]
    limit: float | None = None
    stretch: float | None = None

    @property
    def commands(self) -> list[Command]:
        return [*([self.plain] if self.plain else []), *self.ours.values()]

    def beyond(self, times: Rounds) -> Rounds:
        """Return the seconds of ours beyond those of the plain tree, by how it is filled."""
        base = times[self.plain.name] if self.plain else {}
        return {
            how: {number: value - base.get(number, 0.0) for number, value in times[command.name].items()}
            for how, command in self.ours.items()
        }

    def row(self, times: Rounds) -> tuple[str, ...]:
        beyond = self.beyond(times)
        base = spread(times[self.plain.name].values()) if self.plain else "–"
        shown = [spread(beyond[how].values()) for how in (BEFORE, BEHIND)]
        return (self.name, base, *shown, ratio(self.measured(times)))

    def measured(self, times: Rounds) -> float:
        return compared(self.beyond(times), BEHIND, BEFORE) or 0.0

    def claims(self, times: Rounds) -> list[Claim]:
        what = f"names first / files first, {self.name}"
        return [Claim(what, self.limit, self.measured(times), stretch=self.stretch)] if self.limit else []


def fill(renderer: Renderer, options: Options) -> Part:
    """How much sooner is an application there if its files are filled behind it?"""
    archive, note = packed(renderer, [renderer.python, APP, os.devnull])
    notes, missing = [note], {}
    with measure.adopting():
        figures = _of_renderer(renderer, archive, options.file_system)
        tmpfs = next(kind for kind in freshfs.KINDS if kind.name == "tmpfs")
        problem = tmpfs.problem()
        if problem:
            missing[tmpfs.name] = problem
        elif tmpfs is not options.file_system:
            figures.append(_imports(renderer, archive, tmpfs))
        try:
            science, note = _of_science(options.file_system)
            figures.append(science)
            notes.append(note)
        except Unavailable as error:
            missing[SCIENCE] = peers.last_line(str(error))
        usages = _runs(figures, options.rounds, functools.partial(_check, renderer.tree))
        memory, warm = _memory(renderer, archive, options), _warm(renderer, archive, options)
    times = walls(usages)
    header = ("until", "plain tree s", "filled before, s beyond it", "filled behind, s beyond it", "behind ÷ before")
    shown = table(header, [figure.row(times) for figure in figures])
    return Part(
        [_WHAT, "\n".join(f"- {note}" for note in notes), shown, *left_out(missing), *memory.text, *warm.text],
        {"runs": plain(usages), "missing": missing, **memory.data, **warm.data},
        [*(claim for figure in figures for claim in figure.claims(times)), *memory.claims],
    )


def _runs(figures: Sequence[_Figure], rounds: int, check: Callable[[Path], object]) -> dict[str, list[Usage]]:
    usages: dict[str, list[Usage]] = {}
    for place in {figure.place.name: figure.place for figure in figures}.values():
        commands = [command for figure in figures if figure.place is place for command in figure.commands]
        fresh = measure.settled(place.fresh, check)
        measure.warm_up(commands[-1], fresh)
        usages.update(measure.in_turn(commands, rounds, fresh))
    return usages


# --- the figures ---------------------------------------------------------------------------------


def _of_renderer(renderer: Renderer, archive: Path, place: freshfs.FileSystem) -> list[_Figure]:
    """Return the figures that the renderer takes on its usual file system."""
    picture = [APP, PICTURE]
    return [
        _imports(renderer, archive, place),
        _figure(renderer, archive, f"first JPEG, {place.name}", place, picture, 0.60, 0.45),
        _until_complete(renderer, archive, f"tree complete, beside nothing, {place.name}", place, ["-c", WAITS], 1.25),
        _until_complete(renderer, archive, f"tree complete, beside the picture, {place.name}", place, picture),
    ]


def _imports(renderer: Renderer, archive: Path, place: freshfs.FileSystem) -> _Figure:
    limit, stretch = (0.40, None) if place.name == "tmpfs" else (0.50, 0.35)
    return _figure(renderer, archive, f"imports done, {place.name}", place, ["-c", IMPORTS], limit, stretch)


def _of_science(place: freshfs.FileSystem) -> tuple[_Figure, str]:
    made = workload.science()
    archive, note = packed(made, [made.python, "-c", SCIENCE])
    return _figure(made, archive, f"science stack imported, {place.name}", place, ["-c", SCIENCE], 0.45), note


def _figure(
    made: Workload,
    archive: Path,
    name: str,
    place: freshfs.FileSystem,
    arguments: Sequence[object],
    limit: float,
    stretch: float | None = None,
) -> _Figure:
    """Return a figure of what Python does with some arguments, on a copy of the plain tree and on ours."""

    def argv(at: Path) -> list[object]:
        return ["env", f"PYTHONPATH={at / _PLAIN}", made.python, *_at(arguments, at)]

    def prepare(at: Path) -> None:
        (at / _PLAIN).mkdir()
        execute(["cp", "-a", f"{made.tree}/.", at / _PLAIN])

    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    base = Command(f"{name}, {PLAIN}", argv, env, prepare=prepare)
    ours = {how: _start(made, archive, f"{name}, filled {how}", how, arguments) for how in (BEFORE, BEHIND)}
    return _Figure(name, place, base, ours, limit, stretch)


def _until_complete(
    made: Workload,
    archive: Path,
    name: str,
    place: freshfs.FileSystem,
    arguments: Sequence[object],
    limit: float | None = None,
) -> _Figure:
    """Return a figure of how long it takes until the stamp says that every file is there."""
    ours = {
        how: replace(
            _start(made, archive, f"{name}, filled {how}", how, arguments), until=functools.partial(_is_complete, how)
        )
        for how in (BEFORE, BEHIND)
    }
    return _Figure(name, place, None, ours, limit)


def _start(made: Workload, archive: Path, name: str, how: str, arguments: Sequence[object]) -> Command:
    """Return the command of a start that fills `how`, into the directory of that name."""
    if arguments[0] == "-c":
        arguments = ["-c", f"{WARM}\n{arguments[1]}"]
    env = {
        **made.env,
        "RENDERER_BOOTSTRAP": "1",
        "UNPACKENV_ARCHIVE": str(archive),
        "UNPACKENV_FILL": how,
        "UNPACKENV_WORKERS": WORKERS,
    }
    return Command(
        name,
        lambda at: ["env", f"UNPACKENV_TARGET={at / how}", made.python, *_at(arguments, at)],
        env,
        archive,
    )


def _at(arguments: Sequence[object], at: Path) -> list[object]:
    return [at / PICTURE if word == PICTURE else word for word in arguments]


# --- what must hold ------------------------------------------------------------------------------


def _is_complete(how: str, at: Path) -> bool:
    """Whether the stamp of a tree says that every file is there; one of a tree that was filled before says nothing."""
    try:
        fd = os.open(at / how / stamp.NAME, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return stamp.is_whole(fd)
    finally:
        os.close(fd)


def _check(tree: Path, at: Path) -> None:
    """Raise `measure.Failed` if a tree was not filled as it should, or if one with a picture is not the plain one."""
    ours = [at / how for how in (BEFORE, BEHIND) if (at / how).exists()]
    for place in ours:
        check_filled(place)
    if (at / PICTURE).exists():
        check_picture(at / PICTURE)
        for place in ours:
            check_same(tree, place)


def check_filled(place: Path) -> None:
    """Raise `measure.Failed` if a tree was not filled as the name of its directory says."""
    with open(place / stamp.NAME) as file:
        letter = stamp.fill_of(file.fileno())
    if letter not in _LETTERS[place.name]:
        raise measure.Failed(f"the tree was not filled {place.name} the application, its stamp says {letter!r}")


def check_picture(place: Path) -> None:
    """Raise `measure.Failed` if a picture is no JPEG."""
    if not place.read_bytes().startswith(_JPEG):
        raise measure.Failed("the picture is no JPEG")


def check_same(tree: Path, place: Path) -> None:
    """Raise `measure.Failed` if a tree is not the plain one."""
    found = sametree.differences(tree, place)
    if found:
        raise measure.Failed(f"{len(found)} paths differ from the plain tree: {'; '.join(found[:5])}")


# --- the archive ---------------------------------------------------------------------------------


def packed(made: Workload, command: Sequence[object]) -> tuple[Path, str]:
    """Return an archive for figures, with those files first that a command opens, and what to say of it."""
    options, note = _first(made, command)
    return made.packed(*_BYTECODE, *options).path, f"{made.name}: {note}"


def _first(made: Workload, command: Sequence[object]) -> tuple[Sequence[object], str]:
    """Return the options of `pack` for those files first that a command opens on a plain tree, and what to say of it.

    There are none where `pack` has no such option, or where it cannot be found out.
    """
    words = [made.python, "-m", "unpackenv", "pack", "--help"]
    if "--first " not in subprocess.run(words, check=True, capture_output=True, text=True, env=made.env).stdout:
        return (), "**hot files are not first**: this `unpackenv pack` has no option `--first`"

    def trace(place: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="unpackenv-bench-") as copy:  # the application may write to it
            execute(["cp", "-a", f"{made.tree}/.", copy])
            env = {"PYTHONPATH": copy, "PYTHONDONTWRITEBYTECODE": "1"}
            paths = opened.opened(command, env, Path(copy))
        place.write_text("".join(f"{path}\n" for path in paths), errors="surrogateescape")

    try:
        listed = once(f"first-{made.name}-{key(str(made.tree), command)}.txt", trace)
    except Unavailable as error:
        return (), f"**hot files are not first**: {peers.last_line(str(error))}"
    count = len(listed.read_text(errors="surrogateescape").splitlines())
    return ("--first", listed), f"the {count:,} files come first that one run opens"


# --- memory, and warm starts ---------------------------------------------------------------------


def _memory(renderer: Renderer, archive: Path, options: Options) -> Part:
    """Measure the memory of all processes until the tree is complete."""
    idle, drawing = "an application that waits", "the renderer"
    commands = [
        replace(
            _start(renderer, archive, f"{name}, filled {how}", how, arguments),
            until=functools.partial(_is_complete, how),
            counts_itself=counts,
        )
        for name, how, arguments, counts in (
            (idle, BEFORE, ["-c", WAITS], True),
            (idle, BEHIND, ["-c", WAITS], True),
            (f"{drawing}, without its own", BEHIND, [APP, PICTURE], False),
        )
    ]
    fresh = measure.settled(options.fresh, functools.partial(_check, renderer.tree))
    peaks = measure.peaks(commands, options.memory_rounds, fresh)
    rows = [(name, *map(megabytes, (peak.pss, peak.rss, peak.largest))) for name, peak in peaks.items()]
    header = ("application", "memory MB, all processes", "sum of RSS MB", "largest process MB")
    text = (
        f"Memory until the tree is complete. With {idle}, it counts; of {drawing} and what that starts, nothing does, "
        "but all processes that fill, and the watcher."
    )
    claims = [
        Claim(f"memory, {name}", MEMORY_LIMIT, peak.pss, megabytes) for name, peak in peaks.items() if BEHIND in name
    ]
    return Part([text, table(header, rows)], {"peaks": plain(peaks)}, claims)


def _warm(renderer: Renderer, archive: Path, options: Options) -> Part:
    """Measure starts that find a tree which was filled before, or behind."""
    rounds = max(LEAST_WARM_ROUNDS, options.rounds)
    nothing = "python -c pass"
    with measure.settled(options.fresh, functools.partial(_check, renderer.tree))() as at:
        commands = [python(renderer, nothing, ["-c", "pass"], renderer.env)]
        for how in (BEFORE, BEHIND):
            start = _start(renderer, archive, f"a tree filled {how}", how, ["-c", "pass"])
            measure.in_turn([start], 1, measure.settled(same(at)))
            commands.append(start)
        for command in commands:
            measure.run(command, at)
        usages = measure.in_turn(commands, rounds, same(at))
    times = walls(usages)
    rows = [
        (name, spread(values.values(), milliseconds), milliseconds(difference(times, name, nothing)))
        for name, values in times.items()
    ]
    more = milliseconds(difference(times, commands[2].name, commands[1].name))
    text = f"A start that finds its tree, {rounds} rounds; one that was filled behind takes {more} ms more:"
    header = ("start", "wall ms", f"median difference to {nothing} ms")
    return Part([text, table(header, rows)], {"warm": plain(usages)})
