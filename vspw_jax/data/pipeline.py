"""The training stream: shards to clips to augmented batches (Grain).

The global batch of a step is a pure function of (seed, step), whatever the number of hosts, worker processes, threads
and restarts: clips are numbered from the start of training, the clip of a number and its randomness follow from seed
and number alone, and step n has the numbers n*batch and on. Resuming is starting at a step, on any number of hosts.
Shapes: B clips, T frames, H and W pixels.
"""

import dataclasses
import functools

import cv2
import grain
import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.data import clips, mixture, transforms


@dataclasses.dataclass(frozen=True)
class Clip:
    """What is drawn before anything is read.

    Attributes:
      member: the data set's number.
      number: the clip's among its clips since the start of training.
      elements: of the epoch, one for a clip of a video. Single images, which have no neighbours, fill a clip's frames
        one by one, each cropped and coloured by itself: no frame is padding.
    """

    member: int
    number: int
    elements: tuple


def _clips_of(member, number, config, seed):
    """All clips of a member, epoch after epoch, each epoch in an order of its own."""
    order = (
        grain.MapDataset.range(len(member.epoch))
        .shuffle(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        .repeat()
    )
    # The end of a stream without end is beyond Grain's integers: hence `drop_remainder`.
    elements = order.batch(config.frames if member.holds_images else 1, drop_remainder=True, batch_fn=tuple)
    return elements.map_with_index(functools.partial(Clip, number))


@dataclasses.dataclass(frozen=True)
class Reader:
    """Makes a batch from its clips; each is written into its place in the batch's arrays."""

    members: list
    config: ConfigDict
    crop: tuple
    seed: int

    def __call__(self, batch):
        """The fields of `training_batches`."""
        shape = (len(batch), self.config.frames, *self.crop)
        image_BTHWC, label_BTHW = np.empty((*shape, 3), np.float32), np.empty(shape, np.int32)
        for clip, *out in zip(batch, image_BTHWC, label_BTHW, strict=True):
            self._read(clip, *out)
        is_clip_B = np.array([len(clip.elements) == 1 for clip in batch])
        return {"image_BTHWC": image_BTHWC, "label_BTHW": label_BTHW, "is_clip_B": is_clip_B}

    def _read(self, clip, image_THWC, label_THW):
        member, length = self.members[clip.member], self.config.frames // len(clip.elements)
        rng = np.random.default_rng([self.seed, clip.member, clip.number])
        for part, element in enumerate(clip.elements):
            video, first = member.epoch.choose(element, rng)
            numbers = clips.clip_records(video, first, length, member.frame_gap)
            self._show(member.frames, numbers, rng, image_THWC[part * length :], label_THW[part * length :])

    def _show(self, frames, numbers, rng, image_THWC, label_THW):
        """Writes a view of some records, one frame after the other."""
        records = [frames[number] for number in numbers]
        labels = [frames.label(record) for record in records]
        if len({label.shape for label in labels}) > 1:
            for record, label in zip(records, labels, strict=True):
                frames.image(record, label)  # Names the frame if it is a mask that does not fit.
            raise UserError(f"Video {records[0]['video']} of {frames.path} changes its frame size.")
        view = transforms.random_view(labels, self.config.augment, self.crop, rng)
        shrink = view.shrink(labels[0].shape[0]) if self.config.augment.shrink_in_decoding else 1
        for record, label, *out in zip(records, labels, image_THWC, label_THW, strict=False):
            transforms.show(view, frames.image(record, label, shrink), label, *out)


def _one_after_another(runs):
    return [clip for run in runs for clip in run]


def _decode_in_one_thread(*_):
    """Batches are made side by side already: OpenCV's own threads would only get in each other's way."""
    cv2.setNumThreads(1)


def training_batches(config, batch, crop, seed, first_step=0, host=0, num_hosts=1, accumulate=1):
    """This host's part of the training batches from `first_step` on, without end.

    Args:
      config: `config.data`: the fields of `mixture.members`, frames, augment, threads, prefetch, workers.
      batch: clips a step over all hosts; host h holds clips h*batch/num_hosts and on.
      accumulate: parts of a batch; a host then holds such a run of each, one part after the other.
      crop: (height, width).

    Returns:
      An iterator of dicts, to be closed: image_BTHWC float32, label_BTHW int32 with void 255, is_clip_B bool, whether
      the frames of a clip are of one video. Shapes and types are the same for every mixture.
    """
    members = mixture.members(config)
    # Grain's mixing keeps the rule of this module: member and clip of a number are functions of the number alone. It
    # cuts weights to hundredths of the smallest.
    stream = grain.MapDataset.mix(
        [_clips_of(member, number, config, seed) for number, member in enumerate(members)],
        [member.draws(config.frames) for member in members],
    )
    stream = stream.batch(batch // accumulate // num_hosts, drop_remainder=True, batch_fn=list)
    stream = stream[first_step * accumulate * num_hosts + host :: num_hosts]
    stream = stream.batch(accumulate, drop_remainder=True, batch_fn=_one_after_another)
    stream = stream.map(Reader(members, config, tuple(crop), seed))
    if config.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain asks for flags of its own, which only a program with absl's main parses.
    _decode_in_one_thread()
    processes = max(config.workers, 1)
    threads, prefetch = (-(-total // processes) for total in (config.threads, config.prefetch))
    stream = stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    return iter(stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers), _decode_in_one_thread))


def batches_of_run(config, first_step):
    """This process's part of the batches of a run, from the one that step `first_step` + 1 takes; `config` is whole."""
    hosts = jax.process_index(), jax.process_count()
    crop, parts = config.model.image_size, config.train.accumulate
    return training_batches(config.data, config.train.batch, crop, config.seed, first_step, *hosts, parts)
