"""Computations of the parts, and their use of unpackenv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench
from measure import Usage
from parts import PARTS, common, scaling, steps
from rig import freshfs
from rig.environment import environment
from rig.sites import pack_tree, write_tree

SITE = {f"package/module{number}.py": f"VALUE = {number}\n" for number in range(40)}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "site-packages.tar.zst"
    pack_tree(path, write_tree(tmp_path / "site", SITE))
    return path


def test_ratios_are_taken_within_a_round() -> None:
    values = {
        "unpackenv, zstd": {0: 1.0, 1: 4.0, 2: 3.0, 3: 8.0},
        "tar": {0: 2.0, 1: 4.0, 2: 30.0},
        "shiv": {0: 4.0, 3: 16.0, 6: 1.0},
    }
    assert common.compared(values, "unpackenv, zstd", "tar") == 0.5
    assert common.compared(values, "unpackenv, zstd", "shiv") == 0.375
    assert common.compared(values, "unpackenv, zstd", "unzip") is None
    assert common.difference(values, "tar", "unpackenv, zstd") == 1.0
    assert common.ratio_table(values)[1].splitlines()[-2:] == ["| tar | 0.500 |", "| shiv | 0.375 |"]


def test_the_steps_of_a_start_are_taken_one_by_one(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "target").mkdir()
    command = [sys.executable, steps._STEPS, archive, tmp_path / "target"]
    began = time.monotonic()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    found = json.loads(done.stdout)
    assert found["files"] == len(SITE)
    assert found["members"] == len(SITE) + 1  # and its directory
    assert found["frames"] > 1
    assert len(os.listdir(tmp_path / "target" / "package")) == len(SITE)
    assert {name for name, _, _ in steps._ROWS} <= found.keys()
    assert all(0 < found[name] < time.monotonic() - began for name, _, _ in steps._ROWS)  # in seconds


@pytest.mark.parametrize("processes", steps._PROCESSES)
def test_the_steps_of_names_first_are_taken_one_by_one(tmp_path: Path, archive: Path, processes: int) -> None:
    (tmp_path / "target").mkdir()
    command = [sys.executable, steps._NAME_STEPS, archive, tmp_path / "target", str(processes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    found = json.loads(done.stdout)
    assert found["all files"] == len(SITE)
    assert 0 < found["files"] <= len(SITE)
    assert found["leases"] == found["files"]  # none of them is empty
    assert all(found[by or name] >= 0 for name, _, by in steps._NAME_ROWS)
    files = list((tmp_path / "target" / "package").iterdir())
    assert len(files) == len(SITE)
    assert all(file.stat().st_size and not file.read_bytes().strip(b"\0") for file in files)


def test_the_line_of_a_start_has_the_phase_that_the_model_needs(tmp_path: Path, archive: Path) -> None:
    command = [sys.executable, "-c", common.COLD, archive, tmp_path / "target"]
    began = time.monotonic()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment(UNPACKENV_LOG="json"))
    assert 0 < scaling._unpack_phase(Usage(1, 1, 1, 1, done.stderr)) < time.monotonic() - began  # in seconds


def test_a_command_is_kept_to_the_cpus_that_it_is_given(tmp_path: Path) -> None:
    prints = common.Command("cpus", lambda at: [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"])
    one = common.cpus()[-1:]
    argv = common.on_cpus(prints, one).argv(tmp_path)
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip() == str(set(one))


def test_the_document_begins_with_the_command_and_the_caveats() -> None:
    facts = {"command": 'make bench ARGS="-n 9"', "commit": "abc", "cpus": 2, "rounds": 9, "machine": {"tar": "1.34"}}
    text = bench._introduction(facts, freshfs.KINDS[0])
    assert text.splitlines()[0] == "# Benchmarks"
    assert text.index('make bench ARGS="-n 9"') < text.index("- Seconds vary") < text.index("tar: 1.34")
    assert "{" not in text


def test_every_part_asks_a_question() -> None:
    assert all(part.__doc__.endswith("?") for part in PARTS.values())
