"""The parts of the benchmark. Each answers one question with tables, raw figures, and what had to be shown."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import measure
from freshfs import FileSystem
from measure import Command, Peak, Usage
from tables import Claim, fine_milliseconds, megabytes, milliseconds, ratio, spread, table
from workload import Renderer, xz_block_size

COLD = "import sys, unpackenv; unpackenv.bootstrap(sys.argv[1], sys.argv[2])"
WARM = "import unpackenv; unpackenv.bootstrap()"
LATE_MODULES = ("zstandard", "lzma", "hashlib", "psutil", "logging", "argparse")
WHICH_LATE = f"{WARM}; import sys; print(*[name for name in {LATE_MODULES} if name in sys.modules])"
TIMED = f"import time; begin = time.perf_counter(); {WARM}; print(time.perf_counter() - begin)"
IMPORTS = "import pandas, plotly, flask, kaleido"
IMPORT_APP = f"import time; begin = time.perf_counter(); {IMPORTS}; print(time.perf_counter() - begin)"
LEAST_WARM_ROUNDS = 21
LEAST_LOG_ROUNDS = 61  # tenths of a millisecond are to be told
LEAST_IMPORT_ROUNDS = 21  # a single import varies by a third, and 5 % are to be told
WARM_IMPORTS = 7
"""Warm imports a round, besides the first."""

MEMORY_LIMIT = 96e6
FRAME_MEBIBYTES = (4, 8, 12, 16, 24)
# By default the workers are processes where the caller has a single thread, as here.
OURS, OURS_XZ, THREADS = "unpackenv, zstd", "unpackenv, xz", "unpackenv, zstd, threads"
FOREIGN, FOREIGN_IN_PLACE = "unpackenv, plain-tar xz", "unpackenv, plain-tar xz, in place"
TAR_XZ, TAR_ZSTD, TAR = "tar -Jxf, XZ_OPT=-T0", "tar --zstd -xf", "tar -xf, uncompressed"
CP, UNSQUASHFS = "cp -a of the tree", "unsquashfs, zstd 19"


@dataclass(frozen=True)
class Options:
    """How often to measure, and where."""

    rounds: int
    file_system: FileSystem

    @property
    def memory_rounds(self) -> int:
        """The peak varies little, and looking at it slows the run down."""
        return max(1, self.rounds // 2)


@dataclass
class Part:
    """What a part found."""

    text: list[str]
    data: dict[str, object]
    claims: list[Claim] = field(default_factory=list)


# --- sizes ---------------------------------------------------------------------------------------


def sizes(renderer: Renderer, _: Options) -> Part:
    """How big are the archives?"""
    archives = {
        OURS: renderer.zstd,
        OURS_XZ: renderer.xz,
        "XZ_OPT=-T0 tar -Jcf": renderer.tar_xz,
        "tar --zstd -cf, level 19": renderer.tar_zstd,
        "tar -cf, uncompressed": renderer.tar,
        "mksquashfs, zstd 19, 1 MB blocks": renderer.squashfs,
    }
    size = {name: path.stat().st_size for name, path in archives.items() if path}
    peer = size["XZ_OPT=-T0 tar -Jcf"]
    rows = [(name, megabytes(value), ratio(value / peer)) for name, value in size.items()]
    return Part(
        [table(("archive", "MB", "× XZ_OPT=-T0 tar -Jcf"), rows)],
        {"bytes": size},
        [Claim("default archive / XZ_OPT=-T0 tar -Jcf", 1.12, size[OURS] / peer)],
    )


# --- cold start ----------------------------------------------------------------------------------


def cold(renderer: Renderer, options: Options) -> Part:
    """How long does unpacking take, and how much memory, whole processes on a fresh file system?"""
    commands = _cold_commands(renderer)
    # Memory first: the timed runs then find every program and its libraries in the page cache.
    peaks = measure.peaks(commands, options.memory_rounds, options.file_system.fresh)
    usages = measure.in_turn(commands, options.rounds, options.file_system.fresh)
    walls = {name: [usage.wall for usage in runs] for name, runs in usages.items()}
    rows = [
        (
            name,
            spread(walls[name]),
            spread([usage.cpu for usage in runs]),
            round(statistics.median(usage.switches for usage in runs)),
            megabytes(peaks[name].pss),
            megabytes(peaks[name].largest),
        )
        for name, runs in usages.items()
    ]
    header = ("command", "wall s", "user+sys s", "switches", "memory MB, all processes", "memory MB, largest process")
    return Part(
        [table(header, rows), *_ratio_table(walls)],
        {"runs": {name: _plain(runs) for name, runs in usages.items()}, "peaks": _plain(peaks)},
        [
            Claim("cold start / XZ_OPT=-T0 tar -Jxf", 0.30, _ratio(walls, OURS, TAR_XZ)),
            Claim("cold start / tar --zstd -xf", 0.90, _ratio(walls, OURS, TAR_ZSTD)),
            Claim("plain-tar xz / XZ_OPT=-T0 tar -Jxf", 1.1, _ratio(walls, FOREIGN, TAR_XZ)),
            Claim("plain-tar xz, in place / XZ_OPT=-T0 tar -Jxf", 1.1, _ratio(walls, FOREIGN_IN_PLACE, TAR_XZ)),
            *(Claim(f"memory, {name}", MEMORY_LIMIT, peaks[name].pss, megabytes) for name in (OURS, THREADS, OURS_XZ)),
            Claim(f"memory, {FOREIGN}", _foreign_limit(renderer.tar_xz), peaks[FOREIGN].pss, megabytes),
        ],
    )


def _cold_commands(renderer: Renderer) -> list[Command]:
    def tar(name: str, archive: Path, *flags: str, **env: str) -> Command:
        return Command(name, lambda at: ["tar", *flags, "-xf", archive, "-C", at], env, archive)

    commands = [
        _cold_start(renderer, OURS, renderer.zstd),
        _cold_start(renderer, THREADS, renderer.zstd, UNPACKENV_PARALLEL="threads"),
        tar(TAR_ZSTD, renderer.tar_zstd, "--zstd"),
        _cold_start(renderer, OURS_XZ, renderer.xz),
        tar(TAR_XZ, renderer.tar_xz, "-J", XZ_OPT="-T 0"),
        _cold_start(renderer, FOREIGN, renderer.tar_xz),
        _cold_start(renderer, FOREIGN_IN_PLACE, renderer.tar_xz, UNPACKENV_IN_PLACE="yes"),
        tar(TAR, renderer.tar),
        Command(CP, lambda at: ["cp", "-a", f"{renderer.tree}/.", at], reads=renderer.tree),
    ]
    squashfs = renderer.squashfs
    if squashfs:
        words = ["unsquashfs", "-no-progress", "-quiet", "-force", "-dest"]
        commands.append(Command(UNSQUASHFS, lambda at: [*words, at, squashfs], reads=squashfs))
    return commands


def _cold_start(renderer: Renderer, name: str, archive: Path, **env: str) -> Command:
    return Command(name, lambda at: [renderer.python, "-c", COLD, archive, at], {**renderer.env, **env}, archive)


def _ratio_table(walls: Mapping[str, Sequence[float]]) -> list[str]:
    ours = [name for name in walls if name.startswith("unpackenv")]
    peers = [name for name in walls if name not in ours]
    rows = [(name, *(ratio(_ratio(walls, name, peer)) for peer in peers)) for name in ours]
    return ["Wall time ÷ that of the alternative in the same round, median of the rounds:", table(("", *peers), rows)]


def _ratio(values: Mapping[str, Sequence[float]], name: str, peer: str) -> float:
    return statistics.median(mine / other for mine, other in zip(values[name], values[peer]))


def _foreign_limit(archive: Path) -> float:
    """Each worker holds one block of an archive that somebody else has cut."""
    return MEMORY_LIMIT + xz_block_size(archive) * len(os.sched_getaffinity(0))


# --- frame sizes ---------------------------------------------------------------------------------


def frames(renderer: Renderer, options: Options) -> Part:
    """What does the size of the frames cost and gain?"""
    archives = {f"{size} MiB": renderer.framed(size) for size in FRAME_MEBIBYTES}
    commands = [_cold_start(renderer, name, archive) for name, archive in archives.items()]
    peaks = measure.peaks(commands, options.memory_rounds, options.file_system.fresh)
    usages = measure.in_turn(commands, options.rounds, options.file_system.fresh)
    peer = renderer.tar_xz.stat().st_size
    rows = []
    for name, archive in archives.items():
        size, runs = archive.stat().st_size, usages[name]
        walls, cpus = [usage.wall for usage in runs], [usage.cpu for usage in runs]
        rows.append(
            (name, megabytes(size), ratio(size / peer), spread(walls), spread(cpus), megabytes(peaks[name].pss))
        )
    header = ("frame", "archive MB", "× XZ_OPT=-T0 tar -Jcf", "cold start s", "user+sys s", "memory MB, all processes")
    data = {"runs": {name: _plain(runs) for name, runs in usages.items()}, "peaks": _plain(peaks)}
    return Part([table(header, rows)], data)


# --- memory of one big file ----------------------------------------------------------------------


def memory(renderer: Renderer, options: Options) -> Part:
    """Does memory stay bounded with a single file of 300 MB?"""
    archives = {OURS: renderer.big_zstd, OURS_XZ: renderer.big_xz, FOREIGN: renderer.big_tar_xz}
    commands = [_cold_start(renderer, name, archive) for name, archive in archives.items()]
    peaks = measure.peaks(commands, options.memory_rounds, options.file_system.fresh)
    limits = {OURS: MEMORY_LIMIT, OURS_XZ: MEMORY_LIMIT, FOREIGN: _foreign_limit(renderer.big_tar_xz)}
    rows = [(name, *map(megabytes, (peak.pss, peak.largest, limits[name]))) for name, peak in peaks.items()]
    claims = [Claim(f"memory, one 300 MB file, {name}", limits[name], peaks[name].pss, megabytes) for name in limits]
    header = ("archive", "MB, all processes", "MB, largest process", "limit MB")
    return Part([table(header, rows)], {"peaks": _plain(peaks)}, claims)


# --- warm start ----------------------------------------------------------------------------------


def warm(renderer: Renderer, options: Options) -> Part:
    """What does a start cost that finds its tree?"""
    nothing, only_import, start = "python -c pass", "import unpackenv", "import unpackenv; bootstrap()"
    become, wrapper = "python -c 'os.execvp(true)'", "python -m unpackenv -- true"
    words = {
        nothing: ["-c", "pass"],
        only_import: ["-c", "import unpackenv"],
        start: ["-c", WARM],
        become: ["-c", "import os; os.execvp('true', ['true'])"],
        wrapper: ["-m", "unpackenv", "--", "true"],
    }
    rounds = max(LEAST_WARM_ROUNDS, options.rounds)
    with options.file_system.fresh() as at:
        env = {**renderer.env, "UNPACKENV_ARCHIVE": str(renderer.zstd), "UNPACKENV_TARGET": str(at)}
        measure.run(_python(renderer, "the cold start", ["-c", WARM], env), at)
        late = measure.run(_python(renderer, "its modules", ["-c", WHICH_LATE], {**env, "UNPACKENV_LOG": "off"}), at)
        commands = [_python(renderer, name, arguments, env) for name, arguments in words.items()]
        for command in commands:
            measure.run(command, at)
        usages = measure.in_turn(commands, rounds, _same(at))
    walls = {name: [usage.wall for usage in runs] for name, runs in usages.items()}
    baseline = {only_import: nothing, start: nothing, wrapper: become}
    more = {name: _difference(walls, name, base) for name, base in baseline.items()}
    rows = [
        (
            name,
            spread(values, milliseconds),
            f"{milliseconds(more[name])} over {baseline[name]}" if name in more else "",
        )
        for name, values in walls.items()
    ]
    return Part(
        [f"{rounds} rounds.", table(("command", "wall ms", "median difference ms"), rows)],
        {"runs": {name: _plain(runs) for name, runs in usages.items()}, "late_modules": late.output.split()},
        [
            Claim("warm start over python -c pass, ms", 0.010, more[start], milliseconds),
            Claim(f"warm start: how many it imports of {', '.join(LATE_MODULES)}", 0, len(late.output.split()), str),
        ],
    )


# --- what the log costs --------------------------------------------------------------------------


def log(renderer: Renderer, options: Options) -> Part:
    """What does the timing log cost a start that finds its tree, by a timer in its process?"""
    rounds = max(LEAST_LOG_ROUNDS, options.rounds)
    with options.file_system.fresh() as at:
        file = str(at.parent / f"{at.name}-log")
        forms = {
            "no log": {"UNPACKENV_LOG": "off"},
            "text": {"UNPACKENV_LOG": "text"},
            "json": {"UNPACKENV_LOG": "json"},
            "a file": {"UNPACKENV_LOG": "off", "UNPACKENV_LOG_FILE": file},
        }
        env = {**renderer.env, "UNPACKENV_ARCHIVE": str(renderer.zstd), "UNPACKENV_TARGET": str(at)}
        commands = [_python(renderer, name, ["-c", TIMED], {**env, **form}) for name, form in forms.items()]
        for command in commands:
            measure.run(command, at)
        usages = measure.in_turn(commands, rounds, _same(at))
        os.unlink(file)
    seconds = {name: [float(usage.output.split()[-1]) for usage in runs] for name, runs in usages.items()}
    more = {name: _difference(seconds, name, "no log") for name in forms}
    rows = [
        (name, spread(values, fine_milliseconds), fine_milliseconds(more[name])) for name, values in seconds.items()
    ]
    claims = [
        Claim(f"the log as {name}, ms", 0.0005, more[name], fine_milliseconds) for name in forms if name != "no log"
    ]
    header = ("log", "import unpackenv; bootstrap(), ms", "median difference to none, ms")
    return Part([f"{rounds} rounds.", table(header, rows)], {"seconds": seconds}, claims)


def _python(renderer: Renderer, name: str, arguments: Sequence[str], env: Mapping[str, str]) -> Command:
    return Command(name, lambda _: [renderer.python, *arguments], env)


def _difference(values: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    return statistics.median(mine - other for mine, other in zip(values[name], values[base]))


def _same(directory: Path) -> Callable[[], contextlib.AbstractContextManager[Path]]:
    return lambda: contextlib.nullcontext(directory)


# --- the application's imports -------------------------------------------------------------------


def imports(renderer: Renderer, options: Options) -> Part:
    """Does the application import as fast as from the plain tree?"""
    first: dict[str, list[Usage]] = {}
    again: dict[str, list[Usage]] = {}
    for number in range(max(LEAST_IMPORT_ROUNDS, options.rounds)):
        with options.file_system.fresh() as at:
            copied = Command("cp", lambda at: ["cp", "-a", f"{renderer.site}/.", at / "plain"], reads=renderer.site)
            (at / "plain").mkdir()
            measure.run(copied, at)
            # They take turns at going first, too.
            commands = _import_commands(renderer, at)[:: 1 if number % 2 else -1]
            _append(first, measure.in_turn(commands, 1, _same(at)))
            _append(again, measure.in_turn(commands, WARM_IMPORTS, _same(at)))
    seconds = {
        kind: {name: [float(usage.output.split()[-1]) for usage in runs] for name, runs in usages.items()}
        for kind, usages in (("first", first), ("again", again))
    }
    rows = [(kind, name, spread(values)) for kind, found in seconds.items() for name, values in found.items()]
    ratios = {kind: _ratio(found, "bootstrap()", "plain tree") for kind, found in seconds.items()}
    text = (
        f"`{IMPORTS}`, timed within the process. `first`: the first import from a new file system, for bootstrap() "
        "in the process that has unpacked; `again`: in later processes."
    )
    return Part(
        [text, table(("when", "from", "s"), rows)],
        {"seconds": seconds},
        [
            Claim("import after a cold bootstrap() / from the plain tree", 1.05, ratios["first"]),
            Claim("import after a warm bootstrap() / from the plain tree", 1.05, ratios["again"]),
        ],
    )


def _import_commands(renderer: Renderer, at: Path) -> list[Command]:
    ours = {"UNPACKENV_ARCHIVE": str(renderer.zstd), "UNPACKENV_TARGET": str(at / "ours"), "UNPACKENV_LOG": "off"}
    plain = {**renderer.env, "PYTHONPATH": str(at / "plain")}
    return [
        _python(renderer, "plain tree", ["-c", IMPORT_APP], plain),
        _python(renderer, "bootstrap()", ["-c", f"{WARM}; {IMPORT_APP}"], {**renderer.env, **ours}),
    ]


def _append(to: dict[str, list[Usage]], usages: Mapping[str, list[Usage]]) -> None:
    for name, runs in usages.items():
        to.setdefault(name, []).extend(runs)


def _plain(value: object) -> object:
    """Return dataclasses within lists and dicts as what JSON can hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return dataclasses.asdict(value) if isinstance(value, (Usage, Peak)) else value


PARTS: dict[str, Callable[[Renderer, Options], Part]] = {
    "sizes": sizes,
    "cold": cold,
    "frames": frames,
    "memory": memory,
    "warm": warm,
    "log": log,
    "imports": imports,
}
