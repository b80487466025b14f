"""What a run shows of itself: a progress line, metrics.jsonl, TensorBoard."""

import json
import time

import tensorboardX

from vspw_jax.progress import progress
from vspw_jax.whole_files import whole_file

QUIET = ("gradient_norm", "learning_rate")
"""What is logged but not shown on the progress line."""


class Observer:
    """Shows training as it goes; all calls are made at logging steps, on the main process.

    Args:
      workdir: metrics.jsonl and tensorboard/ go there.
      first_step, num_steps: of this run.
      images_per_step: over all devices.
    """

    def __init__(self, workdir, first_step, num_steps, images_per_step):
        self._drop_repeated_lines(workdir / "metrics.jsonl", first_step)
        self._file = (workdir / "metrics.jsonl").open("a")
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)
        self._images_per_step = images_per_step
        self._step, self._time = first_step, time.monotonic()
        self._bar = progress(description="training", unit="step", total=num_steps, initial=first_step)
        self._bar.set_postfix_str("compiling the step")

    @staticmethod
    def _drop_repeated_lines(path, first_step):
        """Removes what a killed run logged beyond the checkpoint that this one starts from."""
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= first_step]
            with whole_file(path) as partial:
                partial.write_text("".join(f"{line}\n" for line in kept))

    def scalars(self, step, metrics):
        """Logs scalars by name, with the rate since the last call."""
        now = time.monotonic()
        rate = (step - self._step) * self._images_per_step / (now - self._time)
        values = {name: float(value) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **values, "images_per_second": round(rate, 2)}) + "\n")
        self._file.flush()
        for name, value in {**values, "images_per_second": rate}.items():
            self._board.add_scalar(name, value, step)
        parts = " ".join(f"{name} {values[name]:.2f}" for name in values if name not in QUIET)
        self._bar.set_postfix_str(f"{parts}, {rate:.1f} images/s", refresh=False)
        self._bar.update(step - self._step)
        self._step, self._time = step, now

    def picture(self, step, name, image_HWC):
        """Logs a uint8 RGB picture."""
        self._board.add_image(name, image_HWC, step, dataformats="HWC")

    def close(self):
        self._bar.close()
        self._file.close()
        self._board.close()
