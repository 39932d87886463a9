"""Spark: executors start through a launcher, which comes with the files of the job."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helpers.processes import run
from rig import fleet
from rig.packages import packages

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("fleet")]

JOB = """
import json, os
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf

spark = SparkSession.builder.getOrCreate()

@pandas_udf("long")
def twice(numbers):
    return numbers * 2

frame = spark.range(0, 800, numPartitions=8).select(twice("id").alias("twice"))
total = frame.groupBy().sum("twice").collect()[0][0]

def where(rows):
    import pandas, time
    time.sleep(1)  # so that each executor gets some
    yield os.getcwd(), pandas.__file__

places = sorted(set(spark.sparkContext.parallelize(range(8), 8).mapPartitions(where).collect()))
spark.stop()
print(json.dumps([total, places]))
"""


@pytest.fixture
def job(tmp_path: Path, application: Path) -> Path:
    """The directory of a job: a launcher for its driver, one for its executors, and the archive."""
    (tmp_path / "app.tar.zst").symlink_to(application)
    (tmp_path / "job.py").write_text(JOB)
    for name in "driver", "python":
        tree = tmp_path / "trees" / name
        fleet.make_launcher(tmp_path / name, fleet.BASE, archive="app.tar.zst", target=tree)
    # Spark writes there.
    (tmp_path / "spark").mkdir()
    for part in (packages(fleet.ENGINES) / "pyspark").iterdir():
        (tmp_path / "spark" / part.name).symlink_to(part)
    return tmp_path


def environment_of(job: Path) -> dict[str, str]:
    """Return the environment of a machine of the cluster."""
    java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # its compiler is most of the work of so small a job
    variables = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": job / "spark", "SPARK_NO_DAEMONIZE": 1}
    return fleet.bare(**variables, JAVA_TOOL_OPTIONS=java, HOME=job)


@contextmanager
def service(job: Path, name: str, *arguments: object, says: str) -> Iterator[str]:
    """Run a service of Spark; yield what it says of itself."""
    command = [f"{job}/spark/bin/spark-class", f"org.apache.spark.deploy.{name}", *map(str, arguments)]
    with subprocess.Popen(
        command, env=environment_of(job), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        try:
            said = ""
            for line in process.stdout:
                said += line
                if found := re.search(says, line):
                    yield found[0]
                    break
            else:
                raise AssertionError(said)
        finally:
            process.terminate()
            process.communicate()


def check(job: Path, master: str) -> None:
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.executor.memory": "512m",
        "spark.executor.cores": 4,
        "spark.local.dir": job / "local",
        "spark.executorEnv.UNPACKENV_LOG_FILE": job / "log",
        "spark.pyspark.driver.python": job / "driver",
        "spark.pyspark.python": "./python",
    }
    options = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    command = [job / "spark/bin/spark-submit", "--master", master, "--files", "python,app.tar.zst", *options, "job.py"]
    done = run(command, environment_of(job), cwd=job)
    assert done.returncode == 0, done.stderr
    total, places = json.loads(done.stdout.splitlines()[-1])
    assert total == sum(2 * number for number in range(800))
    assert len({executor for executor, _ in places}) == 2, places
    assert {path for _, path in places} == {str(job / "trees/python/pandas/__init__.py")}
    assert fleet.outcomes(job / "log").count("unpacked") == 1
    assert set(fleet.outcomes(job / "log")) <= {"unpacked", "waited", "reused"}


def test_a_local_cluster(job: Path) -> None:
    """Two executors with four tasks each, on one node."""
    check(job, "local-cluster[2,4,512]")


def test_a_master_and_two_workers(job: Path) -> None:
    address = ("--host", "127.0.0.1", "--port", 0, "--webui-port", 0)
    with service(job, "master.Master", *address, says=r"spark://127\.0\.0\.1:\d+") as master:
        of_worker = (*address, "--cores", 4, "--memory", "1g", "--work-dir")
        registered = "Successfully registered"
        with ExitStack() as stack:
            for name in "one", "two":
                stack.enter_context(service(job, "worker.Worker", *of_worker, job / name, master, says=registered))
            check(job, master)
