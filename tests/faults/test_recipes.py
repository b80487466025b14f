"""Recipes and flags that are wrong end with status 2 and a message that says what was found, expected and helps."""

import os
import subprocess
import sys

import pytest

from tests.inputs import recipes

BAD_FLAGS = {
    "misspelt field": (["--config.train.stepz=3"], ["has no field 'train.stepz'", "Did you mean train.steps"]),
    "field without its section": (["--config.steps=3"], ["has no field 'steps'", "train.steps"]),
    "unknown field": (["--config.banana=3"], ["has no field 'banana'", "train.steps"]),
    "no number": (["--config.train.steps=abc"], ["--config.train.steps=abc", "invalid literal for int()"]),
    "unknown mode": (["--mode=fly"], ["--mode=fly", "train|evaluate|predict"]),
    "unknown flag": (["--bogus"], ["Unknown command line flag 'bogus'"]),
    "stray word": (["evaluate"], ["Unexpected arguments: evaluate"]),
    "odd crop": (["--config.model.image_size=(100, 96)"], ["(100, 96)", "multiples of 32", "(96, 96)"]),
    "crop of one side": (["--config.model.image_size=(64,)"], ["image_size is (64,)", "height and width"]),
    "heads of the encoder": (["--config.model.encoder.heads=3"], ["model.encoder.heads is 3", "32 channels"]),
    "heads of the adapter": (["--config.model.encoder.adapter_heads=3"], ["model.encoder.adapter_heads is 3", "16"]),
    "heads of the decoder": (["--config.model.decoder.heads=5"], ["model.decoder.heads is 5", "32 channels"]),
    "groups of the norms": (["--config.model.decoder.norm_groups=7"], ["model.decoder.norm_groups is 7", "32"]),
    "depth": (["--config.model.encoder.depth=6"], ["model.encoder.depth is 6", "multiple of 4"]),
    "type": (["--config.model.dtype=float8"], ["model.dtype is 'float8'", "bfloat16, float32"]),
    "decoder": (["--config.model.decoder.name=pspnet"], ["model.decoder.name is 'pspnet'", "mask2former"]),
    "batch": (["--config.train.batch=3"], ["train.batch is 3 clips", "--config.train.batch"]),
    "groups": (["--config.loss.nce.groups=5"], ["loss.nce.groups is 5", "--config.loss.nce.groups"]),
    "scope": (["--config.loss.nce.scope=world"], ["loss.nce.scope is 'world'", "all, clip, group"]),
    "labels of patches": (["--config.loss.nce.labels=mode"], ["loss.nce.labels is 'mode'", "majority, nearest"]),
    "strips": (["--config.loss.nce.block=many"], ["loss.nce.block is 'many'", "auto, plain"]),
    "level": (["--config.loss.nce.level=4"], ["loss.nce.level is 4", "expected 0 to 3"]),
    "bad steps": (["--config.run.non_finite=hope"], ["run.non_finite is 'hope'", "skip, stop"]),
    "trace": (["--config.run.profile_steps=(9, 3)"], ["run.profile_steps is (9, 3)", "(10, 12)"]),
    "void": (["--config.loss.segmentation.void=some"], ["loss.segmentation.void is 'some'", "background, excluded"]),
    "projection": (
        ["--config.model.projection.dim=8", "--config.model.projection.input=image"],
        ["model.projection.input is 'image'", "decoder, encoder"],
    ),
    "queries": (
        ["--config.model.decoder.num_queries=4"],
        ["loss.segmentation.capacity is 8", "--config.model.decoder.num_queries=8"],
    ),
    "task": (["--config.task.name=superwised"], ["task.name is 'superwised'", "supervised"]),
    "encoder": (["--config.model.encoder.name=vit_adaptor"], ["model.encoder.name is 'vit_adaptor'", "vit_adapter"]),
    "optimizer": (["--config.optimizer.name=adam"], ["optimizer.name is 'adam'", "adamw, sgd"]),
    "fields of another optimizer": (["--config.optimizer.name=sgd"], ["optimizer.name is 'sgd'", "momentum"]),
    "schedule": (["--config.schedule.name=cosin"], ["schedule.name is 'cosin'", "cosine"]),
    "decayed": (["--config.optimizer.decayed=most"], ["optimizer.decayed is 'most'", "all, kernels"]),
    "average of none": (["--config.evaluate.weights=ema"], ["evaluate.weights is 'ema'", "configs/nce_ema.py"]),
    "unknown weights": (["--config.evaluate.weights=best"], ["evaluate.weights is 'best'", "ema, trained"]),
    "warm-up": (["--config.schedule.warmup_steps=-1"], ["schedule.warmup_steps is -1", "from 0 to"]),
    "steps": (["--config.train.steps=-5"], ["train.steps is -5", "from 1 to 2147483647"]),
    "parts": (["--config.train.accumulate=0"], ["train.accumulate is 0", "from 1 to"]),
    "checkpoints": (["--config.run.keep=0"], ["run.keep is 0", "from 1 to 1000000"]),
    "many checkpoints": ([f"--config.run.keep={10**30}"], ["run.keep is 1000", "from 1 to 1000000"]),
    "intervals": (["--config.run.save_every=-1"], ["run.save_every is -1", "from 1 to"]),
    "seed": (["--config.seed=-1"], ["seed is -1", "from 0 to 4294967295"]),
    "large seed": ([f"--config.seed={2**64}"], [f"seed is {2**64}", "from 0 to 4294967295"]),
    "gap": (["--config.data.frame_gap=0"], ["data.frame_gap is 0", "from 1 to"]),
    "threads": (["--config.data.threads=0"], ["data.threads is 0", "from 1 to 1024"]),
    "workers": (["--config.data.workers=-1"], ["data.workers is -1", "from 0 to 1000"]),
    "rate": (["--config.optimizer.learning_rate=nan"], ["optimizer.learning_rate is nan", "at least 1e-12"]),
    "rate of 0": (["--config.optimizer.learning_rate=0"], ["optimizer.learning_rate is 0.0", "at least 1e-12"]),
    "decay of the layers": (["--config.optimizer.layer_decay=0"], ["optimizer.layer_decay is 0.0", "from 0.01 to 1"]),
    "rate at the end": (["--config.schedule.minimum=5"], ["schedule.minimum is 5", "the rate would rise"]),
    "number for a tuple": (["--config.evaluate.scales=0"], ["evaluate.scales", "(0,)", "from 0.01 to 100"]),
    "number for a section": (["--config.train=5"], ["train"]),
    "clips": (["--config.data.frames=11"], ["No video of", "the longest has 10 frames", "11 frames 3 apart need 31"]),
    "wide clips": (["--config.data.frame_gap=10"], ["the longest has 10 frames", "2 frames 10 apart need 11"]),
    "afterwards": (["--config.run.afterwards=('evalute',)"], ["run.afterwards is 'evalute'", "'evaluate'"]),
    "remat": (["--config.model.remat=some"], ["model.remat is 'some'", "auto, dots, full, none"]),
    "input of another mode": (
        ["--mode=evaluate", "--input=a.mp4"],
        ["--mode=evaluate does not read --input", "--mode=predict and --mode=replay"],
    ),
    "output of another mode": (
        ["--mode=inspect", "--output=here"],
        ["--mode=inspect does not read --output", "--mode=export"],
    ),
    "naming of another mode": (["--mode=predict", "--naming=mmseg"], ["--mode=predict does not read --naming"]),
    "status of another mode": (
        ["--mode=inspect", "--stopped_status=75"],
        ["--mode=inspect does not read --stopped_status", "--mode=train and --mode=evaluate and --mode=predict"],
    ),
    "opacity": (["--config.evaluate.opacity=nan"], ["evaluate.opacity is nan", "expected a number from 0 to 1"]),
    "empty records": (["--config.data.records="], ["data.records is empty: expected a path."]),
    "empty input": (["--mode=predict", "--input="], ["--input is empty"]),
    "inspected": (["--config.optimizer.name=lion", "--mode=inspect"], ["optimizer.name is 'lion'", "adamw, sgd"]),
    "capacity": (["--config.loss.segmentation.capacity=2"], ["room for 2", "--config.loss.segmentation.capacity="]),
}


@pytest.mark.parametrize(("arguments", "parts"), BAD_FLAGS.values(), ids=BAD_FLAGS.keys())
def test_a_wrong_flag(refused, tiny_flags, tmp_path, arguments, parts):
    replaced = arguments[0].split("=")[0] + "="
    others = [flag for flag in tiny_flags if not flag.startswith(replaced)]
    refused(parts, *others, *arguments, f"--workdir={tmp_path / 'runs' / 'run'}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("stride", [4, 64])
def test_an_output_stride_that_there_is_not(refused, request, generated_records, tmp_path, stride):
    parts = [f"model.encoder.output_stride is {stride}", "one of 8, 16, 32"]
    recipe = f"--config={request.config.rootpath / 'configs' / 'deeplabv3.py'}:demo"
    flags = [f"--config.data.records={generated_records}", f"--config.model.encoder.output_stride={stride}"]
    refused(parts, recipe, *flags, f"--workdir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["inverse_log", "weights.json"])
def test_class_weights_by_a_name_have_another_field(refused, request, generated_records, tmp_path, value):
    parts = [
        f"loss.segmentation.class_weight is ('{value}',)",
        "class_weight_from=inverse_log",
        "class_weight_from=FILE",
    ]
    recipe = f"--config={request.config.rootpath / 'configs' / 'upernet.py'}:demo"
    flags = [f"--config.data.records={generated_records}", f"--config.loss.segmentation.class_weight={value}"]
    refused(parts, recipe, *flags, f"--workdir={tmp_path / 'run'}")


BEFORE_DRAWING = {
    "epoch": (["--config.data.epoch=day"], ["data.epoch is 'day'", "frame, video"]),
    "devices": (["--config.sharding.fsdp=3"], ["sharding.fsdp is 3", "--config.sharding.fsdp=1"]),
    "nothing to train on": (["--config.data.generate.train=0"], ["data.generate.train is 0", "from 1 to"]),
    "beginning": (["--config.init_from=gone.pth"], ["init_from is 'gone.pth'", "there is none of that name"]),
    "split": (["--config.data.eval_split=dev"], ["data.eval_split is 'dev'", "train, val"]),
}


@pytest.mark.parametrize(("arguments", "parts"), BEFORE_DRAWING.values(), ids=BEFORE_DRAWING.keys())
def test_a_demo_is_refused_before_its_data_is_drawn(refused, tiny_flags, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    flags = [flag for flag in tiny_flags if not flag.startswith("--config.data.records=")]
    refused(parts, *flags, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_split_to_evaluate_that_there_is_not_leaves_no_workdir(refused, tiny_flags, tmp_path):
    parts = ["no split 'dev'", "test, train, val"]
    refused(parts, *tiny_flags, "--config.data.eval_split=dev", f"--workdir={tmp_path / 'runs' / 'run'}")
    assert not (tmp_path / "runs").exists()


OWN = {
    "text": ["mine.py cannot be used (SyntaxError)", "mine.py, line 2"],
    "unfinished": ["mine.py cannot be used (SyntaxError)", "never closed", "mine.py, line 2"],
    "empty": ["has no function get_config", 'def get_config(size="full")'],
    "another import": ["mine.py, line 1, cannot be used (ModuleNotFoundError)", "no_such_module"],
    "no function": ["has no function get_config"],
    "no size": ["get_config('demo')", "too many positional arguments", 'def get_config(size="full")'],
    "nothing returned": ["returns a NoneType", "ConfigDict"],
    "dict returned": ["returns a dict", "ConfigDict"],
    "misspelt section": ["mine.py, line 6, cannot be used (AttributeError): 'trian'\nDid you mean \"train\""],
    "another type": ["mine.py, line 6, cannot be used (TypeError)", "steps"],
    "new field": ["field train.stepz, which nothing reads", "Did you mean train.steps?"],
    "field left out": ["no field train.accumulate", "configs/parts/"],
    "section left out": ["no section optimizer", "configs/parts/"],
    "section of one number": ["no section train", "configs/parts/"],
    "new term": ["loss.segmentation.weights.focal, which nothing reads"],
    "term left out": ["loss.segmentation.weights has auxiliary: expected pixel, auxiliary"],
    "flag of text": ["evaluate.flip is 'no'", "True or False"],
}


@pytest.mark.parametrize(("kind", "parts"), OWN.items(), ids=OWN.keys())
def test_a_recipe_of_ones_own(refused, tmp_path, kind, parts):
    path = recipes.written(tmp_path, kind)
    refused(parts, f"--config={path}:demo", f"--workdir={tmp_path / 'runs' / 'run'}")
    assert not (tmp_path / "runs").exists()


def test_every_awkward_recipe_is_tried():
    assert OWN.keys() == recipes.FILES.keys()


def test_help_ends_well(command_line):
    status, output, errors = command_line("--help")
    assert status == 0 and "--help" in output and not errors


def test_no_recipe(refused, tmp_path, monkeypatch, request):
    refused(["--config"])
    monkeypatch.chdir(request.config.rootpath)
    refused(["no recipe configs/nope.py", "configs/nce.py"], "--config=configs/nope.py")
    refused(["unknown size 'big'", "'full' or 'demo'"], "--config=configs/nce.py:big")
    sizes = ["'full', 'demo', 'cityscapes', 'coco_stuff' or 'ade20k'"]
    refused(sizes, "--config=configs/deeplabv3.py:nonsense")
    # Another network on DeepLabV3's recipe has none of its data sets.
    refused(["unknown size 'ade20k'", "'full' or 'demo'"], "--config=configs/tmanet.py:ade20k")


def run_alone(request, folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(request.config.rootpath)}
    command = [sys.executable, "-m", "vspw_jax.main", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_full_size_without_data_gives_the_command_of_conversion(request, tmp_path):
    """As a process of its own: one line is all that it prints."""
    ended = run_alone(request, tmp_path, f"--config={request.config.rootpath / 'configs' / 'nce.py'}")
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "Error: There is no converted data at data/vspw/records: expected one folder with dataset_info.json.",
        "Convert VSPW with: python -m data_prep.vspw --source=VSPW_DIR --output=data/vspw/records",
        "or point to converted data with: --config.data.records=DIR",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_of_another_run(refused, tiny_flags, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text('{"train.batch": 16}\n')
    parts = [f"{workdir} holds a run of another config", "train.batch: 16 there, 8 now", "--workdir=DIR"]
    refused(parts, *tiny_flags, f"--workdir={workdir}")
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_nothing_trained_yet(refused, tiny_flags, tmp_path, mode):
    """Found by the mode itself: it takes the flag that launchers pass whatever the mode."""
    flags = [*tiny_flags, f"--mode={mode}", f"--workdir={tmp_path / 'run'}", "--stopped_status=75"]
    refused(["no checkpoint in", "--mode=train"], *flags)
