"""The command line: `unpackenv pack`, `unpack`, `verify`, `inspect`, `hook`, `prune`, and the wrapper `-- CMD`."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import unpackenv
from unpackenv.errors import TreeMismatch, UnpackenvError
from unpackenv.start import entrypoint
from unpackenv.start.settings import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unpackenv.archive.toc import Toc

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_BIGGEST = 8


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 for a tree that differs from its archive, 2 for wrong usage, else 125."""
    parser = _parser()
    for stream in (sys.stdout, sys.stderr):  # a name may have bytes that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0].partition("=")[0] in {setting.option for setting in TABLE}:
        parser.error("the command to become goes behind `--`: python -m unpackenv [options] -- CMD ARG…")
    options = parser.parse_args(arguments)
    try:
        code = options.run(options)
    except UnpackenvError as error:
        entrypoint.fail(error)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # such as a full disk
        entrypoint.fail(UnpackenvError(error.strerror or str(error), where=str(error.filename or "")))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unpackenv",
        description="Ship a Python environment as one compressed file, unpacked in parallel when the container starts.",
        epilog=_entrypoint_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unpackenv {unpackenv.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_pack, _add_unpack, _add_verify, _add_inspect, _add_hook, _add_prune, _add_runtime):
        add(commands)
    return parser


def _entrypoint_help() -> str:
    """Describe the wrapper, whose options `entrypoint` parses without argparse."""
    lines = [
        "as an entrypoint: python -m unpackenv [options] -- CMD ARG…",
        "  unpacks the environment if it is not there yet, and becomes CMD. Its options, each also a variable of the",
        "  environment (UNPACKENV_TARGET for --target):",
        "",
    ]
    return "\n".join(lines + [f"  {setting.option:15} {setting.meaning}" for setting in TABLE])


# --- pack --------------------------------------------------------------------------------------


def _add_pack(commands: Commands) -> None:
    try:
        from unpackenv.build.bytecode import MODES
        from unpackenv.build.pack import BEST_FRAME_SIZE, DEFAULT_FRAME_SIZE, DEFAULT_LEVEL
    except ModuleNotFoundError:  # in a runtime, which leaves out what builds
        return

    levels = ", ".join(f"{codec} {level}" for codec, level in DEFAULT_LEVEL.items())
    parser = commands.add_parser(
        "pack",
        help="make an archive of installed packages",
        description="Make an archive of a site-packages folder, an install tree (pip --target, --prefix) or a venv.",
    )
    parser.add_argument("source", metavar="SRC", help="the folder to pack")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the archive to write (.tar.zst or .tar.xz)"
    )
    parser.add_argument("--codec", choices=tuple(DEFAULT_LEVEL), help="default: by the name of FILE, else zstd")
    parser.add_argument(
        "--best", action="store_true",
        help=f"the smallest archive: highest level and frames of {BEST_FRAME_SIZE >> 20}M, which take more memory",
    )  # fmt: skip
    parser.add_argument("--level", type=int, help=f"compression level (default: {levels})")
    parser.add_argument(
        "--frame-size", type=_size, metavar="SIZE",
        help=f"raw size of what is decoded at once, such as 8M (default: {DEFAULT_FRAME_SIZE >> 20}M)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="default: all CPUs")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="leave out; may be repeated")
    parser.add_argument("--target", default="", metavar="DIR", help="where to unpack by default")
    parser.add_argument("--bytecode", choices=MODES, default=MODES[0], help=f"default: {MODES[0]}")
    parser.add_argument(
        "--python", metavar="PATH", help="the interpreter that will run it (default: the venv's, else this)"
    )
    parser.set_defaults(run=_pack)


def _pack(options: argparse.Namespace) -> int:
    from unpackenv.build import pack
    from unpackenv.start import isolation

    codec = options.codec or ("xz" if options.output.endswith(".xz") else "zstd")
    if not options.output.endswith({"xz": (".xz", ".txz"), "zstd": (".zst", ".tzst")}[codec]):
        print(f"warning: {options.output} is named like something else than {codec}, which it will be", file=sys.stderr)
    chosen = pack.Options(
        codec=codec,
        best=options.best,
        level=options.level,
        frame_size=options.frame_size,
        workers=options.workers,
        exclude=options.exclude,
        target=options.target,
        bytecode=options.bytecode,
        python=options.python,
    )
    # A build that is cancelled leaves neither half an archive nor a staging directory.
    packed = isolation.stoppable(lambda: pack.pack(options.source, options.output, chosen))
    for warning in packed.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for glob in packed.unused:
        print(f"warning: --exclude {glob} matches nothing", file=sys.stderr)
    for path, reason in packed.failed:
        print(f"warning: {path} does not compile and is packed as it is: {reason}", file=sys.stderr)
    toc, described = packed.written.toc, packed.source
    ratio = packed.written.size / max(1, toc.unpacked_size)
    print(f"{packed.path}: {_megabytes(packed.written.size)}, {ratio:.1%} of {_megabytes(toc.unpacked_size)}")
    counts = f"{len(toc.file_names)} files, {len(toc.frame_raw)} frames"
    print(f"  {counts}, {described.kind}, for {described.interpreter.cache_tag}")
    biggest = list(packed.packages.items())[:_BIGGEST]
    print("  largest: " + ", ".join(f"{name} {_megabytes(size)}" for name, size in biggest))
    print(f"  digest {packed.written.digest}")
    return 0


# --- unpack ------------------------------------------------------------------------------------


def _add_unpack(commands: Commands) -> None:
    parser = commands.add_parser(
        "unpack",
        help="unpack an archive into a directory, for init containers",
        description="Unpack an archive into a directory, as a start would. A start that finds the directory uses it.",
    )
    parser.add_argument("archive", metavar="ARCHIVE")
    parser.add_argument("-C", "--directory", metavar="DIR", required=True, help="absent or empty, unless --in-place")
    parser.add_argument("--no-stamp", action="store_true", help="leave the files of the archive and nothing else")
    for setting in TABLE:
        if setting.name not in ("archive", "target", "missing", "force"):
            action = "store_true" if setting.is_switch else "store"
            parser.add_argument(setting.option, help=setting.meaning, action=action, default=None)
    parser.set_defaults(run=_unpack)


def _unpack(options: argparse.Namespace) -> int:
    from unpackenv.start import bootstrap, target

    arguments = {setting.name: getattr(options, setting.name, None) for setting in TABLE}
    done = bootstrap.unpack({**arguments, "archive": options.archive, "target": options.directory})
    if options.no_stamp:
        target.forget(done.target)
    return 0


# --- verify ------------------------------------------------------------------------------------


def _add_verify(commands: Commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="check an archive, or a tree against its archive",
        description="Check every frame and every member of an archive; with --target, compare a tree with the archive.",
    )
    parser.add_argument("archive", metavar="ARCHIVE", nargs="?", default="", help="default: as for a start")
    parser.add_argument("--target", metavar="DIR", help="the tree to compare")
    parser.add_argument("--digest", default="", help="the digest that the archive must have")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from unpackenv.archive import reader, verify
    from unpackenv.start import places, target
    from unpackenv.start.settings import Settings

    path = places.find_archive(Settings({"archive": options.archive or None}))
    if options.target is None:
        verify.verify_archive(path, options.digest)
        print(f"{path}: sound")
        return 0
    if not os.path.isdir(options.target):
        raise TreeMismatch("there is no such tree", where=options.target)
    with reader.open_archive(path, options.digest) as archive:
        tag = archive.facts.get("python", [""])[0]
        # What else is in a directory that was filled in place is none of the archive's business.
        differences = verify.compare_tree(archive, options.target, tag, extra=not target.is_shared(options.target))
    for difference in differences:
        print(f"{difference.kind}: {difference.path}" + (f" ({difference.detail})" if difference.detail else ""))
    if not differences:
        print(f"{options.target}: complete and unaltered")
    return 1 if differences else 0


# --- inspect -----------------------------------------------------------------------------------


def _add_inspect(commands: Commands) -> None:
    parser = commands.add_parser(
        "inspect", help="say what is in an archive", description="Print an archive's facts, digest and frames."
    )
    parser.add_argument("archive", metavar="ARCHIVE", nargs="?", default="", help="default: as for a start")
    parser.add_argument("--files", action="store_true", help="list the members")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from unpackenv.archive import reader
    from unpackenv.start import places
    from unpackenv.start.settings import Settings

    with reader.open_archive(places.find_archive(Settings({"archive": options.archive or None}))) as archive:
        toc = archive.toc
        frames = [{"stored": stored, "raw": raw} for stored, raw in zip(toc.frame_stored, toc.frame_raw)]
        members = [_described(toc, *member) for member in toc.paths()] if options.files else []
        size = os.fstat(archive.fd).st_size
        if options.json:
            found: dict[str, object] = {
                "digest": archive.digest,
                "size": size,
                "facts": archive.facts,
                "frames": frames,
            }
            print(json.dumps({**found, "members": members} if options.files else found))
            return 0
        print(f"{archive.path}\n  digest {archive.digest}\n  size {size}")
        for key, values in archive.facts.items():
            print(f"  {key} {' '.join(value or '.' for value in values)}")
        print(f"  largest frame {max(toc.frame_stored)} stored, {max(toc.frame_raw)} raw")
        for member in members:
            columns = f"{member['mode']:04o} {member['size']:>12} {member['mtime']:>11} {member['kind']:<9}"
            link = f" -> {_line(member['link'])}" if "link" in member else ""
            print(f"{columns} {_line(member['path'])}{link}")
    return 0


def _line(text: str) -> str:
    """Return a name as one line."""
    return text.replace("\n", "\\n")


def _described(toc: Toc, kind: str, path: bytes, row: int) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": kind, "path": os.fsdecode(path), "mode": 0o777, "size": 0, "mtime": 0}
    if kind == "directory":
        described.update(mode=toc.dir_mode[row], mtime=toc.dir_mtime[row])
    elif kind == "file":
        described.update(mode=toc.file_mode[row], mtime=toc.file_mtime[row], size=toc.file_size[row])
    elif kind == "symlink":
        described.update(mtime=toc.link_mtime[row], link=os.fsdecode(toc.link_targets[row]))
    elif kind == "hard link":
        file = toc.hard_file[row]
        described.update(mode=toc.file_mode[file], mtime=toc.file_mtime[file])
        described.update(link=os.fsdecode(toc.dir_paths()[toc.file_dir[file]] + toc.file_names[file]))
    return described


# --- hook --------------------------------------------------------------------------------------


def _add_hook(commands: Commands) -> None:
    parser = commands.add_parser(
        "hook",
        help="make every interpreter of the image import from the unpacked tree",
        description="Write one .pth file into this interpreter's site directory, at image build: every interpreter "
        "that starts in the container, also by docker exec or a health check, imports from the unpacked tree.",
    )
    parser.add_argument(
        "--auto", action="store_true", help="the first interpreter to start unpacks; no code change needed"
    )
    parser.add_argument("--archive", default="", metavar="FILE", help="the archive, where the environment names none")
    parser.add_argument("--target", default="", metavar="DIR", help="the target, where the environment names none")
    parser.add_argument(
        "--site-dir", default="", metavar="DIR", help="the site directory (default: this interpreter's)"
    )
    parser.add_argument("--remove", action="store_true", help="remove the hook again")
    parser.set_defaults(run=_hook)


def _hook(options: argparse.Namespace) -> int:
    from unpackenv.build import hook

    if options.remove:
        print(f"removed {hook.remove(options.site_dir)}")
        return 0
    path = hook.install(
        auto=options.auto, archive=options.archive, target=options.target, site_directory=options.site_dir
    )
    print(f"wrote {path}")
    return 0


# --- prune -------------------------------------------------------------------------------------


def _add_prune(commands: Commands) -> None:
    parser = commands.add_parser(
        "prune",
        help="remove unpacked trees that nobody uses",
        description="Remove unpacked trees that no process uses and that no start has used for some time.",
    )
    parser.add_argument("directories", metavar="DIR", nargs="*", help="holds the trees (default: the default places)")
    parser.add_argument(
        "--older-than", type=_duration, default="30d", metavar="TIME",
        help="unused for that long, such as 12h, 30d (default) or 0",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and leave it there")
    parser.set_defaults(run=_prune)


def _prune(options: argparse.Namespace) -> int:
    from unpackenv.start import prune

    for directory in options.directories or prune.caches():
        for finding in prune.prune(directory, options.older_than, options.dry_run):
            size = f", {_megabytes(finding.size)}" if finding.size else ""
            print(f"{finding.path}: {finding.outcome}{size}")
    return 0


# --- runtime -----------------------------------------------------------------------------------


def _add_runtime(commands: Commands) -> None:
    try:
        import unpackenv.build.runtime  # noqa: F401
    except ImportError:
        return
    parser = commands.add_parser(
        "runtime",
        help="write what the final image needs, without pip",
        description="Write what a final image needs to start an archive: this package without what builds, and "
        "zstandard's C extension. For the Python version that runs this.",
    )
    parser.add_argument("directory", metavar="DIR", help="absent or empty; for PYTHONPATH, or /opt/unpackenv/runtime")
    parser.add_argument("--codec", choices=("zstd", "xz"), default="zstd", help="of the archive; xz needs no extension")
    parser.set_defaults(run=_runtime)


def _runtime(options: argparse.Namespace) -> int:
    from unpackenv.build import runtime

    written = runtime.write(options.directory, options.codec)
    if not written.stripped:
        print("warning: symbols are not stripped, which saves 11 MB: install binutils", file=sys.stderr)
    print(f"{written.path}: {_megabytes(written.size)} on disk")
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _duration(text: str) -> float:
    """Return the seconds that a text such as 12h or 30d means."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}.get(text[-1:])
    try:
        seconds = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        seconds = -1
    if not seconds >= 0:  # nor is "nan"
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 12h or 30d")
    return seconds


def _size(text: str) -> int:
    from unpackenv.start import settings

    try:
        return settings.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
