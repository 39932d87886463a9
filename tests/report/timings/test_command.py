"""`unpackenv timings` from end to end: on a terminal, in a pipe, as JSON, and when it cannot."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import terminal, timing_logs
from helpers.processes import python, run, start, wrapper
from helpers.timing_logs import error, fetched, filled, killed
from rig.environment import PATIENCE, environment
from rig.sites import pack_tree, write_tree
from unpackenv.pack import runtime
from unpackenv.report.timings.words import PHASES, UNTIL_FAILED

PROJECT = Path(__file__).resolve().parents[3]


def timings(*arguments: object, stdin: str = "", **variables: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unpackenv", "timings", *arguments]
    return run(command, environment(**{"PYTHONUTF8": 1, **variables}), stdin=stdin)


def test_in_a_pipe(log_of_all: Path) -> None:
    done = timings(log_of_all)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "63 starts, 2023-11-14 22:13:20 to 22:14:39 UTC: 20 unpacked, 20 waited, 20 reused, 3 failed."
    assert [re.split(r"  +", line.strip())[:6] for line in lines if line.startswith("  unpacked")][:2] == [
        ["unpacked", "20", "560", "880", "960", "█████▋"],
        ["unpacked", "check", "5.0", "5.0", "▏", PHASES["check"].meaning],
    ]
    assert "\x1b" not in done.stdout
    bars = {line.split()[0]: line.count("█") for line in lines[4:8]}
    assert bars["unpacked"] == round(20 * 560 / 2000 - 0.5)  # of the longest p90: the failed starts'
    assert bars["reused"] == 0
    assert re.search(r"failed +2,000  another start, which held the lock: 1,990 ms \(100%\)", done.stdout)
    assert re.search(r"no-space +2  /target: does not fit +Make room", done.stdout)


def test_files_behind_the_application(tmp_path: Path) -> None:
    """Tables and JSON say the same."""
    start = timing_logs.start
    records = [
        start("named", 400), filled(1000, ("a.so", 90), ("b.py", 7)), start("joined", 4),
        start("named", 500), filled(1400), start("unpacked", fill_why="too few files may be open"), killed("no room"),
    ]  # fmt: skip
    log = timing_logs.write(tmp_path / "x.log", records)
    shown = timings(log).stdout
    assert "4 starts" in shown.splitlines()[0]
    assert ": 1 unpacked, 2 named, 1 joined. 1 application was killed, since files" in shown.splitlines()[0]
    for row in (
        "until all files were filled, ms +2 +1,000 +1,400",
        "opens that waited +2 +0 +2",
        "how long these waited together, ms +2 +0.0 +97.0",
        "a.so +1 +90.0",
        "b.py +1 +7.0",
        "too few files may be open +1",
        "tree-unfilled +1  /opt/unpackenv/env/abc: no room +Start again",
    ):
        assert re.search(rf"^  {row}", shown, re.MULTILINE), (row, shown)
    found = json.loads(timings(log, "--json").stdout)
    assert found["filled"]["milliseconds"] == {"count": 2, "p50": 1000, "p90": 1400, "p99": 1400, "largest": 1400}
    assert found["filled"]["longest"] == [{"path": "a.so", "count": 1, "ms": 90}, {"path": "b.py", "count": 1, "ms": 7}]
    assert (found["filled"]["waits"]["largest"], found["filled"]["waited_ms"]["largest"]) == (2, 97)
    assert found["filled_before"] == [{"why": "too few files may be open", "count": 1}]
    assert (found["killed"], found["failures"][0]["last"]["line"]) == (1, f"{log}:7")
    plain = timing_logs.write(tmp_path / "plain.log", [start()])
    assert "filled" not in timings(plain).stdout
    assert json.loads(timings(plain, "--json").stdout)["filled"] is None


def test_what_was_fetched(tmp_path: Path) -> None:
    """Tables and JSON say the same, and say nothing where every archive was there."""
    start = timing_logs.start
    records = [start(fetched=fetched(90 + each, 150, retries=each)) for each in range(6)]
    records += [start("named", fetched=fetched(1, 5)), filled(fetched=fetched(92.25, 700, cached=7_000_000)), start()]
    before = [start(fetched=fetched(10, 20)) for _ in range(6)]
    log, earlier = timing_logs.write(tmp_path / "x.log", records), timing_logs.write(tmp_path / "y.log", before)
    shown = timings(log, "--compare", earlier).stdout
    for row in (
        "unpacked  MB that were fetched +6 +92\\.0 +95\\.0",
        "unpacked  requests +6 +12 +12",
        "unpacked  requests that were tried again +6 +2 +5",
        "unpacked  how long workers waited for it together, ms +6 +150 +150",
        "named +MB that were fetched +1 +1\\.0 +1\\.0",
        "filled +MB from the cache +1 +7\\.0 +7\\.0",
        r"unpacked  MB that were fetched +6, 6 +10\.0 \(10\.0–10\.0\) +92\.0 \(90\.0–95\.0\) +\+82\.0 +\+820% +more",
        r"unpacked  how long workers .* ms +6, 6 +20\.0 \(20\.0–20\.0\) +150 \(150–150\) +\+130 +\+650% +more",
    ):
        assert re.search(rf"^  {row}", shown, re.MULTILINE), (row, shown)
    assert not re.search("^  (unpacked|named) +MB from the cache", shown, re.MULTILINE)
    assert shown.count("the network: 75 ms (75%), for 9") == 6
    found = json.loads(timings(log, "--compare", earlier, "--json").stdout)
    assert found["outcomes"]["unpacked"]["fetched"]["bytes"]["p50"] == 92_000_000
    assert found["outcomes"]["unpacked"]["fetched"]["retries"]["largest"] == 5
    assert found["filled"]["fetched"]["cached"]["count"] == 1
    assert sorted(each["fetched"]["requests"] for each in found["slowest"] if each["fetched"]) == [12] * 7
    assert {each["part"]: each["verdict"] for each in found["fetched_changes"]}["bytes"] == "more"
    assert [each["phase"] for each in found["changes"]] == [None, "check", "unpack", "publish"]
    plain = timing_logs.write(tmp_path / "plain.log", [start(), filled()])
    assert "What was fetched" not in timings(plain, "--compare", plain).stdout
    found = json.loads(timings(plain, "--compare", plain, "--json").stdout)
    assert (found["outcomes"]["unpacked"]["fetched"], found["filled"]["fetched"]) == ({}, {})
    assert found["fetched_changes"] == []


def test_a_terminal_that_knows_no_blocks(log_of_all: Path) -> None:
    done = timings(log_of_all, PYTHONIOENCODING="ascii", PYTHONUTF8=0)
    assert done.returncode == 0
    assert "####" in done.stdout
    assert "\\u" not in done.stdout


def test_on_a_terminal(log_of_all: Path) -> None:
    shown = terminal.screen("timings", log_of_all, "--compare", log_of_all, columns=150)
    assert "\x1b[34munpacked\x1b[0m" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    for title in (
        "How long starts took, in milliseconds",
        "The slowest starts",
        "Starts that failed, applications that were killed",
        "Before and after",
    ):
        assert title in plain
    assert re.search(r"unpacked +20 +560 +880 +960 +█+", plain)
    assert re.search(r"reused +the whole start +20, 20 +3\.9 .*\+0\.0 +\+0% +within noise", plain)


def test_words_that_look_like_markup_or_control_a_terminal(tmp_path: Path) -> None:
    path = timing_logs.write(tmp_path / "x.log", [error("[red]reason", where="/srv/[bold]x[/nothing]\x1b[2J")])
    shown = terminal.screen("timings", path, columns=150)
    assert "/srv/[bold]x[/nothing]\N{REPLACEMENT CHARACTER}[2J" in shown
    assert "\x1b[2J" not in shown


def test_of_few_starts_only_what_says_something(tmp_path: Path) -> None:
    """The p90 of two starts is the slower one, and nothing else."""
    for count, heads in (
        (2, ["p50", "slowest"]),
        (10, ["p50", "p90", "slowest"]),
        (100, ["p50", "p90", "p99", "slowest"]),
    ):
        records = [timing_logs.start("unpacked", 100 + number, pid=number) for number in range(count)]
        log = timing_logs.write(tmp_path / "x.log", [*records, *(timing_logs.mark(pid=pid) for pid in range(count))])
        shown = timings(log).stdout
        head = next(line for line in shown.splitlines() if line.startswith("  outcome"))
        assert head.split()[1 : 2 + len(heads)] == ["starts", *heads]
        assert ("process p90" in shown) == (count >= 10)
        found = json.loads(timings(log, "--json").stdout)["outcomes"]["unpacked"]
        assert (found["count"], found["p99"]) == (count, found["largest"] - (count == 100))


def test_json_has_what_the_tables_say(log_of_all: Path, tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text(json.dumps(timing_logs.events()))
    done = timings("-", "--compare", log_of_all, "--trace", tmp_path / "trace.json", "--json",
                   stdin="something else\n" + log_of_all.read_text() + '{"unpackenv": "start", "sch')  # fmt: skip
    found = json.loads(done.stdout)
    assert found["lines_left_out"] == {"other": 1, "cut_off": 1, "unclear": 0, "later_version": 0}
    assert (found["starts"], found["percentiles"]) == (63, "nearest rank")
    unpacked = found["outcomes"]["unpacked"]
    assert [unpacked[name] for name in ("count", "p50", "p99")] == [20, 560, 960]
    assert unpacked["phases"]["lock"]["p90"] == 12
    assert found["slowest"][0]["waited_for"] == "another start, which held the lock: 1,990 ms (100%)"
    assert found["slowest"][0]["where"] == "stdin:84"
    assert [(each["reason"], each["count"]) for each in found["failures"]] == [("no-space", 2), ("lock-timeout", 1)]
    assert found["marks"][0]["process"]["p50"] == 860
    assert {each["verdict"] for each in found["changes"]} == {"within noise", "too few starts to tell"}
    assert found["changes"][0]["before"] == found["changes"][0]["after"] == {
        "count": 20, "value": 560, "range": [400, 760],
    }  # fmt: skip
    assert {worker: len(spans) for worker, spans in found["trace"].items()} == {
        "start": 2,
        "worker 0": 13,
        "worker 1": 12,
    }
    assert found["trace"]["worker 0"][1] == {"step": "read", "detail": "frame 0", "start": 3, "duration": 1.5}


def test_a_trace_on_a_terminal(log_of_all: Path, tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text(json.dumps(timing_logs.events()))
    done = timings(log_of_all, "--trace", tmp_path / "trace.json")
    assert re.search(r"worker +check +fork +open +read +verify +decode +write +fetch  all of it, as a bar", done.stdout)
    assert re.search(r"start +1\.0 +32\.0 +█{20}", done.stdout)
    assert re.search(r"worker 1 +3\.0 +4\.5 +4\.5 +4\.5 +1\.5  █{10}", done.stdout)
    assert "The trace lasts 33.0 ms" in done.stdout


def test_lines_for_people_are_named_as_such(log_of_all: Path, tmp_path: Path) -> None:
    """As in a log of containers of which some were switched to JSON."""
    mixed = tmp_path / "mixed.log"
    mixed.write_text(log_of_all.read_text() + "unpackenv: reused 5 files, 0.1 MB, at /a in 1.0 ms\nanother program\n")
    left_out = timings(mixed).stdout.partition("Lines left out: ")[2].partition("\n")[0]
    assert left_out.startswith("1 are of UNPACKENV_LOG=text, ")
    others = json.loads(timings(log_of_all, "--json").stdout)["lines_left_out"]["other"]
    assert f", {others + 1} are not of unpackenv" in left_out


def test_opens_that_waited_have_rows_of_their_own(log_of_all: Path, tmp_path: Path) -> None:
    """Those that waited at the same time are side by side."""
    trace = timing_logs.events()
    assert isinstance(trace["traceEvents"], list)
    for number, (begin, end) in enumerate([(1000, 5000), (2000, 3000), (6000, 9000)]):
        for kind, at in ("b", begin), ("e", end):
            wait = {"ph": kind, "name": "wait", "cat": "open", "pid": 30, "tid": 30, "id": f"1.{number}"}
            trace["traceEvents"].append({**wait, "ts": 5_000_000 + at, "args": {"path": f"module{number}.py"}})
    (tmp_path / "trace.json").write_text(json.dumps(trace))
    found = json.loads(timings(log_of_all, "--trace", tmp_path / "trace.json", "--json").stdout)["trace"]
    rows = {name: [(span["detail"], span["start"], span["duration"]) for span in found[name]] for name in found}
    assert rows["opens that wait"] == [("path module0.py", 1, 4), ("path module2.py", 6, 3)]
    assert rows["opens that wait (1)"] == [("path module1.py", 2, 1)]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[1]", '{"traceEvents": [{"ph": "X", "ts": "now", "pid": 1}]}', "\0", '[{"ph": "M"}]']
)
def test_what_is_no_trace(log_of_all: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "trace.json").write_text(content)
    done = timings(log_of_all, "--trace", tmp_path / "trace.json")
    assert done.returncode == 125
    assert "trace.json: is not a trace of a start. UNPACKENV_TRACE names the file" in done.stderr


def test_nothing_to_compare(log_of_all: Path, tmp_path: Path) -> None:
    other = timing_logs.write(tmp_path / "other.log", [timing_logs.start("off", 0, phases={})])
    assert "No outcome is in both logs." in timings(log_of_all, "--compare", other).stdout


def test_what_cannot_be_read(tmp_path: Path, log_of_all: Path) -> None:
    (tmp_path / "text.log").write_text("unpackenv: reused 10 files in 3 ms\n")
    done = timings(tmp_path / "text.log")
    assert (done.returncode, done.stdout) == (125, "")
    assert "text.log: no start is in 1 line. Set UNPACKENV_LOG=json" in done.stderr
    assert "absent.log: No such file or directory" in timings(tmp_path / "absent.log").stderr
    assert timings(log_of_all, "--html", tmp_path / "nowhere" / "page.html").returncode == 125
    assert timings().returncode == 2


def test_real_starts_are_read_as_they_were(tmp_path: Path) -> None:
    """A cold one, warm ones, a crowd that wants one target, and one that fails, in the order in which they ended."""
    archive, log = tmp_path / "packages.tar.zst", tmp_path / "starts.log"
    pack_tree(archive, write_tree(tmp_path / "tree", {f"module_{number}.py": "x = 1\n" * 99 for number in range(50)}))
    code = "import unpackenv; unpackenv.bootstrap(); unpackenv.mark('ready')"
    began = time.time()
    settings = {"UNPACKENV_ARCHIVE": archive, "UNPACKENV_LOG": "json"}
    written = ""
    for _ in range(3):
        env = environment(**settings, UNPACKENV_TARGET=tmp_path / "a", UNPACKENV_TRACE=tmp_path / "trace.json")
        done = python(code, env)
        assert done.returncode == 0, done.stderr
        written += "app-1  | the application says something\n" + done.stderr
    crowd = [start(wrapper("--", "true"), environment(**settings, UNPACKENV_TARGET=tmp_path / "b")) for _ in range(4)]
    written += "".join(process.communicate(timeout=PATIENCE)[1] for process in crowd)
    failed = run(wrapper("--", "true"), environment(**settings, UNPACKENV_DIGEST="0" * 64))
    assert failed.returncode == 125
    log.write_text(written + failed.stderr)
    found = json.loads(timings(log, "--trace", tmp_path / "trace.json", "--json").stdout)
    assert found["lines_left_out"] == {"other": 3, "cut_off": 0, "unclear": 0, "later_version": 0}
    outcomes = {outcome: figures["count"] for outcome, figures in found["outcomes"].items()}
    assert outcomes.pop("unpacked") == 2
    assert outcomes.pop("error") == 1
    assert outcomes["reused"] >= 2
    assert sum(outcomes.values()) == 5
    for outcome in ("unpacked", "reused"):
        figures = found["outcomes"][outcome]
        assert 0 < figures["phases"]["check"]["p50"] < figures["p50"] < (time.time() - began) * 1e3
    assert {phase for figures in found["outcomes"].values() for phase in figures["phases"]} <= {
        *PHASES,
        UNTIL_FAILED.name,
    }
    assert {"lock", "open", "unpack", "publish"} <= found["outcomes"]["unpacked"]["phases"].keys()
    assert [each["reason"] for each in found["failures"]] == ["digest-mismatch"]
    assert [(each["name"], each["outcome"], each["process"]["count"]) for each in found["marks"]] == [
        ("ready", "unpacked", 1), ("ready", "reused", 2),
    ]  # fmt: skip
    steps = {worker: {span["step"] for span in spans} for worker, spans in found["trace"].items()}
    assert steps.pop("start") == {"check", "lock", "fork"}
    assert {"open", "read", "verify", "decode", "write", "publish"} <= set().union(*steps.values())
    first = steps["worker 0"]  # its phase consists of what it did; on a busy machine the other one may do it all
    assert ("unpack" in first) != ("decode" in first)
    assert began < found["last"] < log.stat().st_mtime


def test_the_help_names_every_option() -> None:
    shown = run([sys.executable, "-m", "unpackenv", "timings", "--help"], environment(COLUMNS=100)).stdout
    for option in ("--compare FILE", "--trace FILE", "--html OUT", "--json", "UNPACKENV_LOG=json"):
        assert option in shown
    assert "read the timing logs of many starts" in run([sys.executable, "-m", "unpackenv", "--help"]).stdout


def test_a_runtime_without_reports(tmp_path: Path) -> None:
    """It has the other commands, and does not offer what it lacks."""
    at = runtime.write(str(tmp_path / "runtime"), "xz").path
    shown = run([sys.executable, "-S", "-m", "unpackenv", "--help"], environment(PYTHONPATH=at)).stdout
    assert "inspect" in shown
    assert "timings" not in shown


def test_what_the_document_says(tmp_path: Path, log_of_all: Path) -> None:
    """Every command of docs/timings.md, in a shell; what containers would have logged comes from a file."""
    document = (PROJECT / "docs" / "timings.md").read_text()
    commands = re.findall(r"^    (.*\bunpackenv timings .*)$", document, re.MULTILINE)
    assert len(commands) == 5
    for name in ("before.log", "after.log"):
        (tmp_path / name).write_text(log_of_all.read_text())
    (tmp_path / "trace.json").write_text(json.dumps(timing_logs.events()))
    around = (
        f'docker() {{ cat starts.log; }}\nunpackenv() {{ "{sys.executable}" -m unpackenv "$@"; }}\nset -e -o pipefail\n'
    )
    done = run(["bash", "-c", around + "\n".join(commands)], environment(PYTHONUTF8=1), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("63 starts") == len(commands)
    assert "within noise" in done.stdout
    assert "The workers of one start" in (tmp_path / "starts.html").read_text()
    assert all((PROJECT / "docs" / picture).exists() for picture in re.findall(r"!\[.*\]\((.*)\)", document))
