"""What a run shows of itself: a progress line, metrics.jsonl, TensorBoard, a log, Weights & Biases where asked for."""

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from vspw_jax.console.errors import UserError
from vspw_jax.console.progress import progress
from vspw_jax.observe import compilations
from vspw_jax.observe.event_file import EventFile
from vspw_jax.observe.figures_file import FiguresFile
from vspw_jax.observe.goodput import Goodput
from vspw_jax.observe.run_log import LOG

QUIET = ("gradient_norm", "learning_rate", "bad_steps")
"""Scalars that are logged but not shown on the progress line."""


def device_memory() -> dict[str, float]:
    """{"device_memory_GiB": the most that a device of this process ever used}; {} where devices do not tell."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
    return {"device_memory_GiB": round(max(peaks) / 2**30, 3)} if peaks else {}


class WeightsAndBiases:
    """Sends figures to Weights & Biases, as one run for each workdir.

    Raises:
      UserError: it is not installed.
    """

    def __init__(self, workdir: pathlib.Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "run.wandb is set, but Weights & Biases is not installed. Install it with pip install wandb, or set "
                "--config.run.wandb=False."
            ) from error
        name = workdir.absolute().name
        self._run = wandb.init(project="vspw_jax", name=name, id=name, resume="allow", dir=str(workdir))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Sends numbers by name."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Waits until all is sent."""
        self._run.finish()


class Observer:
    """Shows training as it goes; it is called at logging steps. Only the first process writes more than its log.

    Args:
      workdir: metrics.jsonl and tensorboard/ go there.
      first_step, num_steps: of this run.
      images_per_step: over all devices.
      goodput: since the program began to train.
      wandb: whether Weights & Biases gets the scalars too.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        first_step: int,
        num_steps: int,
        images_per_step: int,
        goodput: Goodput | None = None,
        wandb: bool = False,
    ) -> None:
        self._goodput = goodput or Goodput()
        self._images_per_step = images_per_step
        self._step, self._time = first_step, time.monotonic()
        self._first_step, self._is_first = first_step, jax.process_index() == 0
        LOG.info("steps %d to %d", first_step + 1, num_steps)
        if not self._is_first:
            return
        self._wandb = WeightsAndBiases(workdir) if wandb else None
        self._file = FiguresFile(workdir, first_step)
        self._board = EventFile(workdir / "tensorboard", first_step + 1)
        self._bar = progress(description="training", unit="step", total=num_steps, initial=first_step)
        self._bar.set_postfix_str("compiling the step")

    def scalars(self, step: int, metrics: Mapping[str, Float[Array, ""] | float]) -> None:
        """Logs scalars by name, and the run's speed and state since the last call."""
        now = time.monotonic()
        rate = (step - self._step) * self._images_per_step / (now - self._time)
        values = {name: float(value) for name, value in metrics.items()}
        values |= {
            "images_per_second": round(rate, 2),
            "goodput": round(self._goodput.share, 4),
            "compilations": compilations.count(),
            **device_memory(),
        }
        LOG.info("step %d: %s", step, json.dumps(values))
        if self._is_first:
            self._show(step, metrics, values)
        self._step, self._time = step, now

    def _show(self, step: int, metrics: Mapping[str, object], values: Mapping[str, float]) -> None:
        self._file.scalars(step, values)
        self._board.scalars(step, values)
        if self._wandb:
            self._wandb.scalars(step, values)
        parts = " ".join(f"{name} {values[name]:.2f}" for name in metrics if name not in QUIET)
        self._bar.set_postfix_str(f"{parts}, {values['images_per_second']:.1f} images/s", refresh=False)
        self._bar.update(step - self._step)

    def picture(self, step: int, name: str, image_HWC: UInt8[np.ndarray, "H W 3"]) -> None:
        """Logs an RGB picture."""
        if self._is_first:
            self._board.picture(step, name, image_HWC)

    def close(self) -> None:
        """Says how the time was spent, and ends what it shows."""
        LOG.info("goodput: %s; %s", self._goodput, compilations.describe())
        if self._is_first:
            self._bar.close()
            if self._step > self._first_step:
                print(f"Goodput: {self._goodput}", file=sys.stderr, flush=True)
            with contextlib.closing(self._file), contextlib.closing(self._board):
                if self._wandb:
                    self._wandb.close()
