"""Evaluation in several stages: each reads the frames again, by the masks that the stage before it made of them.

    <workdir>/stages/<split>/<n>/<video>/<frame>.png    masks of every stage but the last, numbered from 0
    <workdir>/stages/<split>/<n>.json                   whose masks these are, and what was counted; written last

The last stage's masks are those of the evaluation. A stage that an earlier run has finished is not made again.
Source: Memory Based Video Scene Parsing (Jin et al., 2021), section 4 and table 2: stage 0 gives 61.24 mIoU, stage 1
61.43, more give no more.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.data.records import Frames
from vspw_jax.files.whole_files import whole_file
from vspw_jax.inference.predictor import Predictor
from vspw_jax.metrics import scores, table
from vspw_jax.metrics.counts import VideoCounts
from vspw_jax.metrics.predictions import Folder
from vspw_jax.metrics.truth import RecordsTruth
from vspw_jax.models import segmenter
from vspw_jax.parallel import processes

FOLDER = "stages"
Predict = Callable[[pathlib.Path, Folder | None], list[VideoCounts]]
"""Function that predicts the split into a folder, by masks where there are some, and counts."""


def check(config: ConfigDict) -> None:
    """Raises UserError where a whole config asks for stages of a network that reads no masks."""
    stages = config.evaluate.stages
    if stages and not segmenter.decoder_of(config.model).reads_masks:
        able = ", ".join(name for name, kind in segmenter.DECODERS.items() if kind.reads_masks)
        raise UserError(
            f"evaluate.stages is {stages}, but the decoder {config.model.decoder.name} reads no masks of an earlier "
            f"stage: expected one of {able}. Set --config.evaluate.stages=0."
        )


def masks_of(folder: pathlib.Path, frames: Frames) -> Folder:
    """The masks that a stage has left of a split.

    Raises:
      UserError: some are missing; they are listed.
    """
    masks = Folder(folder)
    masks.check(RecordsTruth(frames).videos)
    return masks


def _kept(path: pathlib.Path, identity: dict[str, Any], frames: Frames) -> list[VideoCounts] | None:
    """What an earlier run has counted in a stage, if it was of this model and all its masks are there."""
    try:
        found = json.loads(path.read_text())
        if found["identity"] != identity:
            return None
        masks_of(path.with_suffix(""), frames)
        return [VideoCounts.from_json(text) for text in found["counts"]]
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _make(
    path: pathlib.Path, identity: dict[str, Any], frames: Frames, masks: Folder | None, predict: Predict
) -> list[VideoCounts]:
    """Counts of a stage, of an earlier run or made now. All processes do the same."""
    kept = _kept(path, identity, frames)
    if all(processes.gathered(kept is not None)) and kept is not None:
        print(f"Stage {path.stem} was made before: {path.with_suffix('')}", flush=True)
        return kept
    if jax.process_index() == 0:
        path.unlink(missing_ok=True)  # From here on the folder's masks are others.
    counts = predict(path.with_suffix(""), masks)
    with processes.first_alone("stage"):
        if jax.process_index() == 0:
            with whole_file(path) as partial:
                partial.write_text(
                    json.dumps({"identity": identity, "counts": [one.to_json() for one in counts]}) + "\n"
                )
    return counts


def identity_of(config: ConfigDict, predictor: Predictor, frames: Frames) -> dict[str, Any]:
    """What decides a stage's masks, as JSON has it."""
    network = {name: value for name, value in config.model.to_dict().items() if name != "remat"}
    identity = {**predictor.identity(), "network": network, "fingerprint": frames.fingerprint}
    return json.loads(json.dumps(identity))


def run(
    config: ConfigDict,
    predictor: Predictor,
    frames: Frames,
    workdir: pathlib.Path,
    last: pathlib.Path,
    predict: Predict,
) -> list[list[VideoCounts]]:
    """The counts of stages 0 to `config.evaluate.stages`; none where the split has no masks to score by.

    Args:
      config: the whole config.
      last: the folder of the last stage's masks.
      predict: makes one stage; each of the processes makes its share.
    """
    by_stage, masks, stages = [], None, config.evaluate.stages
    identity = identity_of(config, predictor, frames) if stages else {}
    for stage in range(stages):
        path = workdir / FOLDER / frames.split / f"{stage}.json"
        by_stage.append(_make(path, identity, frames, masks, predict))
        masks = masks_of(path.with_suffix(""), frames)
    return [*by_stage, predict(last, masks)]


def shown(by_stage: Sequence[Sequence[VideoCounts]], classes: ClassList) -> list[dict[str, float]]:
    """Some scores of every stage."""
    summaries = [scores.summarise(counts, classes) for counts in by_stage]
    return [{name: summary[name] for name in table.HEADLINE} for summary in summaries]
