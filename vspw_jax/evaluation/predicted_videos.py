"""The stream of predicted videos of a split: which are this process's, and each frame with its prediction, in order."""

import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import grain
import numpy as np
from jaxtyping import UInt8

from vspw_jax.classes.class_list import ClassList
from vspw_jax.data.records import Frames, Video
from vspw_jax.files import mask_png
from vspw_jax.inference.flow_smoothing import Smoothing
from vspw_jax.inference.in_order import InOrder
from vspw_jax.inference.predictor import Predictor, Result
from vspw_jax.inference.recorded import Recorded, Recorder
from vspw_jax.inference.threads import WriteBehind, one_ahead
from vspw_jax.metrics import predictions

Frame = tuple[str, UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]
"""Name, RGB pixels and label."""
PredictedFrame = tuple[str, UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]
"""Name, RGB pixels, label and prediction."""
PredictedVideo = tuple[str, Iterator[PredictedFrame]]
"""The video's name and its frames."""


def decoded_frames(frames: Frames, videos: Sequence[Video], threads: int) -> Iterator[Frame]:
    """All frames of some videos of a split in order, decoded ahead by threads."""
    numbers = [number for video in videos for number in range(video.start, video.start + video.count)]

    def decode(number: int) -> Frame:
        record = frames[number]
        label = frames.label(record)
        return record["frame"], frames.image(record, label), label

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(grain.MapDataset.source(numbers).map(decode).to_iter_dataset(options)) if numbers else iter(())


def predict(
    predictor: Predictor | Recorder,
    frames: Frames,
    videos: Sequence[Video],
    threads: int,
    masks: predictions.Folder | None = None,
) -> Iterator[PredictedVideo]:
    """Yields some videos of a split with their predictions.

    Predicts in batches: the devices already have the next batch while this one's predictions are worked on. A network
    that remembers begins each video anew, and so does smoothing along optical flow.

    Args:
      masks: of an earlier stage, for a network that reads them.
    """
    decoded = decoded_frames(frames, videos, threads)

    def predicted(video: Video) -> Iterator[PredictedFrame]:
        left = itertools.islice(decoded, video.count)
        batches = iter(lambda: list(itertools.islice(left, predictor.batch)), [])
        in_order, smoothing = InOrder(predictor), Smoothing(predictor.options)

        def begin(batch: list[Frame]) -> tuple[list[Frame], Result | Recorded]:
            images = [image for _, image, _ in batch]
            given = () if masks is None else ([masks.mask(video.name, name) for name, _, _ in batch],)
            return batch, in_order.start(images, *given)

        for batch, result in one_ahead(begin, batches):
            labels = smoothing.labels([image for _, image, _ in batch], result)
            for frame, prediction in zip(batch, labels, strict=True):
                yield *frame, prediction

    for video in videos:
        yield video.name, predicted(video)


def stored(
    videos: Iterable[PredictedVideo], folder: pathlib.Path, write: WriteBehind, classes: ClassList
) -> Iterator[PredictedVideo]:
    """The same videos; each prediction is stored in a folder of predictions as it passes."""

    def passed(video: str, frames: Iterator[PredictedFrame]) -> Iterator[PredictedFrame]:
        for name, image, label, prediction in frames:
            write(mask_png.save, prediction, predictions.path_of(folder, video, name), classes)
            yield name, image, label, prediction

    for video, frames in videos:
        yield video, passed(video, frames)
