"""SLURM's daemons on this machine, in a folder of their own, as this user; they end with the block that started them.

Debian's packages slurm-wlm and munge bring them. There is no accounting, no cgroup, and one node that says to have as
many CPUs as are asked for.
"""

import contextlib
import getpass
import os
import pathlib
import platform
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Self

from vspw_jax.console.errors import UserError

DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*DAEMONS, "sbatch", "srun", "scancel", "scontrol", "squeue", "sinfo")
GRACE_SECONDS = 60
"""Between the SIGTERM of a preemption and its end."""
CONFIGURATION = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2,requeue_delay=1
JobRequeue=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=usual Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes={host} MaxTime=INFINITE PriorityTier=2
"""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def check_installed() -> None:
    """Raises UserError where SLURM or munge is missing."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        raise UserError(f"{', '.join(missing)} not found: install SLURM, as by apt-get install slurm-wlm munge.")


class Cluster:
    """The daemons, as a context; `commands` of SLURM reach them.

    Args:
      folder: theirs.
      cpus: of the node.
    """

    def __init__(self, folder: pathlib.Path, cpus: int) -> None:
        self._folder, self._cpus = folder, cpus
        self._started: list[subprocess.Popen] = []
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Self:
        for name in ("state", "spool"):
            (self._folder / name).mkdir(parents=True)
        key = self._folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        ports = dict(controller=_free_port(), daemon=_free_port())
        about = dict(host=platform.node().split(".")[0], user=getpass.getuser(), cpus=self._cpus, grace=GRACE_SECONDS)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        text = CONFIGURATION.format(folder=self._folder, memory=memory, **ports, **about)
        (self._folder / "slurm.conf").write_text(text)
        try:
            self._start_daemons()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_daemons(self) -> None:
        files = {name: self._folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        flags = [
            f"--{flag}={files[name]}"
            for flag, name in (("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))
        ]
        self._start("munged", "--foreground", "--force", f"--key-file={self._folder / 'munge.key'}", *flags)
        wait_until(files["socket"].exists, 20, "munged answers")
        self._start("slurmctld", "-D")
        wait_until(lambda: "UP" in self.said("scontrol", "ping"), 30, "slurmctld answers")
        self._start("slurmd", "-D")
        wait_until(lambda: "State=IDLE" in self.said("scontrol", "show", "node"), 30, "the node is there")

    def _start(self, *command: str) -> None:
        with (self._folder / f"{command[0]}.out").open("w") as output:
            self._started.append(
                subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT)
            )

    def __exit__(self, *_: object) -> None:
        if len(self._started) == len(DAEMONS):
            self.said("scancel", f"--user={getpass.getuser()}")
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: not self.said("squeue", "--noheader").strip(), 60, "jobs end")
        for process in reversed(self._started):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def said(self, *command: str) -> str:
        """What a command of SLURM's prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol` shows of a job, by name."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.said("scontrol", "show", "job", number)))

    def ended(self, number: str, seconds: float) -> dict[str, str]:
        """The same once it is over for good; not while it is queued again."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        wait_until(lambda: self.job(number).get("JobState") in over, seconds, f"job {number} ends")
        return self.job(number)


def wait_until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns once it has happened; TimeoutError after so many seconds without."""
    until = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > until:
            raise TimeoutError(f"It did not happen within {seconds:.0f} s that {what}.")
        time.sleep(0.5)
