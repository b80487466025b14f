"""What a frame of a video costs where a network remembers, beside the network that it is made of.

    python -m benchmarks.streaming [--networks=memory|ssltm|ssltm_swin] [--size=demo|middle|full] [--rounds=40]
                                   [--count]

"memory" is decoders A and B of paper 001 beside UperNet, "ssltm" and "ssltm_swin" paper 002 beside OCRNet on the same
encoder. All of a comparison have the encoder, crop and random weights of one size, and frames are one window large:
"demo" is the recipes' demo, "full" the recipes, "middle" between them. A frame goes through the predictor as in
--mode=predict, with what the network remembers of the frames before. The networks take turns; of each round's ratio to
the first the median and its 95 % interval (of medians of rounds drawn anew) are printed, by the clock and in processor
time. Then the parts of a frame take turns, each compiled by itself. Beside times stand floating point operations of
matrix products and convolutions, loops times their rounds; --count prints these alone and compiles nothing.
"""

import argparse
import importlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from benchmarks import measure
from configs.parts import losses
from vspw_jax.console.errors import run_program
from vspw_jax.inference.predictor import Predictor
from vspw_jax.inspection import step_cost
from vspw_jax.models.decoders.ocrnet import OcrNet
from vspw_jax.parallel.mesh import compiler_options, make_mesh
from vspw_jax.training import train_state

COMPARISONS = {
    "memory": ("upernet", "memory_a", "memory_b"),
    "ssltm": ("ocrnet of ssltm", "ssltm"),
    "ssltm_swin": ("ocrnet of ssltm_swin", "ssltm_swin"),
}
"""Networks by --networks, the one that the others are compared with first. "ocrnet of" a recipe is what its network is
without the parts that remember."""
CLOCKS = {"clock": time.perf_counter, "processor": time.process_time}
MIDDLE = {
    "model.image_size": (256, 256),
    "model.encoder.dim": 384,
    "model.encoder.depth": 12,
    "model.encoder.heads": 6,
    "model.encoder.out_blocks": (4, 6, 8, 12),
    "model.decoder.dim": 384,
    "model.decoder.auxiliary_dim": 96,
}
"""Of a full recipe with a BEiT: a quarter of the cells, 384 wide in place of 1024, half as deep."""
MIDDLE_A = {**MIDDLE, "model.decoder.memory_dim": 192}
MIDDLE_SSLTM = {"model.image_size": (256, 256)}
MIDDLES = {
    "upernet": MIDDLE,
    "memory_a": MIDDLE_A,
    "memory_b": {**MIDDLE_A, "model.decoder.key_dim": 24, "model.decoder.value_dim": 96},
    "ssltm": MIDDLE_SSLTM,
    "ssltm_swin": MIDDLE_SSLTM,
}


def recipe(name, size):
    """A recipe at a size; frames are one window large."""
    is_baseline, name = name.startswith("ocrnet of "), name.removeprefix("ocrnet of ")
    config = importlib.import_module(f"configs.{name}").get_config("demo" if size == "demo" else "full")
    if size == "middle":
        config.update_from_flattened_dict(MIDDLES[name])
    if is_baseline:
        fields = {field: config.model.decoder[field] for field in OcrNet.FIELDS}
        config.model.decoder = ConfigDict({"name": "ocrnet", **fields})
        config.loss.segmentation = losses.per_pixel()
    config.model.remat = "none"
    config.evaluate.update(stride=config.model.image_size, batch=1)
    return config


def drawn_weights(config):
    """(graphdef, params, model_state) with random weights; every class is in the memory."""
    graphdef, *shapes = train_state.describe(config)
    rng = np.random.default_rng(0)

    def draw(leaf):
        if np.issubdtype(leaf.dtype, np.floating):
            return jnp.asarray(0.02 * np.abs(rng.normal(size=leaf.shape)), leaf.dtype)
        return jnp.ones(leaf.shape, leaf.dtype)

    return graphdef, *jax.tree.map(draw, shapes)


def drawn_frames(config, count=8):
    return np.random.default_rng(1).integers(0, 256, (count, *config.model.image_size, 3), np.uint8)


class Stream:
    """Calling it predicts the next frame of a video that never ends, as --mode=predict does."""

    def __init__(self, config):
        graphdef, params, model_state = drawn_weights(config)
        mesh = make_mesh(devices=jax.devices()[:1])
        self._predictor = Predictor(config, graphdef, mesh, {"params": params, "model_state": model_state})
        self._frames, self._number = drawn_frames(config), 0
        self._memory = self._predictor.first_memory(*config.model.image_size)

    def __call__(self):
        result = self._predictor.start([self._frames[self._number % len(self._frames)]], self._memory)
        result.labels()
        self._memory, self._number = result.memory, self._number + 1


class Part(NamedTuple):
    """A part of a frame's way: what it is given, and under which name others find what it makes."""

    name: str
    run: Callable
    given: tuple[str, ...]
    makes: str = ""


def _recall(model, mask, features):
    return model.decoder.feature_memory.recall(jax.nn.one_hot(mask, model.decoder.num_classes), features)


def _attend_over_time(model, features, past):
    return model.decoder.temporal.next_frame(features, past, jnp.array([False]))[0]


def _transform(model, past, features):
    return model.decoder.temporal(jnp.concatenate([past, features[:, None]], axis=1))


def _with_clusters(model, vectors):
    return jnp.concatenate([vectors, model.decoder.clusters.for_images(vectors)], axis=1)


ENCODER = (
    Part("encoder", lambda model, image: model.encoder(image), ("image",), "maps"),
    Part("UperNet's features", lambda model, maps: model.decoder.fuse(maps, False), ("maps",), "wide"),
)
CLASSIFIER = Part("classifier", lambda model, wide: model.decoder.classifier(wide, None), ("wide",))
REPRESENT = Part("representations", lambda model, maps: model.decoder.represent(maps, False), ("maps",), "features")
OVER_TIME = Part("attention over time", _attend_over_time, ("features", "past"), "features")
MEMORY = (
    Part("first pass", lambda model, features: model.decoder.first_head(features, False), ("features",), "first_pass"),
    Part("reading the memory", _recall, ("mask", "features"), "recalled"),
    Part("attention", lambda model, *maps: model.decoder.attention(*maps, False), ("features", "recalled"), "context"),
    Part("join", lambda model, *maps: model.decoder.join(*maps, False), ("wide", "context"), "joined"),
    Part("head", lambda model, joined: model.decoder.head(joined, False), ("joined",)),
)
OCR = (
    ENCODER[0],
    Part("features", lambda model, maps: model.decoder.features(maps, False), ("maps",), "features"),
    Part("first guess", lambda model, maps: model.decoder.guess(maps, None), ("maps",), "guess"),
    Part("class vectors", lambda model, *given: model.decoder.class_vectors(*given), ("features", "guess"), "vectors"),
)
ATTEND = Part("attention, classifier", lambda model, *given: model.decoder.decoded(*given, None), ("seen", "vectors"))
TRANSFORM = Part("transformer", _transform, ("past", "features"), "seen")
CLUSTERS = Part("clusters", _with_clusters, ("vectors",), "vectors")
PARTS = {
    "upernet": (*ENCODER, CLASSIFIER),
    "memory_a": (*ENCODER, REPRESENT, *MEMORY),
    "memory_b": (*ENCODER, REPRESENT, OVER_TIME, *MEMORY),
    "ocrnet": (*OCR, ATTEND._replace(given=("features", "vectors"))),
    "ssltm": (*OCR, TRANSFORM, CLUSTERS, ATTEND),
}
"""By the decoder's name."""


def part_shapes(merge, state, config):
    """For each part (the part as a function of the state and its inputs, shapes of these inputs)."""
    shapes = {"image": jax.ShapeDtypeStruct((1, *config.model.image_size, 3), jnp.float32)}
    made = {}
    for part in PARTS[config.model.decoder.name]:
        if "past" in part.given:
            kept = jax.eval_shape(lambda state, maps: merge(state).decoder.memory(maps), state, shapes["maps"])
            shapes["past"] = kept["past"]
        if "mask" in part.given:
            shapes["mask"] = jax.ShapeDtypeStruct(shapes["features"].shape[:3], jnp.uint8)

        def run(state, *given, part=part):
            return part.run(merge(state), *given)

        given = tuple(shapes[name] for name in part.given)
        made[part.name] = run, given
        shapes[part.makes] = jax.eval_shape(run, state, *given)
    return made


def part_operations(config):
    """GFLOP of the parts of a frame by name; nothing is compiled."""
    graphdef, *state = train_state.describe(config)
    found = part_shapes(lambda state: nnx.merge(graphdef, *state), state, config)
    count = lambda run, given: step_cost.matrix_flops(jax.make_jaxpr(run)(state, *given).jaxpr) / 1e9
    return {part: count(*found[part]) for part in found}


def part_calls(config):
    """The parts of a frame by name, compiled, as functions without arguments."""
    graphdef, *state = drawn_weights(config)
    options = compiler_options(make_mesh(devices=jax.devices()[:1]))

    def call(run, shapes):
        given = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
        compiled = jax.jit(run, compiler_options=options)
        return lambda: jax.block_until_ready(compiled(state, *given))

    found = part_shapes(lambda state: nnx.merge(graphdef, *state), state, config)
    return {part: call(*found[part]) for part in found}


def interval(ratios, draws=2000):
    """(median, 2.5 % and 97.5 % of the medians of as many values drawn from them)."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (draws, len(ratios))), axis=1)
    return np.median(ratios), *np.quantile(medians, (0.025, 0.975))


def compare(names, size, rounds):
    """Prints each recipe's time a frame, and the ratio to the first one's."""
    streams = [Stream(recipe(name, size)) for name in names]
    for clock, now in CLOCKS.items():
        seconds_FR = measure.turns(streams, rounds, now)
        for name, seconds_R in zip(names, seconds_FR, strict=True):
            ratio, low, high = interval(seconds_R / seconds_FR[0])
            print(
                f"{name:<21}{1e3 * np.median(seconds_R):9.1f} ms by the {clock}"
                f"   {ratio:.3f} times {names[0]} ({low:.3f} to {high:.3f})",
                flush=True,
            )


def show_parts(name, size, rounds):
    """Prints operations, and times unless `rounds` is 0, of what a frame passes."""
    config = recipe(name, size)
    operations = part_operations(config)
    calls = part_calls(config) if rounds else {}
    seconds = measure.take_turns(list(calls.values()), rounds, time.process_time) if rounds else []
    times = dict(zip(calls, seconds, strict=True))
    for part, count in operations.items():
        taken = f"{1e3 * times[part]:9.2f} ms" if times else ""
        print(f"  {part:<20}{count:10.3f} GFLOP{taken}", flush=True)
    return sum(operations.values())


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--networks", default="memory", choices=COMPARISONS)
    result.add_argument("--size", default="demo", choices=("demo", "middle", "full"))
    result.add_argument("--rounds", type=int, default=40)
    result.add_argument("--count", action="store_true")
    return result


def main():
    flags = parser().parse_args()
    names = COMPARISONS[flags.networks]
    if not flags.count:
        compare(names, flags.size, flags.rounds)
    totals = []
    for name in names:
        print(name)
        totals.append(show_parts(name, flags.size, 0 if flags.count else flags.rounds))
        print(f"  {'all':<20}{totals[-1]:10.3f} GFLOP, {totals[-1] / totals[0]:.3f} times {names[0]}", flush=True)


if __name__ == "__main__":
    measure.keep_freed_memory("benchmarks.streaming")
    run_program(main)
