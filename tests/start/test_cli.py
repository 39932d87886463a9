"""The command line from end to end: pack, unpack, verify, inspect, hook, and what they exit with."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unpackenv
from helpers.processes import python, run
from helpers.support import TAR_FLAG
from rig.environment import environment
from rig.sites import TAG, write_tree
from unpackenv.cli import parsers
from unpackenv.start import locations, settings


def command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as the console script does."""
    return run([sys.executable, "-c", "from unpackenv.__main__ import main; main()", *arguments], **options)  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages directory with a package that does not compile."""
    return write_tree(
        tmp_path / "site",
        {
            "app.py": "VALUE = 42\n",
            "package/__init__.py": "",
            "package/data.txt": "text\n" * 1000,
            "broken.py": "def\n",
        },
    )


@pytest.fixture
def packed(site: Path, tmp_path: Path) -> Path:
    done = command("pack", site, "-o", tmp_path / "packed.tar.zst", "--level", "3")
    assert done.returncode == 0, done.stderr
    return tmp_path / "packed.tar.zst"


@pytest.mark.parametrize(("name", "level", "size"), [("best.tar.zst", 22, 128 << 20), ("best.tar.xz", 9, 64 << 20)])
def test_best_packs_smallest_and_yields_to_other_options(tmp_path: Path, name: str, level: int, size: int) -> None:
    small = write_tree(tmp_path / "small", {"app.py": ""})
    for options, expected in [
        (["--best"], (level, size)), (["--best", "--level", "1", "--frame-size", "1M"], (1, 1 << 20)),
    ]:  # fmt: skip
        assert command("pack", small, "-o", tmp_path / name, *options).returncode == 0
        facts = json.loads(command("inspect", tmp_path / name, "--json").stdout)["facts"]
        assert (facts["level"], facts["frame-size"]) == expected


@pytest.mark.parametrize("name", ["site.tar.zst", "site.tar.xz"])
def test_pack_unpack_and_use(site: Path, tmp_path: Path, name: str) -> None:
    archive = tmp_path / name
    done = command("pack", site, "-o", archive, "--level", "3", "--frame-size", "64K", "--workers", "2")
    assert done.returncode == 0, done.stderr
    summary = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(archive))}: \d+\.\d kB, \d+\.\d% of \d+\.\d kB", summary[0])
    assert re.match(r"  \d+ files, \d+ frames?", summary[1])
    assert any(re.search(rf"site-packages,? for {TAG}$", line) for line in summary)
    assert any(line.startswith("  largest: ") for line in summary)
    digest = re.fullmatch(r"  digest ([0-9a-f]{64})", summary[-1])
    assert digest
    progress = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert list(dict.fromkeys(line.partition(":")[0] for line in progress)) == ["compile", "compress"]
    assert any(re.match(r"warning: (.*/)?broken\.py does not compile", line) for line in done.stderr.splitlines())

    tree = tmp_path / "unpacked"
    done = command("unpack", archive, "-C", tree)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1].startswith("unpackenv: unpacked")
    assert (tree / f"__pycache__/app.{TAG}.pyc").exists()
    assert python(f"import sys; sys.path.append({str(tree)!r}); import app; print(app.VALUE)").stdout == "42\n"

    done = command("verify", archive, "--digest", digest[1])
    assert (done.returncode, done.stdout) == (0, f"{archive}: sound\n")
    done = command("verify", archive, "--target", tree)
    assert (done.returncode, done.stdout) == (0, f"{tree}: complete and unaltered\n")


@pytest.mark.parametrize("codec", ["zstd", "xz"])
def test_bytecode_keep_is_the_tree_and_nothing_else(site: Path, tmp_path: Path, codec: str) -> None:
    archive = tmp_path / "archive"
    assert command("pack", site, "-o", archive, "--codec", codec, "--bytecode", "keep", "--level", "1").returncode == 0
    for options in ["--no-stamp"], ["--no-stamp", "--in-place"]:
        tree = tmp_path / "-".join(["tree", *options])
        if "--in-place" in options:
            tree.mkdir()
        done = command("unpack", archive, "-C", tree, *options)
        assert done.returncode == 0, done.stderr
        assert subprocess.run(["diff", "-r", site, tree], capture_output=True, text=True).stdout == ""
    listed = subprocess.run(["tar", TAR_FLAG[codec], "-tf", archive], capture_output=True, text=True, check=True)
    assert "package/data.txt" in listed.stdout.splitlines()
    assert listed.stderr == ""


def test_packing_twice_gives_the_same_bytes(site: Path, tmp_path: Path) -> None:
    for name, workers in ("one", 1), ("two", 2):
        assert command("pack", site, "-o", tmp_path / name, "--workers", workers, "--level", "3").returncode == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_options_of_pack(site: Path, tmp_path: Path) -> None:
    done = command(
        "pack",
        site,
        "-o",
        tmp_path / "archive",
        "--exclude",
        "*.txt",
        "--exclude",
        "broken.py",
        "--target",
        "/srv/tree",
        "--bytecode",
        "none",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(command("inspect", tmp_path / "archive", "--json", "--files").stdout)
    assert [member["path"] for member in found["members"]] == ["package", "app.py", "package/__init__.py"]
    assert found["facts"]["target"] == ["/srv/tree"]
    assert found["facts"]["bytecode"] == ["none"]


def test_inspect_says_what_was_packed(packed: Path) -> None:
    done = command("inspect", packed)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == str(packed)
    assert f"  python {TAG}" in lines
    assert "  import ." in lines
    described = json.loads(command("inspect", packed, "--json").stdout)
    assert f"  digest {described['digest']}" in lines
    assert described["size"] == packed.stat().st_size
    assert sum(frame["stored"] for frame in described["frames"]) < described["size"]
    assert "members" not in described
    listed = command("inspect", packed, "--files").stdout
    assert re.search(r"^0644 +11 bytes +\d{4}-\d\d-\d\d \d\d:\d\d file +app\.py$", listed, re.MULTILINE)


def test_inspect_has_sizes_for_people_and_numbers_for_programs(packed: Path) -> None:
    facts = json.loads(command("inspect", packed, "--json").stdout)["facts"]
    numbers = {key: value for key, value in facts.items() if isinstance(value, int)}
    assert set(numbers) == {"level", "frame-size", "frames", "files", "members", "unpacked-size"}
    assert facts["codec"] == ["zstd"]
    lines = command("inspect", packed).stdout.splitlines()
    assert f"  size {packed.stat().st_size / 1000:.1f} kB" in lines
    assert f"  unpacked-size {numbers['unpacked-size'] / 1000:.1f} kB" in lines
    assert "  frame-size 16.8 MB" in lines
    assert f"  files {numbers['files']}" in lines


@pytest.mark.parametrize("inner", ["", f"lib/python3.{sys.version_info.minor}/site-packages/"])
def test_inspect_lists_packages_with_their_versions(tmp_path: Path, inner: str) -> None:
    """By the names of the metadata that is installed next to them; metadata within a package does not count."""
    metadata = (
        "scikit_learn-1.9.1.dist-info/METADATA",
        "Zope.Interface-7.2.dist-info/METADATA",
        "digest-1.0.dist-info/METADATA",
        "torch-2.1.0+cpu.dist-info/METADATA",
        "old-0.3-py3.9.egg-info/PKG-INFO",
        "older-0.2.egg-info",
        "setuptools/_vendor/packaging-24.2.dist-info/METADATA",
        "left-0.1.dist-info/RECORD",
    )
    site = write_tree(tmp_path / "site", {f"{inner}{name}": "" for name in ("app.py", *metadata)})
    assert command("pack", site, "-o", tmp_path / "x.tar.zst", "--level", "1").returncode == 0
    expected = {
        "digest": "1.0", "old": "0.3", "older": "0.2", "scikit-learn": "1.9.1", "torch": "2.1.0+cpu",
        "zope-interface": "7.2",
    }  # fmt: skip
    found = json.loads(command("inspect", tmp_path / "x.tar.zst", "--json").stdout)["packages"]
    assert found == [{"name": name, "version": version} for name, version in expected.items()]
    lines = command("inspect", tmp_path / "x.tar.zst").stdout.splitlines()
    at = lines.index("  6 packages")
    assert lines[at + 1 :] == [f"    {name} {version}" for name, version in expected.items()]


def test_the_largest_are_counted_with_their_libraries(tmp_path: Path) -> None:
    files = ("PIL/Image.py", "pillow.libs/libjpeg.so.8")
    info = {"METADATA": "Metadata-Version: 2.1\nName: pillow\n", "RECORD": "".join(f"{name},,\n" for name in files)}
    site = write_tree(tmp_path / "site", {f"pillow-11.0.dist-info/{name}": text for name, text in info.items()})
    write_tree(site, dict.fromkeys(files, "VALUE = 1\n" * 1000))
    done = command("pack", site, "-o", tmp_path / "x.tar.zst", "--level", "1")
    (largest,) = (line for line in done.stdout.splitlines() if line.startswith("  largest: "))
    assert re.fullmatch(r"  largest: pillow \d\d\.\d kB", largest)


def test_inspect_into_a_closed_pipe(packed: Path) -> None:
    script = f"{sys.executable} -m unpackenv inspect --files {packed} | head -1"
    done = run(["bash", "-o", "pipefail", "-c", script])
    assert (done.stdout, done.stderr) == (f"{packed}\n", "")


def test_verify_finds_what_is_wrong(packed: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert command("unpack", packed, "-C", tree).returncode == 0
    (tree / "app.py").write_text("VALUE = 43\n")
    (tree / "package/data.txt").unlink()
    (tree / "stray").touch()
    done = command("verify", packed, "--target", tree)
    assert done.returncode == 1
    found = {line.partition(" (")[0] for line in done.stdout.splitlines()}
    assert {"altered: app.py", "missing: package/data.txt", "extra: stray"} <= found
    data = bytearray(packed.read_bytes())
    data[30] ^= 1
    packed.write_bytes(data)
    done = command("verify", packed)
    assert done.returncode == 125
    assert done.stderr.startswith(f"unpackenv: error: {packed}")


def test_verify_takes_a_digest_as_a_start_does(packed: Path) -> None:
    digest = json.loads(command("inspect", packed, "--json").stdout)["digest"]
    for accepted in digest, digest.upper(), "any":
        assert command("verify", packed, "--digest", accepted).returncode == 0
    for refused, says in ("", "'' is not a sha256"), ("12ab", "'12ab' is not a sha256"), ("0" * 64, digest):
        done = command("verify", packed, "--digest", refused)
        assert done.returncode == 125
        assert says in done.stderr


@pytest.mark.parametrize("way", [["inspect"], ["verify"], ["unpack", "-C", "{}/tree"], ["--archive"]], ids="-".join)
def test_what_is_no_archive_is_told_what_it_is(packed: Path, tmp_path: Path, way: list[str]) -> None:
    """By every command that takes one, and by a start."""
    (tmp_path / "text").write_text("<!DOCTYPE html>\n<title>404</title>\n")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    rest = ["--target", tmp_path / "tree", "--", "true"] if way == ["--archive"] else []
    for path, says in [
        (tmp_path, f"is a directory, and an archive is a file. Name the archive in it: {packed}"),
        (tmp_path / "folder", "is a directory, and an archive is a file. Name the file that `unpackenv pack` or tar"),
        (tmp_path / "text", "is a text file, and no archive; it begins with '<!DOCTYPE html>'. Name the file that"),
        (tmp_path / "pointer", "is a pointer of Git LFS, and not the archive itself. Fetch it with git lfs pull"),
        (tmp_path / "empty", "is empty. Name the file"),
        (tmp_path / "pipe", "is a pipe, and an archive is read from its end"),
        (Path(sys.executable), "is neither an unpackenv archive nor a .tar.zst, "),
    ]:  # fmt: skip
        done = command(*[word.replace("{}", str(tmp_path)) for word in way], path, *rest)
        assert (done.returncode, done.stdout) == (125, "")
        # A slow start says what it is about to do.
        (line,) = (line for line in done.stderr.splitlines() if not line.startswith("unpackenv: unpacking "))
        assert line.startswith(f"unpackenv: error: {path}: {says}")


@pytest.mark.parametrize("name", ["inspect", "verify"])
def test_settings_of_starts_do_not_keep_one_from_reading_an_archive(packed: Path, name: str) -> None:
    env = environment(UNPACKENV_DIGEST="", UNPACKENV_WORKERS="many", UNPACKENV_ARCHIVE=packed)
    for arguments in [packed], []:
        assert command(name, *arguments, env=env).returncode == 0


def test_what_verify_says_of_plain_tar_checks_it(site: Path, tmp_path: Path) -> None:
    archive = tmp_path / "plain.tar.xz"
    subprocess.run(["tar", "-C", site, "-Jcf", archive, "."], check=True)
    done = command("verify", archive)
    assert done.returncode == 125
    (check,) = re.findall("`(tar .*?)`", done.stderr)
    assert subprocess.run(check, shell=True).returncode == 0
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    assert subprocess.run(check, shell=True, stderr=subprocess.DEVNULL).returncode == 2


def test_verify_of_a_directory_that_others_use_too(packed: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "of-others.txt").write_text("not from the archive")
    assert command("unpack", packed, "-C", tree, "--in-place").returncode == 0
    done = command("verify", packed, "--target", tree)
    assert (done.returncode, done.stdout) == (0, f"{tree}: complete and unaltered\n"), done.stderr
    data = tree / "package/data.txt"
    packed_at = data.stat().st_mtime
    data.write_text("altered")
    os.utime(data, (packed_at, packed_at))  # else that is a second difference, unless it was packed in this second
    done = command("verify", packed, "--target", tree)
    stamp = tree / ".unpackenv.stamp"
    assert (done.returncode, done.stderr) == (
        1, f"{tree}: 1 difference. Remove {stamp}, and the next start unpacks again\n"
    )  # fmt: skip
    stamp.unlink()
    assert command("unpack", packed, "-C", tree, "--in-place").returncode == 0
    assert command("verify", packed, "--target", tree).returncode == 0
    assert (tree / "of-others.txt").read_text() == "not from the archive"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2), (["frobnicate"], 2), (["pack"], 2), (["pack", "x"], 2),
        (["pack", "x", "-o", "y", "--frame-size", "big"], 2),
        (["unpack", "{}/nothing", "-C", "{}/tree"], 125), (["verify", "{}/nothing"], 125),
        (["inspect", "{}/nothing"], 125),
        (["pack", "{}/nothing", "-o", "{}/y"], 125), (["pack", "{}", "-o", "{}/y", "--level", "99"], 125),
        (["unpack", "{}/x", "-C", "{}/tree", "--workers", "many"], 125), (["--version"], 0),
        (["--help"], 0), (["unpack", "--help"], 0),
    ],
)  # fmt: skip
def test_exit_codes_tell_usage_from_failure(tmp_path: Path, arguments: list[str], code: int) -> None:
    done = command(*[argument.replace("{}", str(tmp_path)) for argument in arguments])
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stderr) == (code > 0)
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_that_of_the_package(option: str) -> None:
    assert command(option).stdout == f"unpackenv {unpackenv.__version__}\n"


def test_commands_say_in_json_what_they_did(site: Path, tmp_path: Path) -> None:
    def said(*arguments: object, code: int = 0) -> dict[str, Any]:
        done = command(*arguments, "--json")
        assert done.returncode == code, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    archive, tree, trees = tmp_path / "packed.tar.zst", tmp_path / "trees/env", tmp_path / "trees"
    packed = said("pack", site, "-o", archive, "--level", "3", "--no-sbom")
    assert (packed["path"], packed["size"]) == (str(archive), archive.stat().st_size)
    assert packed["digest"] == said("inspect", archive)["digest"]
    sound = {"archive": str(archive), "digest": packed["digest"], "target": None, "differences": []}
    assert said("verify", archive) == sound
    assert command("unpack", archive, "-C", tree).returncode == 0
    assert said("verify", archive, "--target", tree) == {**sound, "target": str(tree)}
    (tree / "app.py").write_text("")
    differences = said("verify", archive, "--target", tree, code=1)["differences"]
    assert ("altered", "app.py") in [(one["kind"], one["path"]) for one in differences]
    assert said("fill", tree) == {"target": str(tree), "was_whole": True}
    write_tree(trees, {locations.CACHE_TAG: "Signature: 8a477f597d28d172789f06886806bc55\n# unpackenv\n"})
    pruned = said("prune", trees, "--older-than", "0")["trees"]
    assert [(one["path"], one["outcome"]) for one in pruned] == [(str(tree), "removed")]
    hook = str(tmp_path / "unpackenv.pth")
    assert said("hook", "--site-dir", tmp_path) == {"hook": hook, "outcome": "written"}
    assert said("hook", "--site-dir", tmp_path, "--remove") == {"hook": hook, "outcome": "removed"}
    written = said("launcher", "-o", tmp_path / "python", "--archive", archive)
    assert (written["path"], written["size"]) == (str(tmp_path / "python"), (tmp_path / "python").stat().st_size)
    assert said("runtime", tmp_path / "runtime")["path"] == str(tmp_path / "runtime")


# --- help ----------------------------------------------------------------------------------------

COMMANDS = (
    "pack", "push", "unpack", "fill", "verify", "inspect", "trace", "analyze", "timings", "doctor", "hook", "prune",
    "runtime", "launcher", "dockerfile", "completion",
)  # fmt: skip


def test_help_of_a_command() -> None:
    for ways in ("help",), ("--help",), ("-h",):
        assert command(*ways).stdout.startswith("usage: unpackenv [options] COMMAND")
    for name in "pack", "doctor":
        done = command("help", name)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: unpackenv {name} [options]")
        assert done.stdout == command(name, "--help").stdout


def test_without_arguments_help_is_an_error() -> None:
    """Of an entrypoint the command may have got lost, and a container that did nothing must not look well."""
    done = command()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == command("help").stdout


@pytest.mark.parametrize("columns", [40, 80])
def test_help_fits_without_breaking_words(columns: int) -> None:
    words = set(command("help", env=environment(COLUMNS=1000)).stdout.split())
    for name in ("", *COMMANDS):
        shown = command("help", *([name] if name else []), env=environment(COLUMNS=columns)).stdout
        assert shown.startswith("usage: unpackenv")
        assert [line for line in shown.splitlines() if len(line) > columns] == []
        assert name or set(shown.split()) == words


def _options() -> Iterator[tuple[str, argparse.Action]]:
    parser = parsers.command_line()
    for name, parsed in parser.commands.choices.items():
        yield from ((name, action) for action in parsed._actions if action.option_strings)


def test_every_option_says_its_default() -> None:
    for name, action in _options():
        if action.nargs != 0 and not action.required:  # nor is it a switch
            assert "default: " in (action.help or ""), f"{name} {action.option_strings}"


def test_every_option_says_its_choices() -> None:
    for name, action in _options():
        for choice in action.choices or ():
            assert choice in (action.help or ""), f"{name} {action.option_strings}"
    shown = command("help", env=environment(COLUMNS=1000)).stdout
    for setting in settings.TABLE:
        line = shown.partition(f"\n  {setting.option} ")[2].partition("\n  --")[0]
        assert "default: " in line
        try:
            setting.parse("?")
        except ValueError as error:
            choices = str(error).split(" or ")
            if not setting.is_switch and all(map(str.isalpha, choices)):
                assert all(choice in line for choice in choices), line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pak", "x"], "unpackenv: error: there is no command 'pak'; did you mean pack? To start a program put -- "),
        (["pakc", "x"], "unpackenv: error: there is no command 'pakc'; did you mean pack? "),
        (["Pack", "x"], "unpackenv: error: there is no command 'Pack'; did you mean pack? "),
        (["help", "pak"], "unpackenv: error: there is no command 'pak'; did you mean pack? "),
        (["run", "--", "x"], "unpackenv: error: there is no command 'run'. To start a program: python -m unpackenv "),
        (["hellp"], "unpackenv: error: there is no command 'hellp'; did you mean help? "),
        (["--hlep"], "unpackenv: error: there is no option --hlep; did you mean --help?"),
        (["--trget=x"], "unpackenv: error: there is no option --trget; did you mean --target?"),
        (["pack", "x", "--targt", "y"], "unpackenv pack: error: there is no option --targt; did you mean --target?"),
        (["pack", "--outptu=y", "x"], "unpackenv pack: error: there is no option --outptu; did you mean --output?"),
        (["unpack", "--wrkers", "3", "-C", "y"], "unpackenv unpack: error: there is no option --wrkers; did you mean "),
        (["doctor", "--xyzzy"], "unpackenv doctor: error: there is no option --xyzzy.\n"),
        (["inspect", "-q"], "unpackenv inspect: error: there is no option -q.\n"),
        (["inspect", "x", "y"], "unpackenv inspect: error: one argument too many: y\n"),
        (["prune", "--older-than"], "unpackenv prune: error: argument --older-than: expected one argument\n"),
    ],
)
def test_what_was_meant(arguments: list[str], says: str) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    usage, *errors = done.stderr.splitlines(keepends=True)
    assert usage.startswith("usage: unpackenv ")
    assert "".join(errors).startswith(says)
    assert len(errors) == 1


def test_values_that_look_like_options(tmp_path: Path) -> None:
    """What begins with a dash is no option where it is a number, or stdin, or after two dashes."""
    site = write_tree(tmp_path / "site", {"app.py": ""})
    assert "--workers: -1 is less than 0" in command("pack", site, "-o", tmp_path / "x.tar.zst", "--workers", -1).stderr
    assert "stdin: no start is in 0 lines" in command("timings", "-").stderr
    assert "--odd: there is no archive" in command("inspect", "--", "--odd").stderr


def test_unpack_is_idempotent_and_refuses_what_is_not_its_own(packed: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for outcome in "unpacked", "reused":  # before which a slow start says what it is about to do
        assert command("unpack", packed, "-C", tree).stderr.splitlines()[-1].startswith(f"unpackenv: {outcome}")
    other = write_tree(tmp_path / "other", {"mine": "stays"})
    done = command("unpack", packed, "-C", other)
    assert done.returncode == 125
    assert "--in-place" in done.stderr
    assert os.listdir(other) == ["mine"]
    assert command("unpack", packed, "-C", other, "--in-place").returncode == 0
    assert (other / "mine").exists()


def test_unpack_for_another_python(packed: Path, site: Path, tmp_path: Path) -> None:
    """An init container need not have the interpreter of the application."""
    from rig.sites import pack_tree

    pack_tree(tmp_path / "other", site, python="cpython-27", native="yes", machine="pdp11")
    assert command("unpack", tmp_path / "other", "-C", tmp_path / "tree").returncode == 0


def test_errors_as_json(tmp_path: Path) -> None:
    done = command("verify", tmp_path / "nothing", env=environment(UNPACKENV_LOG="json"))
    assert json.loads(done.stderr)["reason"] == "archive-not-found"


def test_pack_says_at_once_what_cannot_be(tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"app.py": ""})
    (tmp_path / "x.tar.zst").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for arguments, message in (
        (["-o", tmp_path / "fifo"], f"{tmp_path}/fifo: is no regular file"),
        (["-o", tmp_path / "nowhere/x.tar.zst"], f"{tmp_path}/nowhere: is no directory"),
        (["-o", tmp_path / "x.tar.zst"], f"{tmp_path}/x.tar.zst: is a directory"),
        (["-o", tmp_path / "y.tar.zst", "--workers", "-1"], "--workers: -1 is less than 0"),
    ):
        done = command("pack", site, *arguments)
        assert done.returncode == 125
        assert done.stderr.startswith(f"unpackenv: error: {message}"), done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--target", "x", "python"], ["--archive=x"], ["--target"]])
def test_a_wrapper_without_its_dashes_is_told_of_them(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "the command to run goes after `--`" in done.stderr


@pytest.mark.parametrize("arguments", [["--"], ["--target", "x", "--"]])
def test_a_wrapper_without_a_command_is_told(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "there is no command after `--`" in done.stderr


@pytest.mark.parametrize("option", ["-h", "--help", "-V", "--version"])
def test_help_is_help_whatever_follows(option: str) -> None:
    done = command(option, "--", "false")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("usage: unpackenv", "unpackenv 0"))


def test_a_name_that_promises_another_format_is_told(tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"app.py": ""})
    stderr = command("pack", site, "-o", tmp_path / "x.data").stderr
    assert "x.data will be compressed with zstd, whatever its name says" in stderr
    assert "whatever its name says" not in command("pack", site, "-o", tmp_path / "x.tar.zst").stderr


def test_inspect_shows_what_links_lead_to(tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"package/app.py": "VALUE = 1\n", "new\nline": ""})
    os.link(site / "package/app.py", site / "again")
    (site / "link").symlink_to("nowhere")
    command("pack", site, "-o", tmp_path / "x.tar.zst", "--bytecode", "none")
    lines = command("inspect", tmp_path / "x.tar.zst", "--files").stdout.splitlines()
    assert any(line.endswith(r" new\nline") for line in lines)
    assert any(line.endswith(" link -> nowhere") for line in lines)
    (hard,) = (line for line in lines if " hard link " in line)
    assert hard.startswith(f"{(site / 'again').stat().st_mode & 0o777:04o} ")
    assert " -> " in hard


def test_a_program_without_the_dashes_before_it() -> None:
    done = command("python", "app.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no command 'python'" in done.stderr
    assert "put -- before it: python -m unpackenv -- python" in done.stderr


@pytest.mark.parametrize(("name", "says"), [("absent", "does not exist"), ("a.tar", "unpack a tar archive first")])
def test_only_folders_are_packed(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    done = command("pack", tmp_path / name, "-o", tmp_path / "out.tar.zst")
    assert done.returncode == 125
    assert says in done.stderr
