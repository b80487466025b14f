"""TensorBoard's file of a run, written at once.

tensorboardX's own SummaryWriter hands events to a thread. A full disk ends that thread; the next call then never ends.
"""

import pathlib
import platform
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

FLUSH_SECONDS = 30


class EventFile:
    """Scalars and pictures of a run that starts at `first_step`: it hides what an older start wrote from there on."""

    def __init__(self, folder: pathlib.Path, first_step: int) -> None:
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.3f}.{platform.node()}"
        self._file, self._flushed = RecordWriter(str(folder / name)), time.monotonic()
        self._add(first_step, file_version="brain.Event:2")
        self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def _add(self, step: int, **content: Any) -> None:
        self._file.write(Event(step=step, wall_time=time.time(), **content).SerializeToString())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers by name."""
        for name, value in values.items():
            self._add(step, summary=summary.scalar(name, value))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def picture(self, step: int, name: str, image_HWC: UInt8[np.ndarray, "H W 3"]) -> None:
        """Adds an RGB picture."""
        self._add(step, summary=summary.image(name, image_HWC, dataformats="HWC"))

    def close(self) -> None:
        """Writes what is left."""
        self._file.close()
