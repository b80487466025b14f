"""The launchers: what a dry run prints is what would run, and linters find nothing."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
PROGRAM = ["--config=configs/nce.py", "--config.model.image_size=(480, 480)", "--config.run.afterwards=('evaluate',)"]


def launched(name, *options):
    return subprocess.run([LAUNCH / name, *options], capture_output=True, text=True, timeout=60)


def dry_run(name, *options):
    """The commands that a launcher prints, as lists of words."""
    ended = launched(name, *options, "--dry-run", "--", *PROGRAM)
    assert ended.returncode == 0, ended.stderr
    return [shlex.split(line) for line in ended.stdout.splitlines()]


def linter(name):
    """A linter's program, beside Python or on the path."""
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    return shutil.which(name, path=path) or pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize(("platform", "own"), [("cuda", ["JAX_LOCAL_DEVICE_IDS={}"]), ("cpu", [])])
def test_on_one_machine_each_process_is_told_which_it_is(platform, own):
    commands = dry_run("local.sh", "--processes=3", f"--platform={platform}", "--port=9000")
    for number, command in enumerate(commands):
        assert command == [
            *["env", f"JAX_PLATFORMS={platform}", "JAX_COORDINATOR_ADDRESS=127.0.0.1:9000", "JAX_NUM_PROCESSES=3"],
            *[f"JAX_PROCESS_ID={number}", *(variable.format(number) for variable in own)],
            *["python", "-m", "vspw_jax.main", "--distributed", *PROGRAM],
        ]
    assert len(commands) == 3


def test_slurm_runs_a_process_for_each_gpu_and_jobs_follow_each_other():
    first, second = dry_run("slurm.sh", "--nodes=4", "--gpus=8", "--time=2:00:00", "--jobs=2", "--partition=gpu")
    assert first == second and first[0] == "sbatch"
    assert {"--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--time=2:00:00"} < set(first)
    assert {"--partition=gpu", "--dependency=singleton", "--signal=TERM@120"} < set(first)
    step = shlex.split(first[first.index("--wrap") + 1])
    assert step == ["srun", "--kill-on-bad-exit=1", "python", "-m", "vspw_jax.main", "--distributed", *PROGRAM]


@pytest.mark.parametrize(
    ("type_", "version"),
    [
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-64", "v2-alpha-tpuv5-lite"),
        ("v5p-16", "v2-alpha-tpuv5"),
        ("v6e-256", "v2-alpha-tpuv6e"),
    ],
)
def test_a_tpu_slice_is_made_installed_and_started_on_all_workers(type_, version):
    ended = launched("tpu_pod.sh", "--zone=here", f"--type={type_}", "--setup=mount it", "--dry-run", "--", *PROGRAM)
    create, archive, copy, install, setup, start = (line.split(" ") for line in ended.stdout.splitlines())
    assert create[4:] == ["create", "vspw", "--zone=here", f"--accelerator-type={type_}", f"--version={version}"]
    assert archive[0] == "git" and copy[4] == "scp" and copy[-1] == "--worker=all"
    for command in (install, setup, start):
        assert command[:8] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "vspw", "--zone=here", "--worker=all"]
    assert shlex.split(" ".join(setup))[-1] == "--command=mount it"
    on_worker = shlex.split(shlex.split(" ".join(start))[-1].removeprefix("--command="))
    assert on_worker[-5:] == ["vspw_jax.main", "--distributed", *PROGRAM]


def test_kubernetes_gets_a_job_set_of_a_pod_for_each_node():
    ended = launched("kubernetes.sh", "--image=r/v:1", "--nodes=2", "--gpus=4", "--dry-run", "--", *PROGRAM)
    command, *manifest, end = ended.stdout.splitlines()
    assert command.startswith("kubectl apply") and end == "END"
    job_set = yaml.safe_load("\n".join(manifest))
    (job,) = job_set["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["completions"] == spec["parallelism"] == 2 and spec["completionMode"] == "Indexed"
    (container,) = spec["template"]["spec"]["containers"]
    assert container["args"] == ["--distributed", *PROGRAM] and container["image"] == "r/v:1"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables == {
        "JAX_PLATFORMS": "cuda",
        "JAX_COORDINATOR_ADDRESS": f"vspw-{job['name']}-0-0.vspw:8476",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": None,
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("local.sh", ["--nodes=2", "--", *PROGRAM], "unknown option --nodes=2"),
        ("local.sh", ["--processes=two", "--", *PROGRAM], "expected a number"),
        ("local.sh", ["--platform=tpu", "--", *PROGRAM], "expected cuda or cpu"),
        ("local.sh", [], "--config"),
        ("slurm.sh", ["--gpus=0", "--", *PROGRAM], "numbers from 1 on"),
        ("tpu_pod.sh", ["--", *PROGRAM], "--zone"),
        ("tpu_pod.sh", ["--zone=z", "--type=v9", "--", *PROGRAM], "--type=v9"),
        ("kubernetes.sh", ["--", *PROGRAM], "--image"),
        ("kubernetes.sh", ["--image=i", "--name=No", "--", *PROGRAM], "--name=No"),
    ],
)
def test_what_a_launcher_does_not_know_is_told(name, options, message):
    ended = launched(name, "--dry-run", *options)
    assert ended.returncode == 2 and message in ended.stderr and not ended.stdout


@pytest.mark.parametrize("name", ["local.sh", "slurm.sh", "tpu_pod.sh", "kubernetes.sh"])
def test_help_is_what_stands_at_a_launchers_top(name):
    ended = launched(name, "--help")
    assert ended.returncode == 0 and not ended.stderr
    assert f"  launch/{name} --" in ended.stdout and "#" not in ended.stdout and "set -euo" not in ended.stdout


def test_shellcheck_finds_nothing():
    scripts = sorted(LAUNCH.glob("*.sh"))
    ended = subprocess.run(
        [linter("shellcheck"), "--external-sources", f"--source-path={LAUNCH}", *scripts],
        capture_output=True,
        text=True,
    )
    assert len(scripts) == 5 and ended.returncode == 0, ended.stdout


def test_yamllint_finds_nothing(tmp_path):
    ended = launched("kubernetes.sh", "--image=r/v:1", "--dry-run", "--", *PROGRAM)
    filled = tmp_path / "filled.yaml"
    filled.write_text("".join(ended.stdout.splitlines(keepends=True)[1:-1]))
    rules = "{extends: default, rules: {line-length: {max: 120}}}"
    command = [linter("yamllint"), "--strict", "-d", rules, LAUNCH / "jobset.yaml", filled]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_hadolint_finds_nothing():
    ended = subprocess.run([linter("hadolint"), LAUNCH / "Dockerfile"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
