"""The program with a network that compiles in a second: to be run as several processes that train it together.

Blocks are stacked twice, as BEiT's, so that their weights are gathered inside two scans; a batch norm's statistics span
all processes.

With STOPPED=training:1 in the environment process 1 gets SIGTERM as it reads its second batch, with evaluating:0
process 0 as it begins to predict a split; with predicting:1 process 1 is killed at the second batch of a video. Several
are divided by commas. With SECONDS_A_BATCH=0.5 every batch is so slow. With REMEMBERS=yes the network averages features
over time.
"""

import os
import signal
import time

import jax
import jax.numpy as jnp

from vspw_jax import main
from vspw_jax.data import pipeline
from vspw_jax.evaluation import predicted_videos
from vspw_jax.inference import in_order
from vspw_jax.inference import predict as inference_predict
from vspw_jax.models import layers, segmenter
from vspw_jax.models.decoders import decoder, upernet
from vspw_jax.models.encoders import beit_pyramid, encoder
from vspw_jax.parallel import processes

CELL = 4


class Encoder(encoder.Encoder):
    """Cells of 4x4 pixels, four residual blocks, and the same map at four scales."""

    FIELDS = beit_pyramid.BeitPyramid.FIELDS
    STACKED = {"blocks": 2}

    @classmethod
    def maps(cls, config):
        return tuple(encoder.FeatureMap(config.dim, CELL * scale) for scale in (1, 2, 4, 8))

    def __init__(self, config, image_size, remat, *, dtype, rngs):
        make = lambda rngs: layers.linear(config.dim, config.dim, dtype=dtype, rngs=rngs)
        self.cells = layers.linear(3 * CELL * CELL, config.dim, dtype=dtype, rngs=rngs)
        self.blocks = layers.stack_modules(lambda rngs: layers.stack_modules(make, 2, rngs), 2, rngs)

    def __call__(self, image_NHWC, train=False, keys_N=None):
        num_images, height, width, _ = image_NHWC.shape
        cells = image_NHWC.reshape(num_images, height // CELL, CELL, width // CELL, CELL, 3).swapaxes(2, 3)
        x = self.cells(cells.reshape(num_images, height // CELL, width // CELL, -1))
        block = lambda linear, x, _: (x + jnp.tanh(linear(x)), None)
        run = lambda linears, x, _: layers.scan_modules(linears, block, x, remat="full")
        x, _ = layers.scan_modules(self.blocks, run, x)
        return [x[:, ::stride, ::stride] for stride in (1, 2, 4, 8)]


class Decoder(decoder.Decoder):
    """A batch norm and a classifier."""

    FIELDS = upernet.UperNet.FIELDS
    SEGMENTATION_LOSS = "per_pixel"

    def __init__(self, maps, num_classes, config, remat, *, dtype, rngs):
        width = maps[0].width
        self.norm = layers.batch_norm(width, dtype=dtype, rngs=rngs)
        self.classifier = layers.linear(width, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, maps, training=None):
        features = self.norm(maps[0], use_running_average=training is None)
        logits = self.classifier(features)
        return {"features_NHWC": features, "logits_NHWC": logits, "auxiliary_logits_NHWC": logits}


class Remembering(Decoder):
    """The same; a frame's features are averaged with those of the frames before."""

    remembers = True
    SHARE = 0.3
    """Of the features that a frame adds to those remembered."""

    def memory(self, maps):
        return {"features": jnp.zeros_like(maps[0]), "frames": jnp.zeros(len(maps[0]), jnp.int32)}

    def look(self, maps, memory, mask_NHW=None):
        new = self.norm(maps[0], use_running_average=True)
        mixed = memory["features"] + self.SHARE * (new - memory["features"])
        features = jnp.where((memory["frames"] == 0)[:, None, None, None], new, mixed)
        return {"logits_NHWC": self.classifier(features)}, {"features": features, "frames": memory["frames"] + 1}


segmenter.ENCODERS["beit"], segmenter.DECODERS["upernet"] = (
    Encoder,
    Remembering if os.environ.get("REMEMBERS") else Decoder,
)

NOTICED_SECONDS = 5
"""Within which jax.distributed, which looks for SIGTERM once a second, has told every process."""


def stops(what):
    """Whether this process is to be stopped in training, evaluating or predicting."""
    return f"{what}:{jax.process_index()}" in os.environ.get("STOPPED", "").split(",")


def training_batches(*args, batches=pipeline.training_batches):
    for number, batch in enumerate(batches(*args)):
        time.sleep(float(os.environ.get("SECONDS_A_BATCH", 0)))
        if number >= 1 and stops("training"):
            if number == 1:
                signal.raise_signal(signal.SIGTERM)
            time.sleep(NOTICED_SECONDS)
        yield batch


def predict(*args, videos=predicted_videos.predict):
    if stops("evaluating"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(NOTICED_SECONDS)  # Else a busy machine may be done before it has seen the signal.
    yield from videos(*args)


class InOrder(in_order.InOrder):
    """A video's batches, of which the second may never come."""

    batches = 0

    def start(self, *args):
        self.batches += 1
        if self.batches == 2 and stops("predicting"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().start(*args)


if __name__ == "__main__":
    processes.HEARTBEAT_SECONDS = 20  # That those left behind by a killed one end soon.
    pipeline.training_batches, predicted_videos.predict = training_batches, predict
    predicted_videos.InOrder = inference_predict.InOrder = InOrder
    main.command_line()
