"""Trains, evaluates and runs video segmentation models.

    python -m vspw_jax.main --config=configs/nce.py:demo                                  train, evaluate, predict
    python -m vspw_jax.main --config=configs/nce.py --config.data.records=DIR             train at full size
    python -m vspw_jax.main --config=configs/nce.py:demo --mode=evaluate                  score the newest checkpoint
    python -m vspw_jax.main --config=configs/nce.py:demo --mode=predict --input=clip.mp4  masks and overlays of a video
    python -m vspw_jax.main --config=configs/nce.py --mode=inspect                        recipe, parameters, cost
    python -m vspw_jax.main --config=configs/nce.py:demo --mode=replay                    look into a step gone wrong
    python -m vspw_jax.main --config=configs/nce.py --config.init_from=X.pth              start from PyTorch's weights
    python -m vspw_jax.main --config=configs/nce.py --mode=export --output=Y.pth          give them back
    python -m vspw_jax.main --mode=predict --input=clip.mp4 --config.init_from=X.pth      with no recipe: X's network

--mode=evaluate, predict and export take --config.init_from too, in a workdir that has no checkpoint of its own.

Every field of a recipe can be set: --config.train.steps=100. The same command resumes a run that was stopped.
"""

import collections
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from data_prep import generate
from vspw_jax.buckets import addresses, cache, fetched, mirrors, workdirs
from vspw_jax.checkpoints import run_classes
from vspw_jax.classes import unnamed
from vspw_jax.console import command, ranges, recipe_file, starting
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.data import records
from vspw_jax.evaluation import evaluate
from vspw_jax.files import ownership
from vspw_jax.files.writable import check_folder
from vspw_jax.inference import sources
from vspw_jax.inference.predict import predict_source
from vspw_jax.inference.predictor import Predictor
from vspw_jax.inspection import report
from vspw_jax.interop import checkpoint_file, convert, namings, recipe_of_file
from vspw_jax.metrics import table
from vspw_jax.parallel import processes, shares
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import task
from vspw_jax.training import checks, length, loop, preemption, replay, trained

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, such as configs/nce.py or configs/nce.py:demo.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<recipe>, such as runs/nce_demo.")
_MODE = flags.DEFINE_enum(
    "mode", "train", ("train", "evaluate", "predict", "export", "inspect", "replay"), "What to do."
)
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "predict: a video file, a folder of frames or of videos, or a pattern such as 'clips/*.mp4'. "
    "replay: a step saved in bad_steps/.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "predict: folder to write; default <workdir>/predictions/<input's name>-<step>; of several inputs each gets a "
    "folder in it. The same command goes on with what is there. "
    "export: file to write, .pth or .safetensors.",
)
_SIDE_BY_SIDE = flags.DEFINE_bool("side_by_side", False, "predict: also a video of frame and overlay side by side.")
_NAMING = flags.DEFINE_enum(
    "naming",
    "mmseg",
    tuple(namings.NAMINGS),
    "export: how the tensors are named. Those of an encoder alone, such as timm, leave the decoder out.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "This is one of several processes that run together; see vspw_jax/parallel/processes.py."
)
_STOPPED_STATUS = flags.DEFINE_integer(
    "stopped_status",
    0,
    "train: exit status after it was asked to stop and has saved. What starts jobs again takes 75: 0 would be the end. "
    "evaluate and predict, which launchers start with it too, are ended by SIGTERM itself, and go on by videos.",
    lower_bound=0,
    upper_bound=255,
)
flags.mark_flag_as_required("config")

OUTPUT_FLAG = "--output=DIR"
"""Of --mode=predict."""

ABSL_HELPED = 1
"""absl's exit status after --help."""

WITHOUT_RECIPE = ("predict", "export", "inspect")
"""Modes for which a file's network is enough."""

IN_BUCKETS = re.compile(r"data\.(mixture\.\w+\.)?records")
"""Fields that may name something in a bucket when the config is checked: those that are read there."""

SHARED = ("train", "evaluate", "predict")
"""What several processes do together, and launchers start."""

READ_BY = {
    "input": ("predict", "replay"),
    "output": ("predict", "export"),
    "side_by_side": ("predict",),
    "naming": ("export",),
    "stopped_status": SHARED,
}
"""The modes that read a flag; those that are not here are read by all."""


def _config_flag() -> str:
    flag: Any = flags.FLAGS["config"]  # Of config_flags, whose flags are not typed.
    return flag.config_filename


def recipe_name() -> str:
    """nce.py:demo for configs/nce.py:demo."""
    return pathlib.Path(_config_flag()).name


def default_workdir(config_flag: str, init_from: str = "") -> pathlib.Path:
    """runs/nce_demo for configs/nce.py:demo; where the network is a file's, runs/X for X.pth."""
    path, _, size = config_flag.partition(":")
    if recipe_of_file.is_named(config_flag) and init_from:
        path = pathlib.Path(init_from).name.split(".")[0]
    return pathlib.Path("runs") / "_".join(filter(None, (pathlib.Path(path).stem, size)))


def opened_workdir(config: ConfigDict) -> pathlib.Path:
    """The run's folder; of one in a bucket the mirror on this disk."""
    place = _WORKDIR.value or default_workdir(_config_flag(), config.init_from)
    if addresses.is_address(place):
        return workdirs.opened(place, also="bad_steps" if _MODE.value == "replay" else "").folder
    return pathlib.Path(place)


def check_addresses(config: ConfigDict) -> None:
    """Raises UserError where a field names something in a bucket that is only taken from a disk."""
    for name, value in recipe_file.flatten(config.to_dict()).items():
        if isinstance(value, str) and addresses.is_address(value) and not IN_BUCKETS.fullmatch(name):
            raise UserError(f"config.{name} is {value}: expected a path on a disk. Copy it to a disk first.")


def bring_to_disk(mode: str) -> None:
    """Puts copies and mirrors on this disk in the place of what --input and --output name in buckets."""
    if _INPUT.value:
        _set("input", fetched.pattern(_INPUT.value))
    if _OUTPUT.value and addresses.is_address(_OUTPUT.value):
        if mode == "export":
            _set("output", str(mirrors.place_of_file(_OUTPUT.value)))
        else:  # What is there of a video comes when it is predicted, to the process that does it.
            _set("output", str(mirrors.opened(_OUTPUT.value, lambda _: False).folder))


def _set(flag: str, value: str) -> None:
    setattr(flags.FLAGS, flag, value)


def run_train(config: ConfigDict, workdir: pathlib.Path) -> list[str]:
    """Trains, then does what `config.run.afterwards` names; asked to stop, it does with all of training saved."""
    check_folder(workdir, "--workdir=DIR")
    checks.check_start(config, workdir)
    generate.for_recipe(config)
    reports = [f"Curves and pictures: tensorboard --logdir={workdir}"]
    with preemption.StopRequest() as stop:
        loop.train(config, workdir, stop)
        stop.no_longer_agrees()
        for mode in config.run.afterwards:
            try:
                reports += stop.unless_requested(MODES[mode], config, workdir)
            except preemption.Stopped as stopped:
                stopped.args = (f"Stopped in --mode={mode}, all of training saved in {workdir / 'checkpoints'}.",)
                raise
    return reports


def run_evaluate(config: ConfigDict, workdir: pathlib.Path) -> list[str]:
    """Scores the newest checkpoint on `config.data.eval_split`."""
    evaluate.check_output(config, workdir)
    generate.for_recipe(config)
    predictor = trained.predictor(config, workdir, recipe_name(), run_classes.of_records(config))
    config = length.of_workdir(config, workdir)
    warnings = evaluate.unfinished(config, predictor.origin["step"], predictor.weights)
    folder = evaluate.predictions_folder(config, workdir)
    with processes.owned(folder.parent, "--workdir=DIR"):
        result = evaluate.evaluate(config, predictor, workdir, command.as_typed("vspw_jax.main"), warnings)
    entry = f"--predictions={folder} --data={config.data.records} --split={config.data.eval_split}"
    if result is None:
        return [
            f"Split {config.data.eval_split} of {config.data.records} has no masks: predicted, not scored.",
            f"Predictions:          {folder}",
            f"A challenge entry:    python -m vspw_jax.submission {entry} --output=submission.zip",
        ]
    return [
        f"Split {config.data.eval_split} of {config.data.records}, in per cent:\n\n{table.table(result)}\n",
        *(
            f"Stage {number}:              mIoU {table.percent(scores['mIoU'])}, VC8 {table.percent(scores['VC8'])}"
            for number, scores in enumerate(result.get("stages", ()))
        ),
        f"All scores:           {workdir / evaluate.SCORES_FILE}",
        f"Frame, truth, result: {workdir / evaluate.PICTURE_FILE}",
        f"Report, in a browser: {workdir / evaluate.REPORT_FILE}",
        f"Predictions:          {folder}",
    ]


def prediction_output(
    workdir: pathlib.Path, predictor: Predictor, source: sources.Source, several: bool
) -> pathlib.Path:
    """--output, or a folder in it if there are several inputs; by default a folder of the workdir by name and step."""
    if _OUTPUT.value:
        return pathlib.Path(_OUTPUT.value) / (source.name if several else "")
    step = predictor.origin["step"]
    return workdir / "predictions" / (source.name if step is None else f"{source.name}-{step}")


def predict_one(predictor: Predictor, source: sources.Source, output: pathlib.Path, opacity: float) -> list[str]:
    """Predicts a video into a folder that no other program writes; what to report of it."""
    mirrors.bring(output)
    try:
        with ownership.owned(output, OUTPUT_FLAG):
            predicted = predict_source(predictor, source, output, _SIDE_BY_SIDE.value, opacity=opacity)
    except KeyboardInterrupt:
        print(f"\nInterrupted; what is done stays in {output}. The same command goes on from there.", file=sys.stderr)
        sys.exit(starting.INTERRUPTED)
    return [
        *(f"{source.name}: {complaint}" for complaint in source.complaints),
        *([] if predicted else [f"{source.name}: every frame had been predicted before."]),
        f"Predicted video:      {output / 'overlay.mp4'}",
        f"Masks, overlays:      {output}/masks, {output}/overlays",
    ]


def run_predict(config: ConfigDict, workdir: pathlib.Path) -> list[str]:
    """Predicts --input, or without one the first video of `config.data.eval_split`.

    Of several processes each predicts its `share` of the videos; they wait for each other only at the end.
    """
    found = sources.find(_INPUT.value) if _INPUT.value else None
    check_folder(_OUTPUT.value or workdir / "predictions", OUTPUT_FLAG)
    predictor = trained.predictor(config, workdir, recipe_name())
    found = found or [sources.of_records(records.Frames(config.data.records, config.data.eval_split), 0)]
    processes.check_same({source.name: source.fingerprint for source in found}, "videos in --input")
    if len(found) < jax.process_count():
        print(f"A video is predicted by one process: {jax.process_count() - len(found)} of them have none.", flush=True)
    made = {
        source.name: predict_one(
            predictor,
            source,
            prediction_output(workdir, predictor, source, len(found) > 1),
            config.evaluate.opacity,
        )
        for source in shares.share(found, jax.process_count(), jax.process_index())
    }
    reports = collections.ChainMap(*processes.gathered(made))
    one_pass = "Videos are predicted in one pass: evaluate.stages is for --mode=evaluate."
    return [
        *([one_pass] if config.evaluate.stages else []),
        *(line for source in found for line in reports[source.name]),
    ]


def run_export(config: ConfigDict, workdir: pathlib.Path) -> list[str]:
    """Writes the newest checkpoint as a PyTorch checkpoint."""
    if not _OUTPUT.value:
        raise UserError("--mode=export writes a file: name it with --output=X.pth or --output=X.safetensors.")
    checkpoint_file.check_output(_OUTPUT.value)
    found = trained.weights(config, workdir, make_mesh())
    classes = found.classes if found.are_known else None
    weights = found.weights.values()
    is_named = convert.save_weights(config.model, weights, _OUTPUT.value, _NAMING.value, classes)
    names = f"its {len(found.classes)} classes are named in it"
    if not is_named:
        _, said = unnamed.by_number(len(found.classes))
        names = f"it does not name its {len(found.classes)} classes; read again, they are {said}"
    return [f"PyTorch checkpoint:   {_OUTPUT.value} ({names})"]


def run_inspect(config: ConfigDict, workdir: pathlib.Path) -> list[str]:
    """Prints the recipe, its parameters and what a step costs, and what is in `config.init_from`; needs no data."""
    of_checkpoint = report.describe_checkpoint(config)  # First: it fails sooner.
    print(report.describe(config, _config_flag()), flush=True)
    of_memory = []
    if config.run.compile_to_inspect:
        print("Compiling the step for its memory; --config.run.compile_to_inspect=False leaves that out.", flush=True)
        of_memory = report.describe_memory(config)
    return [*of_memory, *of_checkpoint]


def run_replay(config: ConfigDict, workdir: pathlib.Path) -> list[str]:
    """Makes the step in --input again, or without one the bad step that the workdir's run saved last."""
    generate.for_recipe(config)
    return replay.replay(config, workdir, _INPUT.value)


MODES = {
    "train": run_train,
    "evaluate": run_evaluate,
    "predict": run_predict,
    "export": run_export,
    "inspect": run_inspect,
    "replay": run_replay,
}


def check_shared(mode: str) -> None:
    """Raises UserError where several processes cannot do together what was asked for."""
    if mode not in SHARED:
        raise UserError(f"--mode={mode} runs in one process: start it once, without --distributed.")


def check_flags(config: ConfigDict, mode: str) -> None:
    """Raises UserError for flags that are empty, or that no mode reads which is about to run."""
    run = (mode, *(config.run.afterwards if mode == "train" else ()))
    for name in ("workdir", *READ_BY):
        flag = flags.FLAGS[name]
        if flag.present and isinstance(flag.value, str):
            ranges.check(f"--{name}", flag.value, ranges.PATH)
        readers = READ_BY.get(name, run)
        if flag.present and not set(readers) & set(run):
            raise UserError(
                f"--mode={mode} does not read --{name}, which is for {' and '.join(f'--mode={m}' for m in readers)}. "
                "Leave it out, or choose another mode."
            )


def fit_to_command(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Gives the recipe the classes of its data, or of the run in the workdir, and the length that flags ask for."""
    checks.check_parts(config)
    stated = config_flags.get_override_values(flags.FLAGS["config"])
    known = run_classes.of_run(config, workdir, trains=_MODE.value in ("train", "replay"))
    run_classes.adopt(config, known, "model.num_classes" in stated)
    length.heed_flags(config, stated)


def main(_: Sequence[str]) -> None:
    """Runs the chosen mode and prints its report."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    config = _CONFIG.value
    config.init_from = workdirs.to_start_from(config.init_from)
    is_of_file = recipe_of_file.is_named(_config_flag()) and bool(config.init_from)
    if is_of_file:
        stated = config_flags.get_override_values(flags.FLAGS["config"])
        config = recipe_of_file.fitted(config, {**stated, "init_from": config.init_from})
    config.lock()
    check_addresses(config)
    workdir = opened_workdir(config)
    if not is_of_file:
        fit_to_command(config, workdir)
    checks.check_recipe(config)
    if _MODE.value in checks.AFTERWARDS:
        task.check_predicts(config, f"--mode={_MODE.value} predicts")
    check_flags(config, _MODE.value)
    if _DISTRIBUTED.value:
        check_shared(_MODE.value)
        processes.join(stops_together=_MODE.value == "train")
    bring_to_disk(_MODE.value)
    if _MODE.value != "inspect":  # Which writes nothing.
        beside = cache.folder() if mirrors.of(workdir) else workdir.parent.absolute()
        jax.config.update("jax_compilation_cache_dir", str(beside / "compile_cache"))
    try:
        print("\n" + "\n".join(MODES[_MODE.value](config, workdir)))
    except preemption.Stopped as stopped:
        preemption.leave(stopped, _STOPPED_STATUS.value)


def check_without_recipe() -> None:
    """Raises UserError where a recipe is needed, or a video, and only a file of weights is named."""
    if _MODE.value not in WITHOUT_RECIPE:
        raise UserError(
            f"--mode={_MODE.value} needs a recipe, such as --config=configs/upernet_swin.py, beside --config.init_from."
        )
    if _MODE.value == "predict" and not _INPUT.value:
        raise UserError("Without a recipe there is no video to predict: name one with --input=VIDEO.")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line and loads the recipe; UserError for what is wrong with either."""
    given, argv = argv, recipe_of_file.added(argv)
    try:
        recipe_file.check_flags(argv[1:])
        unused = flags.FLAGS(argv)[1:]
    except BrokenPipeError:  # Help that nothing reads.
        raise
    except (flags.Error, ValueError, TypeError, OSError) as error:
        raise UserError(f"{error}\nSee python -m vspw_jax.main --help") from error
    except SystemExit as ended:
        sys.exit(0 if ended.code == ABSL_HELPED else ended.code)
    if unused:
        raise UserError(f"Unexpected arguments: {' '.join(unused)}. Every option begins with --, as in --mode=train.")
    if argv is not given:
        check_without_recipe()
    return argv[:1]


def command_line() -> None:
    """Runs the program on sys.argv and exits."""
    with processes.failing_at_once():
        run_program(lambda: app.run(main, flags_parser=parse_flags), takes_addresses=True)


if __name__ == "__main__":
    command_line()
