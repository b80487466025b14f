"""A trained network as a function from frames to class ids, and to class scores.

Shapes: N frames, H and W pixels, K classes, k classes kept.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree, UInt8
from ml_collections import ConfigDict

from vspw_jax.classes import unnamed, vspw
from vspw_jax.classes.class_list import VOID, ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.data.transforms import IMAGENET, Normalisation
from vspw_jax.inference import augmentation, scores
from vspw_jax.models import segmenter
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import DATA_AXES, compiler_options, make_mesh

Weights = tuple[PyTree[Array], PyTree[Array]]
"""Params and model_state."""


FULL_SCORES = "full_scores"
"""Among a result's arrays: scores of all classes, in half precision."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What was made of some frames; the devices may still work on it. The methods wait until they are done."""

    arrays: dict[str, Array]
    count: int
    memory: PyTree[Array] = ()
    """What the network remembers after these frames, for `Predictor.start` of the next; () of one that does not."""

    def labels(self) -> UInt8[np.ndarray, "N H W"]:
        """Train ids."""
        return np.asarray(self.arrays["label"])[: self.count]

    def full_scores(self) -> Sequence[Float[Array, "H W K"]]:
        """Of each frame, on the device; needs evaluate.flow_weight."""
        return [self.arrays[FULL_SCORES][n] for n in range(self.count)]

    def scores(self) -> list[scores.Compact]:
        """One of each frame; needs evaluate.save_scores."""
        kept = {name: array for name, array in self.arrays.items() if name not in ("label", FULL_SCORES)}
        parts = {name: np.asarray(array) for name, array in kept.items()}
        return [scores.Compact(**{name: part[n] for name, part in parts.items()}) for n in range(self.count)]


def check_options(options: ConfigDict, crop: tuple[int, int], num_classes: int) -> None:
    """Raises UserError where the config's `evaluate` asks for something impossible."""
    stride, scales = tuple(options.stride), tuple(options.scales)
    if len(stride) != 2 or not all(0 < step <= side for step, side in zip(stride, crop, strict=True)):
        raise UserError(
            f"evaluate.stride is {stride}: expected height and width of at least 1 and at most those of the window, "
            f"model.image_size {crop}, so that windows leave no gap. Set --config.evaluate.stride='{crop}' or less."
        )
    if not scales:
        raise UserError(
            f"evaluate.scales is {scales}: expected one number or more, such as "
            "--config.evaluate.scales='(0.75, 1.0, 1.25)'."
        )
    if options.top_classes > num_classes:
        raise UserError(
            f"evaluate.top_classes is {options.top_classes}: expected 1 to {num_classes} classes a pixel, or 0 for all."
        )
    if options.flow_weight and options.save_scores:
        raise UserError(
            f"evaluate.flow_weight is {options.flow_weight} and evaluate.save_scores is True: saved scores are "
            "those of single frames, which flow has not smoothed. Set one of them alone."
        )


def in_own_numbers(mask_HW: UInt8[np.ndarray, "H W"], outputs: Int[np.ndarray, " K"]) -> UInt8[np.ndarray, "H W"]:
    """A mask of some of a network's classes in the network's numbers of them; void stays.

    Networks that read masks have no more classes than bytes.
    """
    number_of = np.full(VOID + 1, VOID, np.uint8)
    number_of[: len(outputs)] = outputs
    return number_of[mask_HW]


class Predictor:
    """Frames of any size to train ids; compiles once for each frame size.

    Args:
      config: the whole config; `model.image_size` is the window, `evaluate` holds stride, batch and augmentation.
      graphdef: of the model.
      mesh: its devices share the frames; all of them belong to this process. A network that remembers, whose frames
        must follow each other, takes one of them.
      weights: params and model_state; may be set anew as `predictor.weights`.
      origin: where the weights come from, JSON values.
      classes: those that it predicts; None where their number alone tells.
      normalisation: of frames for the network.
      outputs: the network's numbers of these classes, where it has others beside them; None where it has these alone.
    """

    def __init__(
        self,
        config: ConfigDict,
        graphdef: nnx.GraphDef,
        mesh: Mesh,
        weights: dict[str, PyTree[Array]] | None = None,
        origin: dict[str, Any] | None = None,
        classes: ClassList | None = None,
        normalisation: Normalisation = IMAGENET,
        outputs: Int[np.ndarray, " K"] | None = None,
    ) -> None:
        self.remembers = segmenter.decoder_of(config.model).remembers
        if self.remembers:  # Its frames follow each other: devices cannot share them.
            mesh = make_mesh(devices=mesh.local_devices[:1])
        self.batch = -(-config.evaluate.batch // mesh.size) * mesh.size
        self.num_classes = config.model.num_classes if outputs is None else len(outputs)
        self._outputs, self.options = outputs, config.evaluate
        self.are_known, self.classes = classes is not None, classes or unnamed.by_number(self.num_classes)[0]
        self._mesh, self.origin, self._normalisation = mesh, origin or {}, normalisation
        self.weights = weights or {}
        self._crop = tuple(config.model.image_size)
        check_options(self.options, self._crop, self.num_classes)
        frames, whole, everywhere = P(DATA_AXES), P(), placement.replicated(mesh)

        def compiled(predict: Callable, in_specs: tuple[P, ...], out_specs: P) -> Callable:
            # shard_map, so that no device scores windows of another device's frames.
            of_model = functools.partial(predict, graphdef)
            mapped = jax.shard_map(of_model, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
            return jax.jit(mapped, out_shardings=everywhere, compiler_options=compiler_options(mesh))

        if self.remembers:
            self._predict = compiled(self._in_order, (whole,) * 4, whole)
            self._predict_by_masks = compiled(self._in_order, (whole,) * 5, whole)
        else:
            self._predict = compiled(self._each, (whole, frames), frames)
        first_memory = functools.partial(self._first_memory, graphdef)
        self._memory = jax.jit(first_memory, static_argnums=0, out_shardings=everywhere)

    def _normalised(self, frame_NHWC: UInt8[Array, "N H W 3"]) -> Float[Array, "N H W 3"]:
        mean, std = (np.array(values, np.float32) for values in self._normalisation)
        return (frame_NHWC.astype(jnp.float32) - mean) / std

    def _finish(self, score_HWK: Float[Array, "H W K"]) -> dict[str, Array]:
        if self._outputs is not None:
            score_HWK = score_HWK[..., self._outputs]
        label = {"label": score_HWK.argmax(axis=-1).astype(jnp.uint8)}
        if self.options.flow_weight:
            label[FULL_SCORES] = score_HWK.astype(jnp.float16)
        return label | (scores.compress(score_HWK, self.top_classes) if self.options.save_scores else {})

    def _each(self, graphdef: nnx.GraphDef, weights: Weights, frame_NHWC: UInt8[Array, "N H W 3"]) -> dict[str, Array]:
        """Labels, and scores where they are saved, of frames that do not depend on each other."""
        model = nnx.merge(graphdef, *weights)

        def score(window_JHWC: Float[Array, "J H W 3"]) -> Float[Array, "J h w K"]:
            return segmenter.class_scores(model(window_JHWC[:, None]))[:, 0]

        return augmentation.map_scores(score, self._normalised(frame_NHWC), self._crop, self._needed(), self._finish)

    def _in_order(
        self,
        graphdef: nnx.GraphDef,
        weights: Weights,
        frame_NHWC: UInt8[Array, "N H W 3"],
        count: Int[Array, ""],
        memory: PyTree[Array],
        mask_NHW: UInt8[Array, "N H W"] | None = None,
    ) -> tuple[dict[str, Array], PyTree[Array]]:
        """The same of the next `count` frames of a video, and what is remembered then.

        `mask_NHW` has what an earlier stage made of the frames, which the network then reads.
        """
        model = nnx.merge(graphdef, *weights)

        def look(
            window_JHWC: Float[Array, "J H W 3"], memory: PyTree[Array], *mask: UInt8[Array, "J H W"]
        ) -> tuple[Float[Array, "J h w K"], PyTree[Array]]:
            outputs, memory = model.look(window_JHWC, memory, *mask)
            return segmenter.class_scores(outputs)[:, 0], memory

        image = self._normalised(frame_NHWC)
        options = self._crop, self._needed(), self._finish
        return augmentation.scan_scores(look, memory, image, count, *options, mask_NHW)

    def _first_memory(self, graphdef: nnx.GraphDef, shape: tuple[int, int], weights: Weights) -> PyTree[Array]:
        """What is remembered before the first frame of a video of this size."""
        windows = augmentation.Windows(*shape, self._crop, self._needed())
        blank = jnp.zeros((windows.num_memories, *self._crop, 3), jnp.float32)
        return nnx.merge(graphdef, *weights).memory(blank)

    def first_memory(self, height: int, width: int) -> PyTree[Array]:
        """What the network remembers before a video's first frame; () of one that does not remember."""
        return self._memory((height, width), self._weights()) if self.remembers else ()

    @property
    def weights(self) -> dict[str, PyTree[Array]]:
        """Params and model_state; where the network remembers they are brought to its one device."""
        return self._given

    @weights.setter
    def weights(self, weights: dict[str, PyTree[Array]]) -> None:
        self._given = jax.device_put(weights, placement.replicated(self._mesh)) if self.remembers else weights

    def _weights(self) -> Weights:
        return self.weights["params"], self.weights["model_state"]

    @property
    def top_classes(self) -> int:
        """How many classes of a pixel are kept in saved scores."""
        return self.options.top_classes or self.num_classes

    def _needed(self) -> augmentation.Options:
        """The options. The second softmax is left out where it cannot change a label and no scores are kept."""
        averaged = len(self.options.scales) > 1 or self.options.flip or self.options.flow_weight > 0
        return augmentation.Options(
            stride=tuple(self.options.stride),
            windows=self.options.windows,
            scales=tuple(self.options.scales),
            flip=self.options.flip,
            double_softmax=self.options.double_softmax and (averaged or self.options.save_scores),
        )

    def identity(self) -> dict[str, Any]:
        """What decides the predictions, as JSON values: origin, digest of the weights, options of `evaluate`."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self._weights()):
            digest.update(np.asarray(leaf.addressable_data(0)).tobytes())
        options = dataclasses.asdict(self._needed())
        del options["windows"]  # It changes no result.
        top = {"top_classes": self.top_classes} if self.options.save_scores else {}
        own = {} if vspw.are(self.classes) else {"class_list": self.classes.to_json()}
        other = {} if self._normalisation == IMAGENET else {"normalisation": self._normalisation}
        made = {"weights": digest.hexdigest(), "classes": self.num_classes}
        flow = {"flow_weight": self.options.flow_weight} if self.options.flow_weight else {}
        return {**self.origin, **made, **own, **options, **top, **flow, **other}

    def start(
        self,
        frames: Sequence[UInt8[np.ndarray, "H W 3"]],
        memory: PyTree[Array] = (),
        masks: Sequence[UInt8[np.ndarray, "H W"]] | None = None,
    ) -> Result:
        """Begins at most `batch` frames of one size; does not wait for the devices.

        Args:
          memory: of a network that remembers: `first_memory`, or the `Result.memory` of the frames before.
          masks: train ids that an earlier stage made of these frames, which count `classes`; for networks that read
            masks.
        """
        missing = self.batch - len(frames)
        filled = lambda some: np.stack([*some, *[some[-1]] * missing])
        if masks is not None and self._outputs is not None:
            masks = [in_own_numbers(mask, self._outputs) for mask in masks]
        if self.remembers:
            place = lambda some: jax.device_put(filled(some), placement.replicated(self._mesh))
            inputs = self._weights(), place(frames), len(frames), memory
            made = self._predict(*inputs) if masks is None else self._predict_by_masks(*inputs, place(masks))
            return Result(made[0], len(frames), made[1])
        placed = jax.device_put(filled(frames), placement.by_clip(self._mesh))
        return Result(self._predict(self._weights(), placed), len(frames))

    def __call__(self, frames: Sequence[UInt8[np.ndarray, "H W 3"]]) -> UInt8[np.ndarray, "N H W"]:
        """Train ids of at most `batch` frames of one size, of which nothing came before."""
        return self.start(frames, self.first_memory(*frames[0].shape[:2])).labels()
