"""Ray: `py_executable` of a runtime environment is a launcher."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from helpers.processes import run
from rig import fleet

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("fleet")]

JOB = """
import json, os, sys
import ray
from ray.cluster_utils import Cluster

launcher = sys.argv[1]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
cluster.add_node(num_cpus=2)
ray.init(address=cluster.address, runtime_env={"py_executable": launcher}, log_to_driver=False)

def where():
    import pandas
    return ray.get_runtime_context().get_node_id(), pandas.__file__

@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def task(number):
    import time
    time.sleep(0.5)
    return where()

@ray.remote
class Actor:
    def __init__(self):
        import pandas
        self.numbers = pandas.Series([1, 2])
    def total(self):
        return int(self.numbers.sum()), *where()

actor = Actor.remote()
print(json.dumps([ray.get([task.remote(number) for number in range(8)]), ray.get(actor.total.remote())]))
ray.shutdown()
cluster.shutdown()
"""


def test_tasks_and_actors(with_engines: Path, application: Path, tmp_path: Path) -> None:
    launcher = fleet.make_launcher(
        tmp_path / "python", with_engines, archive=application, target=tmp_path / "tree", log_file=tmp_path / "log"
    )
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # paths of sockets have to be short
        env = fleet.bare(RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED=0, HOME=tmp_path)
        done = run([with_engines, "-c", JOB, launcher], env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tasks, (total, *of_actor) = json.loads(done.stdout.splitlines()[-1])
    assert total == 3
    assert {path for _, path in [*tasks, of_actor]} == {str(tmp_path / "tree/pandas/__init__.py")}
    assert len({node for node, _ in tasks}) == 2
    assert fleet.outcomes(tmp_path / "log").count("unpacked") == 1
