"""Evaluation in one stage or several: each reads the frames again, by the masks that the stage before it made of them.

    <workdir>/stages/<split>/<n>/<video>/<frame>.png    masks of every stage but the last, numbered from 0
    <workdir>/stages/<split>/<n>/<video>.json           whose masks these are, and what was counted; written after them
    <workdir>/stages/<split>/last/<video>.json          the same of the last stage, until its scores are written

The last stage's masks are those of the evaluation. Videos that an earlier run has finished in a stage are not predicted
in it again; the last stage begins anew once all was written, and where scores are saved.
Source: Memory Based Video Scene Parsing (Jin et al., 2021), section 4 and table 2: stage 0 gives 61.24 mIoU, stage 1
61.43, more give no more.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from vspw_jax.buckets import mirrors
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

FOLDER, LAST = "stages", "last"
Predict = Callable[..., list[VideoCounts]]
"""`evaluate.predict_and_count` from its `folder` on."""


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


def _note(notes: pathlib.Path, video: str) -> pathlib.Path:
    return notes / f"{video}.json"


def _kept(
    folder: pathlib.Path, notes: pathlib.Path, identity: dict[str, Any], frames: Frames
) -> dict[str, VideoCounts | None]:
    """What an earlier run has counted of a stage's videos, those that were of this model and have all their masks.

    Of a split without masks nothing was counted. A note that is damaged is none.
    """
    mirrors.bring(notes)
    if any(notes.glob("*.json")):
        mirrors.bring(folder)
    kept: dict[str, VideoCounts | None] = {}
    for video in RecordsTruth(frames).videos:
        try:
            found = json.loads(_note(notes, video.name).read_text())
            there = set(os.listdir(folder / video.name))
            if found["identity"] == identity and there >= {f"{frame}.png" for frame in video.frames}:
                kept[video.name] = VideoCounts.from_json(found["counts"]) if frames.has_masks else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return kept


def _clear(folder: pathlib.Path, notes: pathlib.Path, kept: Collection[str]) -> None:
    """Removes all of a stage but the videos that are kept; what says whose masks they are goes first."""
    for place in dict.fromkeys((notes, folder)):
        if not kept:
            mirrors.delete(place)
            continue
        others = [path for path in place.glob("*") if path.name.removesuffix(".json") not in kept]
        for path in sorted(others, key=pathlib.Path.is_dir):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _make(
    folder: pathlib.Path,
    notes: pathlib.Path,
    identity: dict[str, Any],
    frames: Frames,
    masks: Folder | None,
    predict: Predict,
) -> list[VideoCounts]:
    """Counts of a stage, of an earlier run or made now. All processes do the same.

    Args:
      folder: of the masks.
      notes: the folder for what says whose masks they are.
    """
    kept = _kept(folder, notes, identity, frames)
    agreed = set.intersection(*map(set, processes.gathered(list(kept))))
    left = [video.name for video in frames.videos if video.name not in agreed]
    if agreed:
        print(f"{len(agreed)} of {len(frames.videos)} videos were made before: {folder}", flush=True)
    with processes.first_alone("stage"):
        if jax.process_index() == 0:
            _clear(folder, notes, agreed)

    def done(video: str, counts: VideoCounts | None) -> None:
        notes.mkdir(parents=True, exist_ok=True)
        with whole_file(_note(notes, video)) as partial:
            text = None if counts is None else counts.to_json()
            partial.write_text(json.dumps({"identity": identity, "counts": text}) + "\n")

    made = {counts.video: counts for counts in (predict(folder, masks, left, done) if left else ())}
    counts = (made.get(video.name) or kept.get(video.name) for video in frames.videos)
    return [of_video for of_video in counts if of_video is not None]


def identity_of(config: ConfigDict, predictor: Predictor, frames: Frames) -> dict[str, Any]:
    """What decides a stage's masks, and what is counted of them, as JSON has it."""
    network = {name: value for name, value in config.model.to_dict().items() if name != "remat"}
    labels = hashlib.sha256(frames.lookup.tobytes()).hexdigest()
    identity = {**predictor.identity(), "network": network, "fingerprint": frames.fingerprint, "labels": labels}
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
    identity, here = identity_of(config, predictor, frames), workdir / FOLDER / frames.split
    for stage in range(stages):
        folder = here / str(stage)
        by_stage.append(_make(folder, folder, identity, frames, masks, predict))
        masks = masks_of(folder, frames)
    if predictor.options.save_scores:
        mirrors.delete(here / LAST)
    return [*by_stage, _make(last, here / LAST, identity | {"stages": stages}, frames, masks, predict)]


def forget_last(workdir: pathlib.Path, split: str) -> None:
    """Once all is written, the next evaluation is to begin anew."""
    mirrors.delete(workdir / FOLDER / split / LAST)


def shown(by_stage: Sequence[Sequence[VideoCounts]], classes: ClassList) -> list[dict[str, float]]:
    """Some scores of every stage."""
    summaries = [scores.summarise(counts, classes) for counts in by_stage]
    return [{name: summary[name] for name in table.HEADLINE} for summary in summaries]
