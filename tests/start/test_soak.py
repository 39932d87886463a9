"""A hundred starts, killed at random moments; `make soak` kills a thousand, at other moments each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.support import Tally
from programs import soak


@pytest.mark.slow
def test_after_a_kill_at_any_moment_the_next_start_has_a_whole_tree(tmp_path: Path, tally: Tally) -> None:
    kills = soak.soak(100, 1, tmp_path)
    print(soak.table(kills))
    tally("SIGKILLs at random moments", len(kills))
    assert [str(kill) for kill in kills if kill.problems] == []
    # The kills reached all that they are meant to reach.
    assert {kill.moment for kill in kills} == {"before", "inside", "after"}
    assert {kill.outcome for kill in kills} >= {"unpacked", "reused"}  # to wait takes luck
    assert any(kill.midway for kill in kills)


def test_a_tree_that_is_not_whole_and_a_file_that_was_left_are_noticed(tmp_path: Path) -> None:
    version, other = soak.Version(tmp_path, 1), soak.Version(tmp_path, 2)
    with soak.scenarios(tmp_path) as scenarios:
        for archive in soak.ARCHIVES:
            kill = soak.Kill(scenarios[0], archive, "all", version, other)
            assert kill.duration() > 0
            target = kill.scenario.target
            assert list(kill.scenario.problems(version, other, archive)) == []
            (target / "modules_1" / "module_1.py").unlink()
            target.with_name(".tree.unpackenv.work").mkdir()
            left, *wrong = kill.scenario.problems(version, other, archive)
            assert left == "left: .tree.unpackenv.work"
            assert [line for line in wrong if line.startswith("missing") and "modules_1/module_1.py" in line]
