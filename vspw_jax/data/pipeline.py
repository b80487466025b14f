"""The training stream: shards to clips to augmented batches (Grain).

The global batch of a step is a pure function of (seed, step), whatever the number of hosts, worker processes, threads
and restarts. Clips are numbered from the start of training; a clip and its randomness follow from the seed and its
number alone; step n has the clips n*batch to (n+1)*batch - 1. To resume is to start at a step, on any number of hosts.
Shapes: B clips, T frames, H and W pixels.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import cv2
import grain
import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.data import clips, mixture, transforms, views


@dataclasses.dataclass(frozen=True)
class Clip:
    """What is drawn before anything is read.

    Attributes:
      member: the data set's number.
      number: of the clip among the data set's clips since the start of training.
      elements: numbers of elements of the epoch; one if the clip is of a video. Single images have no neighbours: a
        clip holds one for each of the frames that a view shows, and each is cropped and coloured by itself. No frame is
        padding.
    """

    member: int
    number: int
    elements: tuple[int, ...]


def _clips_of(member: mixture.Member, number: int, config: ConfigDict, seed: int) -> grain.MapDataset[Clip]:
    """All clips of a member, epoch after epoch, each epoch in an order of its own."""
    order = (
        grain.MapDataset.range(len(member.epoch))
        .shuffle(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        .repeat()
    )
    # An endless stream is as long as `len` allows. Without `drop_remainder` Grain divides its length as a float, which
    # may round to more than that.
    elements = order.batch(
        views.frames_shown(config) if member.holds_images else 1, drop_remainder=True, batch_fn=tuple
    )
    return elements.map_with_index(functools.partial(Clip, number))


@dataclasses.dataclass(frozen=True)
class Reader:
    """Makes a batch from its clips; each is written into its place in the batch's arrays."""

    members: list[mixture.Member]
    config: ConfigDict
    crop: transforms.Size
    seed: int

    def __call__(self, batch: Sequence[Clip]) -> dict[str, np.ndarray]:
        """The fields of `training_batches`."""
        shapes = views.shapes(self.config, self.crop, len(batch))
        arrays = {name: np.empty(like.shape, like.dtype) for name, like in shapes.items()}
        for number, clip in enumerate(batch):
            arrays[views.BATCH][number] = len(clip.elements) == 1
            self._read(clip, {name: array[number] for name, array in arrays.items()})
        return arrays

    def _read(self, clip: Clip, out: Mapping[str, np.ndarray]) -> None:
        """Writes a clip into its place in a batch, by the names of the batch's arrays."""
        member, length = self.members[clip.member], self.config.frames // len(clip.elements)
        shown = views.frames_shown(self.config) // len(clip.elements)
        rng = np.random.default_rng([self.seed, clip.member, clip.number])
        layout = clips.layout(self.config, length, member.frame_gap)
        for part, element in enumerate(clip.elements):
            numbers = layout.records(*member.epoch.choose(element, rng), rng)
            frames = slice(part * shown, (part + 1) * shown)
            self._show(member, numbers, rng, {name: out[name][frames] for name in out if name != views.BATCH})
        if member.part is not None:
            for name in views.labels(out):
                out[name][...] = member.part.lookup[out[name]]

    def _show(
        self, member: mixture.Member, numbers: Sequence[int], rng: np.random.Generator, out: Mapping[str, np.ndarray]
    ) -> None:
        """Writes the views of some records, one frame after the other."""
        frames = member.frames
        read = [frames[number] for number in numbers]
        labels = [frames.label(record) for record in read]
        if len({label.shape for label in labels}) > 1:
            for record, label in zip(read, labels, strict=True):
                frames.image(record, label)  # Raises an error that names the frame whose mask does not fit.
            raise UserError(f"Video {read[0]['video']} of {frames.path} changes its frame size.")
        scheme = views.scheme(self.config)
        drawn = dict(zip(scheme.prefixes, scheme.draw(labels, self.config.augment, self.crop, rng), strict=True))
        shrinking = self.config.augment.shrink_in_decoding
        shrink = min(view.shrink(labels[0].shape[0]) for view in drawn.values()) if shrinking else 1
        places = len(out[views.ARRAYS[1]])
        for number, (record, label) in enumerate(zip(read, labels, strict=True)):
            image = frames.image(record, label, shrink)
            run, place = divmod(number, places)
            for prefix in scheme.prefixes[run : run + 1] if scheme.divide_frames else scheme.prefixes:
                drawn[prefix].show(image, label, *(out[f"{prefix}{name}"][place] for name in views.ARRAYS))
            if views.UNLABELLED in out and run == 0:
                height, width = drawn[""].shown_size(label.shape)
                out[views.UNLABELLED][place] = False
                out[views.UNLABELLED][place, :height, :width] = member.name == mixture.UNLABELLED


def _one_after_another(runs: Sequence[list[Clip]]) -> list[Clip]:
    return [clip for run in runs for clip in run]


def _decode_in_one_thread(*_: object) -> None:
    """Several threads make batches already; threads of OpenCV's own would only slow them down."""
    cv2.setNumThreads(1)


def training_batches(
    config: ConfigDict,
    batch: int,
    crop: transforms.Size,
    seed: int,
    first_step: int = 0,
    host: int = 0,
    num_hosts: int = 1,
    accumulate: int = 1,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """This host's part of the training batches from `first_step` on, without end.

    Args:
      config: `config.data`: the fields of `mixture.members` and `clips.layout`, frames, views, augment, threads,
        prefetch, workers.
      batch: clips a step over all hosts; host h holds batch/num_hosts clips, from clip h*batch/num_hosts on.
      accumulate: number of parts of a batch; a host then holds its run of clips of each part, one after the other.
      crop: (height, width).

    Returns:
      An iterator of dicts; the caller closes it. They hold image_BTHWC float32 and label_BTHW int32 with void 255, the
      same of further views where `data.views` has them, is_clip_B bool: whether the frames of a clip are of one video,
      and where `data.unlabelled_share` is not 0 unlabelled_BTHW bool; see `views.py`. Shapes and types are the same for
      every mixture.
    """
    members = mixture.members(config)
    # Grain's mixing keeps the rule of this module: the number of a clip alone decides its member and its place there.
    # Grain rounds weights down to hundredths of the smallest one.
    stream = grain.MapDataset.mix(
        [_clips_of(member, number, config, seed) for number, member in enumerate(members)],
        [member.draws(views.frames_shown(config)) for member in members],
    )
    stream = stream.batch(batch // accumulate // num_hosts, drop_remainder=True, batch_fn=list)
    stream = stream[first_step * accumulate * num_hosts + host :: num_hosts]
    stream = stream.batch(accumulate, drop_remainder=True, batch_fn=_one_after_another)
    stream = stream.map(Reader(members, config, crop, seed))
    if config.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own, which only a program with absl's main parses.
    _decode_in_one_thread()
    processes = max(config.workers, 1)
    threads, prefetch = (-(-total // processes) for total in (config.threads, config.prefetch))
    stream = stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    return iter(stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers), _decode_in_one_thread))


def batches_of_run(config: ConfigDict, first_step: int) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """This process's part of a run's batches; the first is that of step `first_step` + 1. `config` is the whole one."""
    hosts = jax.process_index(), jax.process_count()
    crop, parts = config.model.image_size, config.train.accumulate
    return training_batches(config.data, config.train.batch, crop, config.seed, first_step, *hosts, parts)
