"""What is done to jobs of `launch/slurm.sh`, and what must come of them; each scenario says what it saw."""

import json
import re
import time
from collections.abc import Callable

import psutil

from benchmarks.slurm.cluster import wait_until
from benchmarks.slurm.jobs import LONG, PROGRAM, Jobs, expect

STOPPED = 75
"""Exit status of who was asked to stop."""


def undisturbed(jobs: Jobs) -> str:
    """Two processes from the first step to the last."""
    began = time.monotonic()
    jobs.is_done("undisturbed", jobs.train("undisturbed"), starts=1)
    return f"{jobs.steps} steps in {time.monotonic() - began:.0f} s, with the start"


def time_is_over(jobs: Jobs) -> str:
    """The job's time is cut so that SIGTERM, two minutes before its end, comes in the middle."""
    number = jobs.train("time_is_over", "--time=1:00:00")
    jobs.reaches("time_is_over", 10)
    hours, minutes, seconds = (int(part) for part in jobs.slurm.job(number)["RunTime"].split(":"))
    limit = round((3600 * hours + 60 * minutes + seconds + 135) / 60)
    jobs.slurm.said("scontrol", "update", f"JobId={number}", f"TimeLimit={limit}")
    wait_until(lambda: jobs.slurm.job(number)["JobState"] == "PENDING", LONG, "the job is queued again")
    jobs.slurm.said("scontrol", "update", f"JobId={number}", "TimeLimit=60")  # Its next start keeps the limit.
    return _went_on(jobs, "time_is_over", number)


def preempted(jobs: Jobs) -> str:
    """A job of a partition with more priority takes the place, after a time of grace in which the first one saves."""
    number = jobs.train("preempted")
    jobs.reaches("preempted", 10)
    jobs.slurm.said("sbatch", "--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 5")
    return _went_on(jobs, "preempted", number)


def _went_on(jobs: Jobs, name: str, number: str) -> str:
    """A job that is stopped in its middle must be started once more and end as the undisturbed one did."""
    jobs.is_done(name, number, starts=2)
    jobs.is_same(name, "undisturbed")
    (step,) = re.findall(r"Stopped after step (\d+) of \d+", jobs.log(name, number))
    return (
        f"saved after step {step} of {jobs.steps}, queued again, the undisturbed run's losses and weights bit for bit"
    )


def no_more_starts(jobs: Jobs) -> str:
    """A job that may be started once is stopped: it is not done, and SLURM says so."""
    number = jobs.train("no_more_starts", "--starts=1")
    jobs.reaches("no_more_starts", 1)
    jobs.slurm.said("scancel", "--signal=TERM", number)
    return _failed(jobs, "no_more_starts", number, STOPPED)


def mistake(jobs: Jobs) -> str:
    """The workdir of a run with another seed: both processes refuse."""
    number = jobs.train("undisturbed", more=["--config.seed=1"])
    said = _failed(jobs, "undisturbed", number, 2)
    log = jobs.log("undisturbed", number)
    expect("Whether the log names the seed, and has a traceback", ("seed: 0" in log, "Traceback" in log), (True, False))
    return said


def one_refuses(jobs: Jobs) -> str:
    """The second process alone is told another seed; the first, which goes on, would wait for it."""
    number = jobs.train("undisturbed", first='[ "$SLURM_PROCID" = 0 ] || set -- "$@" --config.seed=1')
    return _failed(jobs, "undisturbed", number, 2)


def killed(jobs: Jobs) -> str:
    """One of the two processes is killed; the other may wait for it."""
    number = jobs.train("killed")
    jobs.reaches("killed", 2)
    flag = f"--workdir={jobs.folder / 'killed'}"
    lines = {process: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
    trained = [process for process, line in lines.items() if flag in line and str(PROGRAM) == line[1]]
    began = time.monotonic()
    max(trained, key=lambda process: process.pid).kill()
    return f"{_failed(jobs, 'killed', number, 1)}, {time.monotonic() - began:.0f} s later"


def _failed(jobs: Jobs, name: str, number: str, status: int) -> str:
    """A job must end with this status, and not be queued again."""
    job = jobs.slurm.ended(number, LONG)
    found = job["JobState"], job["ExitCode"], job["Restarts"]
    expect(f"The end of {name}", found, ("FAILED", f"{status}:0", "0"))
    return f"status {status}, not queued again"


def array_of_seeds(jobs: Jobs) -> str:
    """Two seeds of a study, beside each other; one gets SIGTERM in its middle."""
    python, output = jobs.python("python_study", ["-m", "benchmarks.slurm.small_study"]), jobs.folder / "ablation"
    options = ["--seeds=2", "--name=array", f"--python={python}"]
    number = jobs.submit(options, ["--study=small", f"--output={output}"])
    log = output / "small" / "far" / "seed_1" / "output.log"
    wait_until(lambda: log.exists() and "training:" in log.read_text(errors="replace"), LONG, "seed 1 trains")
    jobs.slurm.said("scancel", "--signal=TERM", f"{number}_1")
    ended = [jobs.slurm.ended(f"{number}_{seed}", LONG) for seed in (0, 1)]
    found = [(job["JobState"], job["ExitCode"], job["Restarts"]) for job in ended]
    expect("State, status and restarts", found, [("COMPLETED", "0:0", "0"), ("COMPLETED", "0:0", "1")])
    results = json.loads((output / "small.json").read_text())
    expect("The seeds of the results", (results["complete"], results["pairs"][0]["seeds"]), (True, [0, 1]))
    return "4 runs in 2 jobs, of which the stopped one was queued again; one table of both seeds"


SCENARIOS: dict[str, Callable[[Jobs], str]] = {
    "undisturbed": undisturbed,
    "time is over": time_is_over,
    "preempted": preempted,
    "no more starts": no_more_starts,
    "a mistake": mistake,
    "one of two refuses": one_refuses,
    "a process killed": killed,
    "an array of seeds": array_of_seeds,
}
