"""A private Slurm on this machine: one node of 8 CPUs and 4 GPUs, both only claimed, in a folder of its own.

    python tests/helpers/slurm_cluster.py                                      # a shell in which sbatch works
    python tests/helpers/slurm_cluster.py snakemake --cores 8 --profile slurm  # one command, then the cluster is gone

Needs root (the GPUs are device nodes) and Debian's packages slurm-wlm, slurm-client and munge.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BINARIES = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct")
GPUS = 4

# DefMemPerCPU: without it a job that names no memory takes all of it.
# config_overrides: the node may claim what it lacks.
CONFIG = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
ReturnToService=2
MinJobAge=3600
DefMemPerCPU=256
SlurmdParameters=config_overrides
KillWait=3
InactiveLimit=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here; empty if it can."""
    absent = [name for name in BINARIES if shutil.which(name, path=_path()) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: slurm-wlm slurm-client munge)"
    if os.geteuid() != 0:
        return "a private Slurm needs root"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _make_gpu(Path(folder) / "nvidia0")
        except PermissionError:
            return "a private Slurm needs device nodes, which root cannot make in this container"
    return ""


class SlurmCluster:
    """A Slurm that runs as long as the `with` block; `environment` is what its commands and Snakemake need."""

    def __enter__(self) -> "SlurmCluster":
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        for name in ("run", "state", "spool", "log", "bin"):
            (self.folder / name).mkdir()
        self._configure()
        # The executor drops SLURM_CONF before its inner srun, so that one has to bring its own.
        wrapper = self.folder / "bin" / "srun"
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        wrapper.chmod(0o755)
        self.environment = os.environ | {
            "SLURM_CONF": f"{self.folder}/slurm.conf",
            "PATH": f"{self.folder}/bin{os.pathsep}{_path()}",
        }
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        pids = [int(path.read_text()) for path in (self.folder / "run").glob("*.pid")]
        if len(pids) == 3:  # all daemons are there: the orderly way, which ends jobs too
            self.run("scancel", "-u", "root")
            _wait(lambda: not self.run("squeue", "-h"), 30)
            self.run("scontrol", "shutdown")
        for pid in pids:
            _end(pid)
        for pid in self._lost():
            _end(pid)
        shutil.rmtree(self.folder)

    def _lost(self) -> list[int]:
        """What is left of jobs: without cgroups Slurm finds no process of a cancelled one whose parent has gone."""
        mark, found = f"SLURM_CONF={self.folder}/slurm.conf\0".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def run(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job so far, oldest first, as `scontrol show job` tells it."""
        lines = [
            line for line in self.run("scontrol", "--oneliner", "show", "job").splitlines() if line.startswith("JobId=")
        ]
        jobs = [dict(word.partition("=")[::2] for word in line.split() if "=" in word) for line in lines]
        return sorted(jobs, key=lambda job: int(job["JobId"]))

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        controller_port, node_port = _free_ports(2)
        text = CONFIG.format(
            host=host, folder=self.folder, controller_port=controller_port, node_port=node_port, gpus=GPUS
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={self.folder}/nvidia[0-{GPUS - 1}]\n")
        for number in range(GPUS):
            _make_gpu(self.folder / f"nvidia{number}")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)

    def _start(self) -> None:
        run, log = self.folder / "run", self.folder / "log"
        munge = {"key-file": self.folder / "munge.key", "socket": run / "munge.socket", "pid-file": run / "munged.pid"}
        munge |= {"log-file": log / "munged.log", "seed-file": self.folder / "munge.seed"}
        self.run("munged", "--force", *(f"--{name}={path}" for name, path in munge.items()))
        self.run("slurmctld", "-f", f"{self.folder}/slurm.conf")
        self.run("slurmd", "-f", f"{self.folder}/slurm.conf")
        if not _wait(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T"), 60):
            raise RuntimeError(
                "the node is not idle after a minute:\n" + "".join(path.read_text() for path in log.glob("slurm*.log"))
            )


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _make_gpu(path: Path) -> None:
    """A device node, which Slurm wants for a GPU: another name of /dev/null."""
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` became true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _end(pid: int) -> None:
    """End a process, by force after ten seconds."""
    folder = Path(f"/proc/{pid}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        if not _wait(lambda: not folder.exists(), 10):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if missing():
        sys.exit(missing())
    with SlurmCluster() as cluster:
        sys.exit(subprocess.call(sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")], env=cluster.environment))
