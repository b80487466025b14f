"""The run that is tried: `configs/upernet.py:demo`, narrow, on little drawn video."""

from typing import Any

FIELDS: dict[str, Any] = {
    "model.image_size": (32, 32),
    "model.encoder.dim": 16,
    "model.decoder.dim": 16,
    "schedule.warmup_steps": 0,
    "train.batch": 8,
    "data.augment.base_size": (64, 48),
    "data.generate.train": 12,
    "data.generate.val": 3,
    "data.generate.frames": 6,
    "data.generate.height": 48,
    "data.generate.width": 64,
    "evaluate.stride": (32, 32),
    "run.log_every": 1,
    "run.picture_every": 100_000,
}
