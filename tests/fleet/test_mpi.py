"""MPI: all ranks of a node start at once, through a launcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.processes import run
from rig import fleet

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("fleet")]

RANKS = 64
# It finds pandas, and reads it, but does not run it, which takes a second of a CPU for each.
RANK = """import importlib.util, json, os
path = importlib.util.find_spec("pandas").origin
compile(open(path).read(), path, "exec")
print(json.dumps([os.environ["OMPI_COMM_WORLD_RANK"], path]))
"""


@pytest.mark.parametrize("fill", ["before", "behind"])
def test_all_ranks_of_a_node(application: Path, tmp_path: Path, fill: str) -> None:
    settings = {"archive": application, "target": tmp_path / "tree", "log_file": tmp_path / "log", "fill": fill}
    launcher = fleet.make_launcher(tmp_path / "python", fleet.BASE, **settings)
    (tmp_path / "rank.py").write_text(RANK)
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", RANKS, launcher, tmp_path / "rank.py"]
    done = run(command, fleet.bare(HOME=tmp_path))
    assert done.returncode == 0, done.stderr
    ranks = dict(map(json.loads, done.stdout.splitlines()))
    assert sorted(map(int, ranks)) == list(range(RANKS))
    assert set(ranks.values()) == {str(tmp_path / "tree/pandas/__init__.py")}
    wrote = [outcome for outcome in fleet.outcomes(tmp_path / "log") if outcome in ("unpacked", "named")]
    assert len(wrote) == 1
