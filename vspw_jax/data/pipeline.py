"""The training stream: shards to clips to augmented batches (Grain).

The global batch of a step is a pure function of (seed, step), whatever the number of hosts, worker processes, threads
and restarts: clips are numbered from the start of training, the clip of a number and its randomness follow from seed
and number alone, and step n has the numbers n*batch and on. Resuming is starting at a step, on any number of hosts.
Shapes: B clips, T frames, H and W pixels.
"""

import dataclasses

import grain
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from vspw_jax.data import clips, mixture, transforms
from vspw_jax.errors import UserError


@dataclasses.dataclass
class TrainingClips:
    """Makes a clip of a data set from the element numbers that fill it; a Grain random_map.

    One number makes a clip of a video. Of a data set of single images, which have no neighbours, there are as many
    numbers as frames, and each image is cropped and coloured by itself: all of a step's frames are labelled.
    """

    member: mixture.Member
    config: ConfigDict
    crop: tuple

    def __call__(self, numbers, rng):
        """The fields of `training_batches` of one clip, less their B."""
        parts = [self._frames(number, len(numbers), rng) for number in numbers]
        images, labels = (np.concatenate(frames) for frames in zip(*parts, strict=True))
        return {"image_BTHWC": images, "label_BTHW": labels, "is_clip_B": np.bool_(len(numbers) == 1)}

    def _frames(self, number, parts, rng):
        member = self.member
        video, first = member.epoch.choose(number, rng)
        numbers = clips.clip_records(video, first, self.config.frames // parts, member.frame_gap)
        images, labels = zip(*(member.frames.image_and_label(number) for number in numbers), strict=True)
        if len({image.shape for image in images}) > 1:
            raise UserError(f"Video {video.name} changes its frame size: {sorted({i.shape for i in images})}.")
        return transforms.augment(images, labels, self.config.augment, self.crop, rng)


def _clips_of(member, config, crop, seed):
    """All clips of a member, epoch after epoch, each epoch in an order of its own."""
    return (
        grain.MapDataset.range(len(member.epoch))
        .seed(seed)
        .shuffle()
        .repeat()
        .batch(config.frames if member.holds_images else 1, drop_remainder=True)
        .random_map(TrainingClips(member, config, tuple(crop)))
    )


def training_batches(config, batch, crop, seed, first_step=0, host=0, num_hosts=1):
    """This host's part of the training batches from `first_step` on, without end.

    Args:
      config: `config.data`: the fields of `mixture.members`, frames, augment, threads, prefetch, workers.
      batch: clips a step over all hosts; host h holds clips h*batch/num_hosts and on.
      crop: (height, width).

    Returns:
      An iterator of dicts, to be closed: image_BTHWC float32, label_BTHW int32 with void 255, is_clip_B bool, whether
      the frames of a clip are of one video. Shapes and types are the same for every mixture.
    """
    members = mixture.members(config)
    # Grain's mixing keeps the rule of this module: member and clip of a number are functions of the number alone. It
    # cuts weights to hundredths of the smallest. The end of a stream without end is beyond its integers: hence `drop`.
    stream = grain.MapDataset.mix(
        [_clips_of(member, config, crop, seed + (number << 32)) for number, member in enumerate(members)],
        [member.draws(config.frames) for member in members],
    ).batch(batch // num_hosts, drop_remainder=True)
    stream = stream[first_step * num_hosts + host :: num_hosts]
    if config.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain asks for flags of its own, which only a program with absl's main parses.
    processes = max(config.workers, 1)
    threads, prefetch = (-(-total // processes) for total in (config.threads, config.prefetch))
    stream = stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    return iter(stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers)))
