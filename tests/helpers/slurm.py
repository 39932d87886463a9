"""Slurm on one node: munged, slurmctld and slurmd on loopback, with files in one directory and as the same user."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from helpers.processes import run, wait_for

CPUS = 64
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
MessageTimeout=100
NodeName=node NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000
PartitionName=all Nodes=node Default=YES State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the variables with which the commands of Slurm find a new cluster of one node."""
    configuration, key = folder / "slurm.conf", folder / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    user = pwd.getpwuid(os.geteuid()).pw_name
    controller, daemon = _free_ports(2)
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, user=user, controller=controller, daemon=daemon, cpus=CPUS)
    )
    munge = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    munge.update({"log-file": folder / "munge.log", "seed-file": folder / "seed"})
    names = {"SLURM_CONF": str(configuration)}
    with ExitStack() as stack:
        _begin(
            stack, ["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in munge.items())], folder
        )
        wait_for((folder / "munge.socket").exists, "munged")
        _begin(stack, ["slurmctld", "-D", "-f", configuration], folder)
        _begin(stack, ["slurmd", "-D", "-f", configuration, "-N", "node"], folder)
        path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
        wait_for(
            lambda: "idle" in run(["sinfo", "--noheader", "--format=%T"], {**names, "PATH": path}).stdout, "the node"
        )
        yield names


def _begin(stack: ExitStack, command: Sequence[object], folder: Path) -> None:
    """Start a daemon, which ends with `stack`; what it says goes to a file of its name."""
    words = list(map(str, command))
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"}
    with open(folder / f"{words[0]}.said", "wb") as log:
        process = subprocess.Popen(words, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
