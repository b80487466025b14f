"""The training stream: shards to clips to augmented batches (Grain).

Batch `step` of the stream is a pure function of (seed, step): resuming is starting at a step.
Shapes: B clips, T frames, H and W pixels.
"""

import dataclasses

import grain
from ml_collections import ConfigDict

from vspw_jax.data import clips, records, transforms
from vspw_jax.errors import UserError


@dataclasses.dataclass
class TrainingClips:
    """Makes the clip of an element number; a Grain random_map."""

    frames: records.Frames
    config: ConfigDict
    crop: tuple

    def __call__(self, number, rng):
        """image_BTHWC and label_BTHW of one clip, less their B."""
        video, first = clips.choose_clip(self.frames.videos, number, self.config.epoch, rng)
        numbers = clips.clip_records(video, first, self.config.frames, self.config.frame_gap)
        images, labels = zip(*(self.frames.image_and_label(number) for number in numbers), strict=True)
        if len({image.shape for image in images}) > 1:
            raise UserError(f"Video {video.name} changes its frame size: {sorted({i.shape for i in images})}.")
        image, label = transforms.augment(images, labels, self.config.augment, self.crop, rng)
        return {"image_BTHWC": image, "label_BTHW": label}


def check_capacity(frames, capacity):
    """Raises UserError where a frame holds more classes than the loss has room for."""
    if frames.max_classes > capacity:
        raise UserError(
            f"A frame of {frames.path} ({frames.split}) holds {frames.max_classes} classes, but the loss has room for "
            f"{capacity}. Set --config.loss.segmentation.capacity={frames.max_classes} or more."
        )


def training_batches(config, batch, crop, seed, first_step=0, host=0, num_hosts=1):
    """This host's part of the training batches from `first_step` on, without end.

    Args:
      config: `config.data`: records, train_split, frames, frame_gap, epoch, augment, threads, prefetch.
      batch: clips a step over all hosts; host h holds clips h*batch/num_hosts and on.
      crop: (height, width).

    Returns:
      An iterator of dicts: image_BTHWC float32, label_BTHW int32 with void 255.
    """
    frames = records.Frames(config.records, config.train_split)
    stream = (
        grain.MapDataset.range(clips.epoch_length(frames.videos, config.epoch))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(TrainingClips(frames, config, tuple(crop)))
        .batch(batch // num_hosts)
    )
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.prefetch)
    return iter(stream[first_step * num_hosts + host :: num_hosts].to_iter_dataset(options))
