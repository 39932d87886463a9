"""`unpackenv analyze` on real environments: the files that it names exist, and its figures add up."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from helpers import saved_images, terminal
from helpers.processes import processes_with, python, quickly, run, sooner_than, start, wait_for, wrapper
from helpers.support import describe
from rig.environment import PATIENCE, environment
from rig.sites import write_tree
from unpackenv.archive import reader
from unpackenv.archive.codecs import zstd_extension
from unpackenv.pack import scan, source
from unpackenv.report.analyze import advice, contents
from unpackenv.report.analyze.advice import Circumstances
from unpackenv.report.analyze.measure import Layer, Measured


def analyzed(*arguments: object, **variables: object) -> dict[str, Any]:
    """Return what `analyze` finds; it compresses quickly, unless `variables` have another PYTHONPATH."""
    done = run(wrapper("analyze", *arguments, "--json"), environment(**{**quickly(), **variables}))
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines():  # on a slow machine
        assert re.fullmatch(r"[\w, ]+: (\d+%.*|.* MB so far)", line)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def small(small_site: Path, temporary: Path) -> dict[str, Any]:
    """What is found of a small environment. Shared."""
    return analyzed(small_site, TMPDIR=temporary, PYTHONPATH=environment()["PYTHONPATH"])


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty directory in which it is measured. Shared."""
    return tmp_path_factory.mktemp("temporary")


TOGETHER = pytest.mark.xdist_group("analyze")  # those that share what was found: one process looks for it


def files_of(site: Path) -> dict[str, int]:
    return {str(path.relative_to(site)): path.stat().st_size for path in site.rglob("*") if path.is_file()}


# --- what is in it -----------------------------------------------------------------------------


@TOGETHER
def test_packages_add_up_to_what_is_there(small: dict[str, Any], small_site: Path) -> None:
    files = files_of(small_site)
    packages = {package["name"]: package for package in small["packages"]}
    assert next(iter(packages)) == max(packages, key=lambda name: packages[name]["size"])
    assert {"PyYAML", "MarkupSafe", "click"} <= set(packages)
    of_yaml = {"yaml", "_yaml", "PyYAML-6.0.2.dist-info"}
    sizes = [size for path, size in files.items() if path.partition("/")[0] in of_yaml]
    assert (packages["PyYAML"]["files"], packages["PyYAML"]["size"]) == (len(sizes), sum(sizes))
    assert sum(package["size"] for package in small["packages"]) == sum(files.values())
    stored = sum(package["stored"] for package in small["packages"])
    assert 0.9 * small["measured"]["archive"] < stored < small["measured"]["archive"]


@TOGETHER
def test_kinds_of_files_add_up_to_what_is_there(small: dict[str, Any], small_site: Path) -> None:
    files = files_of(small_site)
    kinds = {kind["name"]: kind for kind in small["kinds"]}
    for name, ending in ("Python sources", ".py"), ("bytecode", ".pyc"), ("shared objects and programs", ".so"):
        sizes = [size for path, size in files.items() if path.endswith(ending)]
        assert (kinds[name]["files"], kinds[name]["size"]) == (len(sizes), sum(sizes)), name
        assert sizes, name
    assert sum(kind["size"] for kind in small["kinds"]) == sum(files.values())


@pytest.fixture(scope="module")
def littered(small_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with needless files: tests, a header, a static library, a library that is there twice. Shared."""
    site = shutil.copytree(small_site, tmp_path_factory.mktemp("littered") / "site")
    write_tree(
        site,
        {
            "click/tests/test_click.py": "assert True\n" * 500,
            "click/tests/data/deep.json": "{}\n" * 2000,
            "yaml/yaml.h": "#define X\n" * 300,
            "yaml/libyaml.a": "!<arch>\n" + "x" * 9000,
            "yaml/copied.js": "some code\n" * 1000,
            "click/copied-too.js": "some code\n" * 1000,
            "click/small.js": "x",
            "yaml/small.js": "x",
        },
    )
    os.link(site / "yaml/copied.js", site / "yaml/linked.js")
    return site


@pytest.fixture(scope="module")
def of_littered(littered: Path) -> dict[str, Any]:
    """What is found of it. Shared."""
    before = describe(littered)
    found = analyzed(littered)
    assert describe(littered) == before
    return found


def needless_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [one for one in found["needless"] if name in one["name"]]
    return dict(one)


@TOGETHER
def test_what_nobody_needs_is_named(littered: Path, of_littered: dict[str, Any]) -> None:
    found = of_littered
    tests = needless_of(found, "tests")
    assert (tests["files"], tests["size"], tests["exclude"]) == (2, 500 * 12 + 2000 * 3, ["tests"])
    header = needless_of(found, "headers")
    assert (header["exclude"], header["size"]) == (
        ["*.h", "*.pyx"] if list(littered.rglob("*.pyx")) else ["*.h"],
        3000,
    ) or (header["size"] > 3000)
    assert needless_of(found, "static libraries")["size"] == 9008
    (twice,) = [one for one in found["duplicates"] if "yaml/copied.js" in one["paths"]]
    assert (twice["paths"], twice["size"], twice["wasted"]) == (
        ["click/copied-too.js", "yaml/copied.js"],
        10_000,
        10_000,
    )
    assert not [one for one in found["duplicates"] if "small" in str(one["paths"])]


@TOGETHER
@pytest.mark.slow
def test_what_is_named_is_what_exclude_leaves_out(littered: Path, of_littered: dict[str, Any], tmp_path: Path) -> None:
    """The globs, given to `pack`, take exactly the bytes that were named."""

    def packed(name: str, globs: list[str]) -> tuple[int, int]:
        path = tmp_path / f"{name}.tar.zst"
        options = [word for glob in globs for word in ("--exclude", glob)]
        done = run(wrapper("pack", littered, "-o", path, "--level", 1, "--bytecode", "keep", *options))
        assert done.returncode == 0, done.stderr
        with reader.open_archive(str(path)) as archive:
            return len(archive.toc.file_size), archive.toc.unpacked_size

    named = [one for one in of_littered["needless"] if one["exclude"]]
    assert len(named) > 2
    files, size = packed("all", [])
    for number, one in enumerate(named):
        rest = packed(f"{number}", one["exclude"])
        assert (files - rest[0], size - rest[1]) == (one["files"], one["size"]), one["name"]


@pytest.mark.skipif(not shutil.which("strip"), reason="binutils are not installed")
def test_symbols_are_what_strip_takes(tmp_path: Path) -> None:
    """The extension module of zstandard has megabytes of them; what is named is what strip takes."""
    backend = zstd_extension.find()
    assert backend
    assert backend.origin
    site = write_tree(tmp_path / "site", {"app.py": ""})
    shutil.copy(backend.origin, site / "native.so")
    before = (site / "native.so").read_bytes()
    described = source.as_is(str(site))
    (found,) = contents.needless(described, scan.scan(described))
    subprocess.run(["strip", "--strip-unneeded", "-o", tmp_path / "stripped.so", site / "native.so"], check=True)
    assert found.size == len(before) - (tmp_path / "stripped.so").stat().st_size > 100_000
    assert (site / "native.so").read_bytes() == before


@pytest.mark.slow
def test_what_is_excluded_counts_for_nothing(littered: Path) -> None:
    found = analyzed(littered, "--exclude", "tests", "--exclude", "*.js")
    assert not [one for one in found["needless"] if one["name"] == "tests"]
    assert not found["duplicates"]


# --- what is measured --------------------------------------------------------------------------


@TOGETHER
def test_figures_are_those_of_stock_tools(small: dict[str, Any], small_site: Path, tmp_path: Path) -> None:
    """They are those of what stock tools and `pack` make of the same tree."""
    done = run(wrapper("pack", small_site, "-o", tmp_path / "archive.tar.zst", "--bytecode", "keep"))
    assert done.returncode == 0, done.stderr
    packed = (tmp_path / "archive.tar.zst").stat().st_size
    measured = small["measured"]
    assert abs(measured["archive"] - packed) < 2000  # facts that pack records
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for child in sorted(small_site.iterdir()):
            tar.add(child, child.name)
    assert abs(measured["plain"]["gzip"] / len(gzip.compress(out.getvalue(), 6)) - 1) < 0.03
    blocks = sum(path.lstat().st_blocks * 512 for path in small_site.rglob("*"))
    assert abs(measured["plain"]["disk"] / blocks - 1) < 0.05
    assert measured["packed"]["gzip"] > measured["archive"] * 0.99
    assert 0 < min(measured["unpack"]) <= max(measured["unpack"])
    assert not measured["estimate"]


def test_options_of_pack_are_proposed(small_site: Path, tmp_path: Path) -> None:
    """The command packs, and the figures are those of what it packs."""
    site = tmp_path / "it's here"
    shutil.copytree(small_site, site, symlinks=True)
    tests = {f"package/tests/test_{number}.py": f"NOISE = '{os.urandom(3000).hex()}'\n" for number in range(40)}
    write_tree(site, {"package/__init__.py": "", "reader.py": "import inspect\ninspect.getsource(min)\n", **tests})
    done = python(f"""
import json
from unpackenv.report.analyze import analysis_text, analyze, page
found = analyze.analyze({str(site)!r}, analyze.Circumstances(), exclude=["*.pyi"], quick=True, propose=True)
analysis_text.show(found)
page.write({str(tmp_path / "page.html")!r}, found)
print(json.dumps(analyze.fields(found)["proposal"]))
""")
    assert done.returncode == 0, done.stderr
    *text, last_line = done.stdout.splitlines()
    proposal = json.loads(last_line)
    command = proposal["command"]
    assert text[3] == f"pack it with: {shlex.join(command)}"
    check_page((tmp_path / "page.html").read_text(), text[0].partition("verdict: ")[2], command)
    assert "reader keeps its sources, " in done.stdout
    assert command[:4] == ["unpackenv", "pack", str(site), "-o"]
    assert command[5:10] == ["--exclude", "*.pyi", "--sources", "none", "--exclude-tests"]
    *_, last = (step for step in proposal["steps"] if step["worth_it"])
    assert len(proposal["steps"]) == 3 + bool(shutil.which("strip"))
    assert all(step["start"] > 0 for step in proposal["steps"])
    archive = tmp_path / command[4]
    done = run(wrapper("pack", site, "-o", archive, *command[5:]), environment())
    assert done.returncode == 0, done.stderr
    with reader.open_archive(str(archive)) as packed:
        assert len(packed.toc.file_names) == last["files"]
    assert archive.stat().st_size == pytest.approx(last["archive"], rel=0.05)


def check_page(page: str, verdict: str, command: list[str]) -> None:
    """Verdict and command come first, each package has a rectangle that says what it is, and nothing is loaded."""
    assert f"<h1>{verdict[0].upper()}{verdict[1:]}</h1>" in unescape(page)
    assert page.index("<h1>") < page.index("<svg") < page.index("Kinds of files")
    assert f"<code>{shlex.join(command)}</code>" in unescape(page)
    described = re.findall(r"<title>(\w+): [\d.]+ \w+, in the archive [\d.]+ \w+, [\d,]+ files?</title>", page)
    assert {"package", "reader"} <= set(described)
    assert page.count("<rect ") == len(re.findall("<g><title>", page)) >= 2
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']?http""", page)


def test_a_page_needs_its_libraries() -> None:
    done = python("""
import sys
sys.modules["squarify"] = None
from unpackenv.report.analyze import page
page.write("x", None)
""")
    assert "ExtraMissing: --html: the page needs squarify, which is not installed" in done.stderr


def test_no_options_are_proposed_for_an_archive(small_archive: Path) -> None:
    done = run(wrapper("analyze", small_archive, "--propose"), environment())
    assert done.returncode == 125
    assert "--propose: takes the folder that will be packed" in done.stderr


@TOGETHER
def test_a_tiny_environment(small: dict[str, Any], small_site: Path) -> None:
    assert small["advice"]["worth_it"] is False
    assert small["advice"]["verdict"].startswith("don't: a plain image is better, there is too little to save")
    done = run(wrapper("analyze", small_site, "--quick"))  # too small for an estimate
    assert done.returncode == 0, done.stderr
    verdict, saving, times, *_ = done.stdout.splitlines()
    assert verdict.startswith("verdict: don't")
    assert saving.startswith("  ")
    assert " in the registry: " in saving
    assert times.startswith("  a pull at 1000 Mbit/s is ")
    assert "estimate" not in done.stdout
    assert "pack it with: " not in done.stdout


@pytest.fixture(scope="module")
def large_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 MB that compress well, and with zstd much better than with gzip. Shared: never write to it."""
    root = tmp_path_factory.mktemp("large") / "site"
    noise = random.Random(2)
    phrases = [noise.randbytes(3000) for _ in range(600)]  # repeats are farther apart than gzip can see
    for number in range(60):
        file = root / f"package{number % 7}" / f"data{number}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(noise.choices(phrases, k=200)))
    return root


@pytest.mark.slow
def test_quick_is_an_estimate_and_close(large_site: Path, tmp_path: Path) -> None:
    """With frames of half their size, so that half the bytes are as many of them."""
    smaller = "import unpackenv.report.analyze.measure as measure\nmeasure._FRAME //= 2\n"
    exact = f"{write_tree(tmp_path, {'sitecustomize.py': smaller})}:{environment()['PYTHONPATH']}"
    whole, quick = (analyzed(large_site, *options, PYTHONPATH=exact) for options in ([], ["--quick"]))
    assert not whole["measured"]["estimate"]
    assert quick["measured"]["estimate"]
    assert 0 < quick["measured"]["sample"] < 33 << 20
    for name in "plain", "packed":
        ratio = quick["measured"][name]["gzip"] / whole["measured"][name]["gzip"]
        assert 0.8 < ratio < 1.25, name
    assert whole["advice"]["worth_it"] == (whole["advice"]["break_even"] >= 1)
    assert whole["advice"]["saved"] > 20e6


@pytest.mark.slow
def test_link_and_containers_change_the_advice(small_site: Path) -> None:
    done = run(wrapper("analyze", small_site, "--containers", 5, "--link", 100), environment(**quickly()))
    assert re.search(r"^  pull at 100 Mbit/s", done.stdout, re.MULTILINE)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("    pull and ")]
    assert [int(row[2]) for row in rows] == [1, 5, 10]
    one, five, ten = (float(row[-2]) for row in rows)
    assert one <= five <= ten
    assert re.findall(r"^    with (\d+ containers?) on the node", done.stdout, re.MULTILINE) == [
        "1 container", "5 containers", "10 containers"
    ]  # fmt: skip


def measured_of(plain: Layer, packed: Layer, unpack: float) -> Measured:
    with_toc = {"toc": None, "archive_factor": 1.0}
    return Measured(0, plain, packed.gzip, packed, 0, [unpack], 2, **with_toc)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unpack", "link", "containers", "worth_it", "break_even"),
    [(1.0, 1000, 4, True, 4), (1.0, 1000, 5, False, 4), (1.0, 100, 5, True, 12), (10.0, 1000, 1, False, 0)],
)
def test_the_verdict_follows_from_what_is_gained(
    unpack: float, link: float, containers: int, worth_it: bool, break_even: int
) -> None:
    """100 MB less take 0.8 s less at 1 Gbit/s; the plain layer takes 4 s to unpack, the other one none."""
    measured = measured_of(Layer(200e6, 150e6, 500e6, 4.0), Layer(100e6, 100e6, 100e6, 0.0), unpack)
    found = advice.advise(measured, Circumstances(containers, link))
    assert (found.worth_it, found.break_even) == (worth_it, break_even)
    assert found.verdict.startswith("worth it" if worth_it else "don't")
    assert found.gained == pytest.approx(4.0 + 100e6 * 8 / (link * 1e6))


def test_verdict_where_nothing_is_saved() -> None:
    """Data that is compressed already, such as models and pictures."""
    measured = measured_of(Layer(300e6, 300e6, 300e6, 4.0), Layer(301e6, 301e6, 301e6, 0.5), 0.5)
    found = advice.advise(measured, Circumstances())
    assert not found.worth_it
    assert "nothing is saved" in found.reasons[0]


# --- of what -----------------------------------------------------------------------------------


@TOGETHER
def test_an_archive_is_analyzed_as_its_tree(small: dict[str, Any], small_archive: Path) -> None:
    before = small_archive.read_bytes()
    found = analyzed(small_archive)
    assert (found["kind"], found["measured"]["archive"]) == ("archive", len(before))
    assert found["packages"][0]["name"] == small["packages"][0]["name"]
    assert small_archive.read_bytes() == before


@TOGETHER
@pytest.mark.slow
def test_an_archive_of_tar(small: dict[str, Any], small_site: Path, tmp_path: Path) -> None:
    archive = tmp_path / "packages.tar.xz"
    subprocess.run(["tar", "-C", small_site.parent, "-cJf", archive, small_site.name], check=True)
    found = analyzed(archive)
    assert found["given"]["size"] == archive.stat().st_size
    assert [package["name"] for package in found["packages"]] == [package["name"] for package in small["packages"]]


@TOGETHER
@pytest.mark.parametrize("write", [saved_images.docker, saved_images.oci])
def test_an_image_is_analyzed_with_its_packages(
    small: dict[str, Any], small_site: Path, tmp_path: Path, write: Any
) -> None:
    info = "usr/lib/python3/dist-packages/thing-1.0.dist-info/METADATA"
    path = write(
        tmp_path / "image.tar", saved_images.layer((info, b"thing")), saved_images.layer(("packages", small_site))
    )
    found = analyzed(path)
    assert found["image"]["site"] == "/packages"
    assert found["image"]["sites"] == {
        "/packages": sum(files_of(small_site).values()),
        "/usr/lib/python3/dist-packages": 5,
    }
    assert {package["name"]: package["size"] for package in found["packages"]} == {
        package["name"]: package["size"] for package in small["packages"]
    }
    done = run(wrapper("analyze", path, "--site", "/nowhere"))
    assert done.returncode == 125
    assert "It has them at /packages, /usr/lib/python3/dist-packages" in done.stderr


@pytest.mark.slow
def test_a_tree_for_another_python(small_site: Path, tmp_path: Path) -> None:
    """It need not run here to be looked at."""
    site = shutil.copytree(small_site, tmp_path / "lib/python3.6/site-packages")
    (native,) = site.glob("markupsafe/_speedups.*.so")
    native.rename(native.with_name("_speedups.cpython-36m-x86_64-linux-gnu.so"))
    assert [package["name"] for package in analyzed(tmp_path)["packages"]]


@pytest.mark.slow
def test_settings_of_starts_do_not_matter(small_archive: Path, tmp_path: Path) -> None:
    variables = {"UNPACKENV_DIGEST": "0" * 64, "UNPACKENV_TARGET": tmp_path / "mine", "UNPACKENV": "off"}
    assert analyzed(small_archive, **variables)["packages"]
    assert not (tmp_path / "mine").exists()


@TOGETHER
def test_nothing_is_left(small: dict[str, Any], temporary: Path) -> None:
    assert small["measured"]["machine"]["directory"] == str(temporary)
    assert os.listdir(temporary) == []


@pytest.fixture(scope="module")
def slow_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that takes half a minute to compress. Shared."""
    chosen = random.Random(1)
    words = [chosen.randbytes(chosen.randrange(2, 9)) for _ in range(5000)]
    data = b"".join(chosen.choices(words, k=4_000_000))
    site = write_tree(tmp_path_factory.mktemp("slow"), {f"package/m{number}.py": "" for number in range(300)})
    (site / "package/data").write_bytes(data)
    return site


@pytest.mark.xdist_group("stopped")  # one process makes the tree
@pytest.mark.parametrize(
    ("moment", "signum"),
    [
        ("layer, plain.tar.gz", signal.SIGINT),
        ("layer, plain/*/m1.py", signal.SIGTERM),
        ("packed.tar.zst.*.partial", signal.SIGTERM),
    ],
)
def test_stop_signals(slow_site: Path, tmp_path: Path, moment: str, signum: signal.Signals) -> None:
    """In each step it ends before that step would be over, and nothing is left."""
    process = start(wrapper("analyze", slow_site), environment(TMPDIR=tmp_path))
    wait_for(lambda: any(tmp_path.glob(f"unpackenv-*/{moment}")), "that step")
    time.sleep(0.3)
    with sooner_than(10):
        process.send_signal(signum)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (128 + signum, ""), errors
    assert "Traceback" not in errors
    wait_for(lambda: os.listdir(tmp_path) == [], "the last temporary file to go")
    wait_for(lambda: processes_with(f"TMPDIR={tmp_path}") == [], "every process to end")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    done = run(wrapper("analyze", tmp_path))
    assert done.returncode == 125
    assert done.stderr.startswith(f"unpackenv: error: {tmp_path}: holds no files")


def test_too_little_room_is_said_before(small_site: Path, tmp_path: Path, mount: Any) -> None:
    mount("-t", "tmpfs", "-o", "size=2M", "none", tmp_path)
    done = run(wrapper("analyze", small_site), environment(TMPDIR=tmp_path))
    assert done.returncode == 125
    assert "MB free, but measuring takes" in done.stderr
    assert "TMPDIR" in done.stderr


@pytest.mark.parametrize("what", ["nowhere", "text"])
def test_what_cannot_be_analyzed(tmp_path: Path, what: str) -> None:
    (tmp_path / "text").write_text("nothing of the kind\n" * 1000)
    done = run(wrapper("analyze", tmp_path / what))
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"unpackenv: error: {tmp_path / what}: ")
    assert len(done.stderr.splitlines()) == 1


def test_at_a_terminal(small_site: Path) -> None:
    """Each step that takes a while has a bar, which is gone when what was found is printed."""
    shown = terminal.run("analyze", small_site)
    assert shown.returncode == 0, shown.raw
    for step in "layer, plain", "pack", "layer, packed", "layer, runtime", "look for needless files":
        assert step in shown.text
    assert "100%" in shown.text
    assert "verdict: " in shown.stdout
    assert "\x1b" not in shown.stdout


@pytest.mark.slow
def test_a_slow_file_system_is_reported(small_site: Path, tmp_path: Path) -> None:
    """Where making a file takes long, times say little, and a warning says so."""
    slow = "import unpackenv.report.analyze.scratch as scratch\nscratch.SLOW = 0\n"
    (tmp_path / "quickly_too.py").write_text(slow)
    done = run(wrapper("analyze", small_site), environment(**quickly(tmp_path), TMPDIR=tmp_path))
    assert "warning: making a file takes" in done.stdout
    env = environment(**quickly(tmp_path))
    del env["TMPDIR"]
    done = run(wrapper("analyze", small_site, "--json"), env)  # without TMPDIR there is a better place
    assert json.loads(done.stdout)["measured"]["machine"]["directory"] == (
        "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    )


@pytest.mark.renderer
@pytest.mark.slow
def test_a_big_environment(renderer_site: Path, renderer_python: str, tmp_path: Path) -> None:
    """The renderer's packages save much, also looked at from another Python; the rest is up to how fast it is here."""
    fewer = "import unpackenv.report.analyze.measure as measure\nmeasure._SAMPLES = measure._RUNS = 1\n"
    (tmp_path / "sitecustomize.py").write_text(fewer)
    found = analyzed(renderer_site, "--quick", "--exclude", "validators", **quickly(tmp_path))
    sizes = {package["name"]: package for package in found["packages"]}
    assert list(sizes)[:4] == ["kaleido", "plotly", "numpy", "pandas"]
    assert 80e6 < found["measured"]["archive"] < 140e6
    assert 10e6 < found["advice"]["saved"] < 60e6
    assert found["advice"]["worth_it"] == (found["advice"]["break_even"] >= 1)
    assert needless_of(found, "tests")["size"] > 20e6
    assert sum(one["wasted"] for one in found["duplicates"]) > 7e6
