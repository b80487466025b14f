"""A trained network as a function from frames to class ids.

Shapes: N frames, H and W pixels, K classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vspw_jax import sharding
from vspw_jax.data import transforms
from vspw_jax.inference import sliding_window
from vspw_jax.models import layers, segmenter


class Predictor:
    """Frames of any size to train ids; compiles once for each frame size.

    Args:
      config: the whole config; `model.image_size` is the window, `evaluate` holds stride and batch.
      graphdef: of the model.
      mesh: frames are shared among its devices.
      weights: dict of params and model_state; may be set anew as `predictor.weights`.
    """

    def __init__(self, config, graphdef, mesh, weights=None):
        self.weights = weights
        self.batch = -(-config.evaluate.batch // mesh.size) * mesh.size
        self._mesh = mesh
        crop, stride = tuple(config.model.image_size), tuple(config.evaluate.stride)

        def predict(params, model_state, frame_NHWC):
            model = nnx.merge(graphdef, params, model_state)

            def score(window_NHWC):
                return segmenter.class_scores(model(window_NHWC[:, None]))[:, 0]

            height, width = frame_NHWC.shape[1:3]
            image = (frame_NHWC.astype(jnp.float32) - transforms.IMAGE_MEAN) / transforms.IMAGE_STD
            image = layers.resize_bilinear(image, *sliding_window.input_size(height, width, crop))
            scores = layers.resize_bilinear(sliding_window.class_scores(score, image, crop, stride), height, width)
            return scores.argmax(axis=-1).astype(jnp.uint8)

        self._predict = jax.jit(
            predict, out_shardings=sharding.replicated(mesh), compiler_options=sharding.compiler_options(mesh)
        )

    def __call__(self, frames):
        """Train ids (N, H, W) uint8 of at most `batch` frames (H, W, 3) uint8 of one size.

        Several processes call it together, with the same frames.
        """
        missing = self.batch - len(frames)
        global_batch = sharding.shared(self._mesh, np.stack([*frames, *[frames[-1]] * missing]))
        return np.asarray(self._predict(self.weights["params"], self.weights["model_state"], global_batch))[
            : len(frames)
        ]
