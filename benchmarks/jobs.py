"""From the start of a job to the result of its first task: by unpackenv, and by the own ways of Spark, Dask and Ray.

    .venv/bin/python benchmarks/jobs.py
    .venv/bin/python benchmarks/jobs.py -n 5 --engine ray

The task imports pandas and pyarrow, which no node has. Spark: a master and two executors in local-cluster mode, and
spark-submit from its start; its own way is `--archives` with an environment that venv-pack made. Dask: two workers that
are there, and a client from its start; `PipInstall` from wheels that are here. Ray: a node that is there, and a driver
from its start; `runtime_env` with `pip`, from the same wheels. (Two nodes on one machine would make Ray's environment
in the same place at once, and fail.) Last, what the engine takes where every node has the packages already. Each sample
has new directories; the ways take turns, in every round once.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rig import fleet
from rig.environment import SOURCE
from rig.packages import packages, wheels
from tables import ratio, seconds, table

FIRST = "first result"
LIMIT = 0.5
_TASK = "import pandas, pyarrow; value = int(pandas.Series([1, 2]).sum())"
_OURS, _NAMES_FIRST = "unpackenv", "unpackenv, names first"
_THERE = "none: nodes have the packages"


class Cluster(ABC):
    """An engine, and the ways in which its tasks get their packages."""

    name: str
    own: str
    """The engine's own way."""

    def __init__(self, work: Path) -> None:
        self.archive = fleet.pack_application(work / "app.tar.zst")
        self.work = work

    @property
    def ways(self) -> tuple[str, ...]:
        return (self.own, _OURS, _NAMES_FIRST, _THERE)

    @abstractmethod
    def sample(self, way: str, folder: Path) -> float:
        """Return the seconds of one job in a new directory."""

    def there(self, way: str) -> list[Path]:
        """Return the packages that every node has."""
        return [packages(fleet.APPLICATION)] if way == _THERE else []

    def launcher(self, way: str, folder: Path, python: Path | str, archive: object) -> Path:
        """Write a launcher for one sample."""
        fill = "behind" if way == _NAMES_FIRST else "before"
        return fleet.make_launcher(folder / "python", python, archive=archive, target=folder / "tree", fill=fill)


class Spark(Cluster):
    name, own = "Spark", "--archives, venv-pack"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        made = work / "environment"
        fleet.make_interpreter(made)
        (site,) = made.glob("lib/python*/site-packages")
        shutil.copytree(packages(fleet.APPLICATION), site, dirs_exist_ok=True)
        env = {**fleet.bare(), "PYTHONPATH": str(packages(("venv-pack", "setuptools<81")))}
        command = [sys.executable, "-m", "venv_pack", "-p", made, "-o", work / "environment.tar.gz"]
        subprocess.run(list(map(str, command)), env=env, check=True, capture_output=True)
        self.home = packages(fleet.ENGINES) / "pyspark"
        (work / "job.py").write_text(f"""
from pyspark.sql import SparkSession
def task(number):
    {_TASK}
    return value
context = SparkSession.builder.getOrCreate().sparkContext
assert context.parallelize(range(8), 8).map(task).collect() == [3] * 8
print({FIRST!r}, flush=True)
""")

    def sample(self, way: str, folder: Path) -> float:
        (folder / "spark").mkdir()
        for part in self.home.iterdir():
            (folder / "spark" / part.name).symlink_to(part)
        settings = {"spark.ui.enabled": "false", "spark.executor.memory": "512m", "spark.local.dir": folder / "local"}
        if way == self.own:
            brought: tuple[str, ...] = ("--archives", f"{self.work}/environment.tar.gz#environment")
            python: Path | str = "./environment/bin/python"
        elif way == _THERE:
            brought = ()
            python = fleet.make_interpreter(folder / "venv", *self.there(way))
        else:
            brought = ("--files", f"{self.launcher(way, folder, fleet.BASE, 'app.tar.zst')},{self.archive}")
            python = "./python"
        settings |= {"spark.pyspark.python": python, "spark.pyspark.driver.python": fleet.BASE}
        options = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
        submit = [folder / "spark/bin/spark-submit", "--master", "local-cluster[2,4,512]", *brought, *options]
        env = fleet.bare(SPARK_LOCAL_IP="127.0.0.1", SPARK_HOME=folder / "spark", HOME=folder)
        return until_first_result([*submit, self.work / "job.py"], env, folder)


class Dask(Cluster):
    name, own = "Dask", "PipInstall from wheels"

    def sample(self, way: str, folder: Path) -> float:
        sites = [packages(fleet.ENGINES), Path(SOURCE), packages(("zstandard", "psutil")), packages(("pip",))]
        python = fleet.make_interpreter(folder / "venv", *sites, *self.there(way))
        local = ("--host", "127.0.0.1", "--no-dashboard")
        env = fleet.bare(HOME=folder, DASK_TEMPORARY_DIRECTORY=folder / "dask", UNPACKENV_TARGET=folder / "tree")
        env["UNPACKENV_FILL"] = "behind" if way == _NAMES_FIRST else "before"
        with ExitStack() as stack:
            scheduler = [python, "-m", "distributed.cli.dask_scheduler", *local, "--port", 0]
            (address,) = stack.enter_context(service(scheduler, env, r"Scheduler at: +(tcp://\S+)")).groups()
            for _ in range(2):
                worker = [python, "-m", "distributed.cli.dask_worker", address, *local, "--nthreads", 2, "--no-nanny"]
                stack.enter_context(service(worker, env, "Registered to"))
            options = ["--no-index", "--find-links", str(wheels(fleet.APPLICATION))]
            plugin = f"unpackenv.contrib.dask.UnpackenvPlugin({str(self.archive)!r})"
            if way == self.own:
                plugin = f"distributed.PipInstall({list(fleet.APPLICATION)!r}, pip_options={options!r})"
            job = f"""
import distributed
if {plugin.startswith("unpackenv")}:
    import unpackenv.contrib.dask
def task(number):
    {_TASK}
    return value
client = distributed.Client({address!r})
if {way != _THERE}:
    client.register_plugin({plugin})
assert client.gather(client.map(task, range(8))) == [3] * 8
print({FIRST!r}, flush=True)
"""
            return until_first_result([python, "-c", job], env, folder)


class Ray(Cluster):
    name, own = "Ray", "runtime_env pip from wheels"

    def sample(self, way: str, folder: Path) -> float:
        python = make_prefix(
            folder / "prefix", packages(fleet.ENGINES), packages(("virtualenv", "pip")), *self.there(way)
        )
        options = ["--no-index", "--find-links", str(wheels((*fleet.APPLICATION, "pip", "setuptools")))]
        runtime: dict[str, object] = {}
        if way == self.own:
            runtime = {"pip": {"packages": list(fleet.APPLICATION), "pip_install_options": options}}
        elif way != _THERE:
            runtime = {"py_executable": str(self.launcher(way, folder, python, self.archive))}
        env = fleet.bare(RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED=0, HOME=folder)
        cluster = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
cluster.wait_for_nodes()
print("at", cluster.address, file=sys.stderr, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
        with service([python, "-c", cluster], env, r"^at (\S+)", reads=True) as found:
            job = f"""
import ray
ray.init(address={found[1]!r}, runtime_env={runtime!r}, log_to_driver=False)
@ray.remote
def task(number):
    {_TASK}
    return value
assert ray.get([task.remote(number) for number in range(4)]) == [3] * 4
print({FIRST!r}, flush=True)
"""
            return until_first_result([python, "-c", job], env, folder)


CLUSTERS: dict[str, type[Cluster]] = {"spark": Spark, "dask": Dask, "ray": Ray}


def make_prefix(folder: Path, *sites: Path) -> Path:
    """Return a Python, as of an image, that has the packages of these directories.

    It is not of a virtual environment: Ray's own way would copy that, which fails where packages are elsewhere.
    """
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    of_folder = folder / "lib" / library.name
    of_folder.mkdir(parents=True)
    for part in library.iterdir():
        if part.name != "site-packages":
            (of_folder / part.name).symlink_to(part)
    (of_folder / "site-packages").mkdir()
    (of_folder / "site-packages/sites.pth").write_text("".join(f"{site}\n" for site in sites))
    (folder / "bin").mkdir()
    return Path(shutil.copy(fleet.BASE, folder / "bin/python"))


@contextmanager
def service(
    command: Sequence[object], env: dict[str, str], says: str, *, reads: bool = False
) -> Iterator[re.Match[str]]:
    """Run a part of a cluster, when it has said on stderr that it is up; one that `reads` stdin ends by itself."""
    process = subprocess.Popen(
        list(map(str, command)), env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    try:
        said = ""
        for line in process.stderr or ():
            said += line
            if found := re.search(says, line):
                yield found
                break
        else:
            raise RuntimeError(said)
    finally:
        if not reads:
            process.terminate()
        process.communicate()


def until_first_result(command: Sequence[object], env: dict[str, str], folder: Path) -> float:
    """Run a job to its end; return the seconds until it had a result."""
    began = time.monotonic()
    with open(folder / "stderr", "w+") as errors:
        process = subprocess.Popen(
            list(map(str, command)), env=env, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        took = next((time.monotonic() - began for line in process.stdout or () if line.startswith(FIRST)), 0.0)
        process.communicate()
        if not took:
            errors.seek(0)
            raise RuntimeError(errors.read()[-3000:])
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", "--rounds", type=int, default=3, help="samples of each way (default: 3)")
    parser.add_argument("--engine", choices=CLUSTERS, action="append", help="only this one")
    options = parser.parse_args()
    rows = []
    for name in options.engine or CLUSTERS:
        with tempfile.TemporaryDirectory(prefix="jobs-", dir="/tmp") as work:
            cluster = CLUSTERS[name](Path(work))
            taken: dict[str, list[float]] = {way: [] for way in cluster.ways}
            for number in range(options.rounds):
                for place, way in enumerate(cluster.ways):
                    folder = Path(work, f"{number}-{place}")
                    folder.mkdir()
                    taken[way].append(cluster.sample(way, folder))
                    shutil.rmtree(folder, ignore_errors=True)
                    print(f"round {number + 1}: {cluster.name}, {way}: {taken[way][-1]:.2f} s", file=sys.stderr)
            base = statistics.median(taken[cluster.own])
            for way in cluster.ways:
                middle = statistics.median(taken[way])
                rows.append([cluster.name, way, seconds(middle), ratio(middle / base)])
    print(table(("engine", "way", "s", "÷ its own way"), rows))


if __name__ == "__main__":
    main()
