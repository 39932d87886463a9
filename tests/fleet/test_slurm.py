"""Slurm: the archive is copied to the node once, and all tasks of the node start at once, through a launcher.

Dask's workers may be its jobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import slurm
from helpers.documented import PROJECT, adapted, file
from helpers.processes import run
from rig import fleet

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("fleet")]

# It finds pandas, and reads it, but does not run it, which takes a second of a CPU for each.
TASK = """import importlib.util, json, os
path = importlib.util.find_spec("pandas").origin
compile(open(path).read(), path, "exec")
print(json.dumps([os.environ["SLURM_PROCID"], path]))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


@pytest.mark.parametrize("fill", ["before", "behind"])
def test_a_job_of_the_document(application: Path, tmp_path: Path, cluster: dict[str, str], fill: str) -> None:
    shared, node = tmp_path / "shared", tmp_path / "node"
    shared.mkdir()
    node.mkdir()
    (shared / "app.tar.zst").symlink_to(application)
    archive, target, log = node / "app.tar.zst", node / "app", tmp_path / "log"
    settings = {"archive": archive, "target": target, "fill": fill, "log_file": log}
    fleet.make_launcher(shared / "python", fleet.BASE, **settings)
    job = adapted(file(PROJECT / "docs/fleet.md", "job.sh"), {"/tmp/app.tar.zst": archive})
    (shared / "job.sh").write_text(job)
    (shared / "rank.py").write_text(TASK)
    done = run(["sbatch", "--wait", "job.sh"], fleet.bare(**cluster, HOME=tmp_path), cwd=shared)
    said = "".join(path.read_text() for path in shared.glob("slurm-*.out"))
    assert done.returncode == 0, done.stderr + said
    tasks = dict(json.loads(line) for line in said.splitlines() if line.startswith("["))
    assert sorted(map(int, tasks)) == list(range(slurm.CPUS))
    assert set(tasks.values()) == {str(target / "pandas/__init__.py")}
    wrote = [outcome for outcome in fleet.outcomes(log) if outcome in ("unpacked", "named")]
    assert len(wrote) == 1


WORKERS = """
import json, sys
from dask_jobqueue import SLURMCluster
from distributed import Client

def where(number):
    import pandas
    return pandas.__file__

if __name__ == "__main__":
    launcher, folder = sys.argv[1:]
    job = {"cores": 2, "processes": 2, "memory": "1GB", "interface": "lo", "log_directory": folder}
    with SLURMCluster(python=launcher, **job) as cluster, Client(cluster) as client:
        cluster.scale(jobs=2)
        client.wait_for_workers(4)
        print(json.dumps(client.gather(client.map(where, range(8)))))
"""


def test_jobs_of_dask(with_engines: Path, application: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    settings = {"archive": application, "target": tmp_path / "app", "log_file": tmp_path / "log"}
    launcher = fleet.make_launcher(tmp_path / "python", with_engines, **settings)
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    logs = tmp_path / "logs"
    variables = fleet.bare(**cluster, HOME=tmp_path, DASK_TEMPORARY_DIRECTORY=tmp_path / "dask")
    done = run([with_engines, script, launcher, logs], variables)
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in logs.glob("*"))
    assert set(json.loads(done.stdout)) == {str(tmp_path / "app/pandas/__init__.py")}
    assert fleet.outcomes(tmp_path / "log").count("unpacked") == 1
