"""What people see of files that are filled behind the application: the log, `prune`, `doctor`, `verify`, `unpack`."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.held_fills import Held, is_awaited
from helpers.processes import processes_with, python, run, start, wait_for, wrapper
from helpers.starts import boot_code
from helpers.support import leftovers
from rig.environment import PATIENCE
from rig.sites import members_of, pack, pack_tree
from unpackenv.start import locations, stamp


def end_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    return process.communicate(timeout=PATIENCE)


def size_of(site: Path) -> int:
    return sum(path.stat().st_size for path in site.rglob("*") if path.is_file())


# --- the log -------------------------------------------------------------------------------------


def test_small_files_are_there_at_once(held: Held, site: Path, tmp_path: Path) -> None:
    """They are written with their names, if the archive has them in frames of their own."""
    (site / "large.bin").write_bytes(bytes(5000))
    done = run(wrapper("pack", site, "-o", tmp_path / "packed", "--level", 1, "--fill", "behind"))
    assert done.returncode == 0, done.stderr
    process = held.named("sleep", 1200, UNPACKENV_ARCHIVE=tmp_path / "packed")
    small = [path for path in site.rglob("*") if path.is_file() and path.stat().st_size <= 4096]
    assert len(small) > 2
    for path in small:
        assert (held.target / path.relative_to(site)).read_bytes() == path.read_bytes()
    assert (held.target / "large.bin").stat().st_blocks == 0
    assert stamp.state_of(str(held.target)) == stamp.FILLING
    held.go()
    assert (held.target / "large.bin").read_bytes() == bytes(5000)
    process.kill()


def test_a_fact_that_is_no_number_counts_nothing(held: Held, site: Path, tmp_path: Path) -> None:
    pack(
        tmp_path / "packed",
        members_of(site),
        facts={"python": [sys.implementation.cache_tag], "first": ["many"], "small": ["-1"]},
    )
    held.named("sleep", 1200, UNPACKENV_ARCHIVE=tmp_path / "packed")


def test_named_and_filled(held: Held, site: Path) -> None:
    """An application that opens one file, and lives until all are filled."""
    code = f"open({str(held.target / 'package/data.txt')!r}).read(); import time; time.sleep(1200)"
    process = held.named(sys.executable, "-c", code)
    wait_for(lambda: is_awaited(held.target / "package/data.txt"), "the open", process)
    time.sleep(0.2)
    assert held.lines("filled") == []
    held.go()
    wait_for(lambda: held.lines("filled"), "the fill", process)
    process.kill()
    _, stderr = end_of(process)
    (named,), (filled,) = held.lines("start"), held.lines("filled")
    assert (named["fill"], named["fill_why"]) == ("behind", None)
    assert "unpack" not in named["phases"]
    assert named["phases"]["names"] > 0
    assert (filled["pid"], filled["host"], filled["target"]) == (process.pid, named["host"], str(held.target))
    assert (filled["files"], filled["size"]) == (5, size_of(site))
    assert filled["process_ms"] >= named["process_ms"] + 190
    assert filled["milliseconds"] > 190
    assert filled["waits"] >= 1
    assert {each["path"] for each in filled["longest"]} == {"package/data.txt"}
    assert 100 < filled["longest"][0]["ms"] <= filled["waited_ms"]
    shown = r"unpackenv: named 5 files, 0\.0 MB, at TARGET in [\d.]+ ms by \d workers? \(.*names \d+.*\); "
    shown += r"filling them behind the application\n"
    shown += r"unpackenv: filled 5 files, 0\.0 MB, at TARGET in [\d.]+ ms; (1 open|\d+ opens) waited \d+ ms"
    shown += r"(, | together, longest \d+ ms )for package/data\.txt\n"
    assert re.fullmatch(shown.replace("TARGET", re.escape(str(held.target))), stderr), stderr


def test_no_open_waited(held: Held) -> None:
    process = held.named("sleep", 1200)
    held.go()
    wait_for(lambda: held.lines("filled"), "the fill", process)
    process.kill()
    assert end_of(process)[1].endswith(" ms; no open waited\n")
    (filled,) = held.lines("filled")
    assert (filled["waits"], filled["waited_ms"], filled["longest"]) == (0, 0, [])


def test_lines_on_stderr_are_as_those_of_the_start(held: Held, tmp_path: Path) -> None:
    """In any order: little may be filled before the start has written its line."""
    for form, expected in (("json", ["filled", "start"]), ("off", [])):
        log = tmp_path / f"log.{form}"
        process = held.start("sleep", 1200, UNPACKENV_LOG=form, UNPACKENV_LOG_FILE=log)
        held.go()
        held.log = log
        wait_for(lambda: held.lines("filled"), "the fill", process)
        process.kill()
        assert sorted(json.loads(line)["unpackenv"] for line in end_of(process)[1].splitlines()) == expected
        subprocess.run(["rm", "-r", held.target], check=True)


def test_a_start_that_joins(held: Held) -> None:
    first = held.named("sleep", 1200)
    second = held.start("sleep", 1200)
    wait_for(lambda: len(held.lines("start")) == 2, "the second start", second)
    joined = held.lines("start")[1]
    assert (joined["outcome"], joined["pid"], joined["fill"], joined["workers"]) == ("joined", second.pid, None, 0)
    held.go()
    wait_for(lambda: held.lines("filled"), "the fill", first)
    assert [line["pid"] for line in held.lines("filled")] == [first.pid]
    wait_for(lambda: stamp.state_of(str(held.target)) == stamp.COMPLETE, "the stamp")
    end_of(held.start("true"))
    assert held.lines("start")[2]["outcome"] == "reused"
    first.kill()
    second.kill()
    end_of(first)
    text = rf"unpackenv: joined 5 files, 0\.0 MB, at {held.target} in [\d.]+ ms \(.*\); another start is filling them\n"
    assert re.fullmatch(text, end_of(second)[1])


@pytest.mark.parametrize("form", ["text", "json", "off"])
def test_applications_that_are_killed(held: Held, form: str) -> None:
    """The one that made the tree, and the one that joined it."""
    first = held.named("sleep", 1200, FAILS="yes", UNPACKENV_LOG=form)
    second = held.start("sleep", 1200, UNPACKENV_LOG=form)
    wait_for(lambda: len(held.lines("start")) == 2, "the second start", second)
    held.go()
    said = [end_of(process)[1].splitlines() for process in (first, second)]
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, -signal.SIGKILL)
    wait_for(lambda: len(held.lines("killed")) == 2, "the lines")
    killed = held.lines("killed")
    assert {line["pid"] for line in killed} == {first.pid, second.pid}
    for line in killed:
        assert (line["reason"], line["where"]) == ("tree-unfilled", str(held.target))
        assert line["what"].startswith("cannot be filled, so its application was killed: ")
        assert "no space left" in line["what"].lower()
        assert line["hint"] == "Start again: the tree is unpacked again"
    if form == "json":
        assert [[json.loads(line)["unpackenv"] for line in lines] for lines in said] == [["start", "killed"]] * 2
    else:
        assert all(lines[-1].startswith(f"unpackenv: error: {held.target}: cannot be filled") for lines in said)
    assert held.lines("filled") == []


def test_why_files_are_filled_before(held: Held, tmp_path: Path) -> None:
    held.go()
    run(wrapper("--fill", "behind", "--sync", "--", "true"), held.env)
    (line,) = held.lines("start")
    assert (line["outcome"], line["fill"], line["fill_why"]) == ("unpacked", "before", "the tree is to be synced first")
    run(wrapper("--fill", "before", "--target", tmp_path / "other", "--", "true"), held.env)
    assert (held.lines("start")[1]["fill"], held.lines("start")[1]["fill_why"]) == ("before", None)


def test_timings_reads_them(held: Held) -> None:
    process = held.named(sys.executable, "-c", f"open({str(held.target / 'app.py')!r}); import time; time.sleep(1200)")
    wait_for(lambda: is_awaited(held.target / "app.py"), "the open", process)
    held.go()
    wait_for(lambda: held.lines("filled"), "the fill", process)
    process.kill()
    end_of(process)
    found = json.loads(run(wrapper("timings", held.log, "--json")).stdout)
    assert found["lines_left_out"] == {"other": 0, "cut_off": 0, "unclear": 0, "later_version": 0}
    assert list(found["outcomes"]) == ["named"]
    assert found["filled"]["milliseconds"]["largest"] == pytest.approx(held.lines("filled")[0]["milliseconds"])
    assert [each["path"] for each in found["filled"]["longest"]] == ["app.py"]


# --- pipes ---------------------------------------------------------------------------------------


def test_readers_of_an_application_do_not_wait_for_the_fill(held: Held) -> None:
    """Its pipes end with it, though its files are still being filled; the tree is filled to the end all the same."""
    process = held.start("echo", "done")
    assert end_of(process)[0] == "done\n"
    assert held.processes()
    assert stamp.state_of(str(held.target)) == stamp.FILLING
    held.go()
    wait_for(lambda: not held.processes(), "the end of the fill")
    assert stamp.state_of(str(held.target)) == stamp.COMPLETE
    assert leftovers(held.target) == []


def test_an_application_may_close_its_output(held: Held) -> None:
    for process in (
        held.named("sh", "-c", "exec >&-; exec sleep 1200"),
        held.start("sh", "-c", "exec >&-; exec sleep 9"),
    ):
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        assert poll.poll(8_000), "somebody else has it open"


def test_readers_of_one_that_joined_do_not_wait_either(held: Held) -> None:
    first = held.named("sleep", 1200)
    assert end_of(held.start("echo", "done"))[0] == "done\n"
    first.kill()
    end_of(first)
    assert held.processes()


# --- prune, doctor, verify, unpack ----------------------------------------------------------------


def unfinished(held: Held) -> None:
    """Leave a tree whose fillers were killed, and the application before them."""
    process = held.named("sleep", 1200)
    process.kill()
    end_of(process)
    held.kill_all()
    wait_for(lambda: stamp.state_of(str(held.target)) == stamp.UNFINISHED, "the end of the processes")
    assert (held.target / stamp.NAME).exists()


@pytest.fixture
def cache(target: Path) -> Path:
    (target.parent / locations.CACHE_TAG).write_text("unpackenv")
    return target.parent


def prune(cache: Path) -> str:
    return run(wrapper("prune", "--older-than", "0", cache)).stdout


def test_prune_leaves_what_is_being_filled(held: Held, cache: Path) -> None:
    """Also if no application uses it any more."""
    end_of(held.start("true"))
    assert re.fullmatch(rf"{held.target}: in use, [\d.]+ (bytes|kB)\n", prune(cache))
    held.go()
    wait_for(lambda: not held.processes(), "the end of the fill")
    assert re.fullmatch(rf"{held.target}: removed, [\d.]+ (bytes|kB)\n", prune(cache))


def test_prune_removes_what_was_not_filled_to_its_end(held: Held, cache: Path) -> None:
    unfinished(held)
    assert prune(cache) == f"{held.target}: removed what a killed start left\n"
    assert not held.target.exists()


def test_to_ask_for_the_state_is_no_use(held: Held) -> None:
    held.go()
    end_of(held.start("true"))
    wait_for(lambda: not held.processes(), "the end of the fill")
    os.utime(held.target / stamp.NAME, (1_000_000, 2_000_000))
    assert stamp.state_of(str(held.target)) == stamp.COMPLETE
    assert (held.target / stamp.NAME).stat().st_atime == 1_000_000


def doctor(held: Held, *arguments: object) -> dict[str, Any]:
    done = run(wrapper("doctor", "--json", *arguments), {**held.env, "DOCTOR": str(held.target)})
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_doctor_neither_joins_nor_waits(held: Held) -> None:
    process = held.named("sleep", 1200)
    for option, expected in (("behind", "a start joins it"), ("before", "a start waits until it is whole")):
        found = doctor(held, "--fill", option)
        trees = [one for one in found["findings"] if one["topic"] == "tree"]
        assert [one["level"] for one in trees] == ["ok", "note"]
        assert f"{held.target}: its files are being filled behind an application; {expected}" in trees[1]["text"]
        assert trees[1]["facts"]["state"] == "filling"
        assert found["summary"].startswith(f"A start here takes the tree that is at {held.target}: 0 problems")
    assert processes_with(f"DOCTOR={held.target}") == []
    process.kill()
    end_of(process)


def test_the_doctor_says_what_was_not_filled_to_its_end(held: Held) -> None:
    unfinished(held)
    found = doctor(held)
    (tree,) = [one for one in found["findings"] if one["topic"] == "tree"]
    assert tree["text"].endswith("goes on with it, another one unpacks it again")
    assert tree["facts"]["state"] == "unfinished"
    assert found["summary"].startswith(f"A start here unpacks to {held.target}")
    stamp.unfinish(str(held.target))
    (tree,) = [one for one in doctor(held)["findings"] if one["topic"] == "tree"]
    assert tree["text"] == f"{held.target}: is unfinished; a start unpacks it again"


@pytest.mark.parametrize("fails", ["no", "yes"])
def test_verify_waits_until_a_tree_is_whole(held: Held, fails: str) -> None:
    process = held.named("sleep", 1200, FAILS=fails)
    verify = start(wrapper("verify", held.archive, "--target", held.target))
    time.sleep(0.5)
    assert verify.poll() is None
    held.go()
    stdout, stderr = end_of(verify)
    if fails == "no":
        assert (verify.returncode, stdout, stderr) == (0, f"{held.target}: complete and unaltered\n", "")
        process.kill()
    else:
        assert (verify.returncode, stdout) == (125, "")
        assert "nobody fills it any more" in stderr
    end_of(process)


def test_verify_is_not_misled_by_a_file_that_is_being_written(held: Held, site: Path, tmp_path: Path) -> None:
    """It has the time of the write until its own is set again."""
    for path in site.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    old = tmp_path / "old.tar.zst"
    pack_tree(old, site)
    process = held.named("sleep", 1200, FAILS="late", UNPACKENV_ARCHIVE=old)
    held.go()
    files = [held.target / path.relative_to(site) for path in site.rglob("*") if path.is_file()]
    wait_for(lambda: any(path.stat().st_mtime > 1_600_000_000 for path in files), "a write", process)
    verify = start(wrapper("verify", old, "--target", held.target))
    time.sleep(0.7)
    (tmp_path / "go.on").touch()
    assert end_of(verify) == (f"{held.target}: complete and unaltered\n", "")
    process.kill()
    end_of(process)


@pytest.mark.parametrize("how", ["unpack", "threads"])
def test_unpack_waits_until_a_tree_is_whole(held: Held, how: str) -> None:
    """So does an application that has several threads: nobody could watch it."""
    process = held.named("sleep", 1200)
    if how == "unpack":
        waiting = start(wrapper("unpack", held.archive, "-C", held.target), held.env)
    else:
        threads = "import threading, time; threading.Thread(target=time.sleep, args=(1200,), daemon=True).start()\n"
        waiting = start([sys.executable, "-c", threads + boot_code(held.archive, held.target)], held.env)
    time.sleep(0.7)
    assert waiting.poll() is None
    held.go()
    _, stderr = end_of(waiting)
    assert waiting.returncode == 0, stderr
    waited = held.lines("start")[1]
    assert (waited["outcome"], waited["workers"], waited["fill"]) == ("waited", 0, None)
    assert waited["milliseconds"] > 100
    process.kill()
    end_of(process)
    assert "complete and unaltered" in run(wrapper("verify", held.archive, "--target", held.target)).stdout


def test_unpack_does_not_wait_for_ever(held: Held) -> None:
    process = held.named("sleep", 1200)
    done = run(wrapper("unpack", held.archive, "-C", held.target, "--lock-timeout", "0.3"), held.env)
    assert done.returncode == 125
    assert "has been filling it for longer than 0.3 s" in done.stderr
    assert held.lines("error")[0]["reason"] == "lock-timeout"
    process.kill()
    end_of(process)


Mount = Callable[..., None]


@pytest.mark.parametrize("where", ["sibling", "mount root"])
def test_a_tree_that_was_not_filled_to_its_end_is_unpacked_again(held: Held, where: str, mount: Mount) -> None:
    if where == "mount root":
        held.target.mkdir()
        mount("-t", "tmpfs", "none", held.target)
    unfinished(held)
    done = python(boot_code(held.archive, held.target, "print(report.outcome)", fill="before"))
    assert done.stdout == "unpacked\n", done.stderr
    assert "complete and unaltered" in run(wrapper("verify", held.archive, "--target", held.target)).stdout
    assert leftovers(held.target) == []
