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


def test_slurm_runs_a_process_for_each_gpu_and_may_start_again():
    options = ["--nodes=4", "--processes=8", "--time=2:00:00", "--starts=3", "--partition=gpu"]
    ((sbatch, *own),) = dry_run("slurm.sh", *options)
    job = own.index(str(LAUNCH / "slurm_job.sh"))
    assert sbatch == "sbatch" and {"--partition=gpu", "--signal=TERM@120", "--requeue"} < set(own[:job])
    assert {"--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--time=2:00:00"} < set(own[:job])
    program = ["python", "-m", "vspw_jax.main", "--distributed", "--stopped_status=75", *PROGRAM]
    assert own[job + 1 :] == ["3", *program]
    ((*_, on_cpus),) = [dry_run("slurm.sh", "--platform=cpu", "--processes=2", "--grace=300")]
    assert "--export=ALL,JAX_PLATFORMS=cpu" in on_cpus and not any("gpus" in word for word in on_cpus)
    assert "--signal=TERM@300" in on_cpus


def test_slurm_makes_a_study_as_an_array_of_seeds():
    ended = launched("slurm.sh", "--seeds=5", "--dry-run", "--", "--study=contrast", "--output=a b")
    command = shlex.split(ended.stdout)
    assert {"--array=0-4", "--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1"} < set(command)
    assert command[-4:] == ["benchmarks.ablation", "--seeds=5", "--study=contrast", "--output=a b"]


@pytest.fixture
def job(tmp_path):
    """job(process, starts, **environment): the job's script with a shell's code: (its status, what SLURM was told)."""
    told = tmp_path / "told"
    for name, does in (("srun", 'shift 2; exec "$@"'), ("scontrol", f'echo "$*" >> {told}')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)

    def run(process, starts, **environment):
        path = f"{tmp_path}:{os.environ['PATH']}"
        slurm = {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", **environment}
        command = [LAUNCH / "slurm_job.sh", str(starts), "sh", "-c", process, "sh"]
        ended = subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True, timeout=60)
        return ended.returncode, told.read_text().splitlines() if told.exists() else []

    return run


@pytest.mark.parametrize(
    ("process", "status"),
    [("exit 75", 75), ("exit 130", 75), ("kill -TERM $$", 75), ("exit 0", 0), ("exit 2", 2), ("kill -ABRT $$", 1)],
)
def test_a_job_of_slurm_is_queued_again_where_it_was_asked_to_stop(job, process, status):
    assert job(process, 2) == (status, ["requeue 7"] if status == 75 else [])


def test_a_job_of_slurm_starts_so_often_and_no_oftener(job):
    assert job("exit 75", 3, SLURM_RESTART_COUNT="2") == (75, [])
    assert job("exit 75", 3, SLURM_RESTART_COUNT="1") == (75, ["requeue 7"])


def test_each_job_of_an_array_has_its_seed(job):
    """And is queued again by itself: its number alone may mean the whole array."""
    array = dict(SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="4")
    assert job('[ "$1" = --seed=4 ] || exit 2', 1, **array) == (0, [])
    assert job("exit 75", 2, **array) == (75, ["requeue 7_4"])


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
    assert container["args"] == ["--distributed", "--stopped_status=75", *PROGRAM] and container["image"] == "r/v:1"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables == {
        "JAX_PLATFORMS": "cuda",
        "JAX_COORDINATOR_ADDRESS": f"vspw-{job['name']}-0-0.vspw:8476",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": None,
    }


def test_a_job_set_whose_data_is_in_buckets_has_an_account_in_place_of_a_volume():
    options = ["--image=i", "--claim=", "--account=trainer", "--grace=300", "--dry-run"]
    ended = launched("kubernetes.sh", *options, "--", *PROGRAM)
    job_set = yaml.safe_load("\n".join(ended.stdout.splitlines()[1:-1]))
    (job,) = job_set["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "trainer" and pod["terminationGracePeriodSeconds"] == 300
    assert [volume["name"] for volume in pod["volumes"]] == ["shared-memory"]
    assert [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]] == ["/dev/shm"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("local.sh", ["--nodes=2", "--", *PROGRAM], "unknown option --nodes=2"),
        ("local.sh", ["--processes=two", "--", *PROGRAM], "expected a number"),
        ("local.sh", ["--platform=tpu", "--", *PROGRAM], "expected cuda or cpu"),
        ("local.sh", [], "--config"),
        ("slurm.sh", ["--processes=0", "--", *PROGRAM], "numbers from 1 on"),
        ("slurm.sh", ["--platform=tpu", "--", *PROGRAM], "expected cuda or cpu"),
        ("slurm.sh", ["--seeds=two", "--", "--study=contrast"], "expected a number"),
        ("slurm.sh", ["--seeds=2", "--nodes=2", "--", "--study=contrast"], "leave out --nodes and --processes"),
        ("slurm.sh", ["--seeds=2", "--", *PROGRAM], "--study"),
        ("tpu_pod.sh", ["--", *PROGRAM], "--zone"),
        ("tpu_pod.sh", ["--zone=z", "--type=v9", "--", *PROGRAM], "--type=v9"),
        ("kubernetes.sh", ["--", *PROGRAM], "--image"),
        ("kubernetes.sh", ["--image=i", "--grace=soon", "--", *PROGRAM], "--grace are numbers from 1 on, not soon"),
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
    assert len(scripts) == 6 and ended.returncode == 0, ended.stdout


def test_kubernetes_published_schema_takes_each_pod():
    """Strictly: a field that there is not is found. JobSet is not Kubernetes' own; its job template is."""
    validate = pytest.importorskip("kubernetes_validate")
    ended = launched("kubernetes.sh", "--image=r/v:1", "--dry-run", "--", *PROGRAM)
    job_set = yaml.safe_load("\n".join(ended.stdout.splitlines()[1:-1]))
    for part in job_set["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": part["template"]["spec"]}
        validate.validate(job, validate.latest_version(), strict=True)
        job["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
        with pytest.raises(validate.ValidationError, match="volumeMount"):
            validate.validate(job, validate.latest_version(), strict=True)


def test_yamllint_finds_nothing(tmp_path):
    ended = launched("kubernetes.sh", "--image=r/v:1", "--dry-run", "--", *PROGRAM)
    filled = tmp_path / "filled.yaml"
    filled.write_text("".join(ended.stdout.splitlines(keepends=True)[1:-1]))
    rules = "{extends: default, rules: {line-length: {max: 120}}}"
    command = [linter("yamllint"), "--strict", "-d", rules, LAUNCH / "jobset.yaml", filled]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_hadolint_finds_nothing():
    files = sorted(LAUNCH.glob("Dockerfile*"))
    ended = subprocess.run([linter("hadolint"), *files], capture_output=True, text=True)
    assert len(files) == 2 and ended.returncode == 0, ended.stdout
