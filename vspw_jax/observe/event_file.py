"""TensorBoard's file of a run, written at once.

tensorboardX's own SummaryWriter hands events to a thread, which a full disk ends; whoever then adds one waits for ever.
"""

import platform
import time

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

FLUSH_SECONDS = 30


class EventFile:
    """Scalars and pictures of a run that goes on at a step: what an earlier start wrote from there on is hidden."""

    def __init__(self, folder, first_step):
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.3f}.{platform.node()}"
        self._file, self._flushed = RecordWriter(str(folder / name)), time.monotonic()
        self._add(first_step, file_version="brain.Event:2")
        self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def _add(self, step, **content):
        self._file.write(Event(step=step, wall_time=time.time(), **content).SerializeToString())

    def scalars(self, step, values):
        """Adds numbers by name."""
        for name, value in values.items():
            self._add(step, summary=summary.scalar(name, value))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def picture(self, step, name, image_HWC):
        """Adds a uint8 RGB picture."""
        self._add(step, summary=summary.image(name, image_HWC, dataformats="HWC"))

    def close(self):
        """Writes what is left."""
        self._file.close()
