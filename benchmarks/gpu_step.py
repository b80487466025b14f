"""The training step of full recipes on the device that is here: its time, its share of the peak, its memory.

    python -m benchmarks.gpu_step --recipe=nce --crop=480 --frames=2 --clips=1 --remat=none
    python -m benchmarks.gpu_step --recipe=nce --crop=896 --frames=4 --trace       with the time of each module

The step of the recipe, from random weights, takes drawn images and drawn regions of classes. Printed are milliseconds a
step; in bfloat16 the operations of the model (nothing rematerialised) in that time, over the peak that the maker states
(MFU) and over what a product of matrices reaches on this device in the same process; memory, as compiled and as
allotted at most; and the losses of the first and the last step. `--trace` looks at a few more steps with the profiler:
the time by module of the model and by line of source. It compiles without CUDA graphs, so that a step of many small
kernels takes longer. With --json the same goes to a file. `--dtype=float32` multiplies in full float32, so that the
losses of the first step can be compared.
"""

import dataclasses
import json
import pathlib
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import compile_for_tpu, device_trace, gpu_cards
from benchmarks.tpu_cost import frames, tables
from vspw_jax.classes.class_list import VOID
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files import writable
from vspw_jax.inspection import step_cost
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import optimizers, train_state, train_step

PEAKS = {card.name: card.operations for card in gpu_cards.CARDS.values()}
"""Operations a second of dense bfloat16 products, by the device's name."""
REGIONS = 12
"""Of a drawn frame, each of one class."""
TRACED = 3
"""Steps that the profiler sees."""
WITHOUT_GRAPHS = {"xla_gpu_enable_command_buffer": ""}
"""XLA's options for a step that the profiler sees: of a kernel in a CUDA graph it does not know the instruction."""
SQUARE = 8192
"""Side of the matrices whose product tells what the device can reach."""


def drawn_labels(rng, shape, num_classes):
    """Regions of classes around drawn points, some of them void: integers of a shape (..., H, W)."""
    *leading, height, width = shape
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    labels = np.empty((int(np.prod(leading)), height, width), np.int32)
    for label in labels:
        centres = rng.uniform(0, 1, (REGIONS, 2)) * (height, width)
        nearest = np.argmin([(y - top) ** 2 + (x - left) ** 2 for top, left in centres], axis=0)
        label[...] = np.append(rng.integers(0, num_classes, REGIONS - 1), VOID)[nearest]
    return labels.reshape(shape)


def drawn_batch(config):
    """A training batch of `config`, of noise and regions."""
    rng = np.random.default_rng(0)
    batch = {}
    for name, like in step_cost.abstract_batch(config).items():
        if name.endswith("label_BTHW"):
            batch[name] = drawn_labels(rng, like.shape, config.model.num_classes).astype(like.dtype)
        elif name == "unlabelled_BTHW":
            batch[name] = np.zeros(like.shape, like.dtype)
        elif like.dtype == bool:
            batch[name] = np.ones(like.shape, bool)
        else:
            batch[name] = rng.normal(size=like.shape).astype(like.dtype)
    return batch


@dataclasses.dataclass
class Step:
    """A compiled step with what it takes."""

    compiled: jax.stages.Compiled
    state: train_state.State
    batch: dict
    seed: jax.Array
    compile_s: float

    def run(self):
        """One step; the losses, still on the device."""
        self.state, losses = self.compiled(self.state, self.batch, self.seed)
        return losses

    def timed(self, count):
        """(seconds of each of `count` steps, losses of the last), one at a time."""
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            losses = jax.block_until_ready(self.run())
            seconds.append(time.perf_counter() - started)
        return seconds, losses


def prepared(config, compiler_options=None):
    """The step of `config` on the first device here; UserError where it does not fit."""
    mesh = make_mesh(devices=jax.devices()[:1])
    step, shapes = step_cost.abstract_step(config, mesh)
    placed = step_cost.placed_shapes(config, mesh, *shapes)
    started = time.perf_counter()
    try:
        with jax.set_mesh(mesh):
            compiled = step.lower(*placed).compile(compiler_options)
            compile_s = time.perf_counter() - started
            state = train_state.new_state(config, optimizers.build(config, train_state.describe(config)[1]), mesh)
            batch = {
                name: jax.device_put(array, placed[1][name].sharding) for name, array in drawn_batch(config).items()
            }
            return Step(compiled, state, batch, train_step.seed_of(config), compile_s)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"The step does not fit into {jax.devices()[0].device_kind}'s memory. Take --remat=full, fewer --clips, a "
            "smaller --crop or more --accumulate."
        ) from error


def product_rate():
    """Operations a second of a large product in bfloat16, on drawn numbers."""
    one, other = (jax.random.normal(jax.random.key(n), (SQUARE, SQUARE), jnp.bfloat16) for n in (0, 1))
    product = jax.jit(jnp.matmul)
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        jax.block_until_ready(product(one, other))
        seconds.append(time.perf_counter() - started)
    return 2 * SQUARE**3 / statistics.median(seconds[2:])


def model_operations(config):
    """Of a step's matrix products and convolutions, nothing rematerialised."""
    config = config.copy_and_resolve_references()
    config.model.remat = "none"
    return step_cost.step_flops(config)


def by_name(losses):
    """The losses as numbers."""
    return {name: float(value) for name, value in jax.device_get(losses).items() if np.ndim(value) == 0}


def account(options):
    """What the step of a recipe takes, as a dict."""
    config, device = compile_for_tpu.recipe(options, 1), jax.devices()[0]
    operations = model_operations(config)
    step = prepared(config, WITHOUT_GRAPHS if options.trace else None)
    memory = step.compiled.memory_analysis()
    first = by_name(step.timed(1)[1])
    step.timed(2)
    seconds, losses = step.timed(options.steps)
    median = statistics.median(seconds)
    gib = lambda size: round(size / 2**30, 2)
    row = {name: value for name, value in vars(options).items() if name not in ("text", "json", "trace")}
    row |= {
        "device": device.device_kind,
        "jax": jax.__version__,
        "compile_s": round(step.compile_s, 1),
        "ms": round(1e3 * median, 2),
        "ms_least_and_most": [round(1e3 * min(seconds), 2), round(1e3 * max(seconds), 2)],
        "frames_a_second": round(config.train.batch * config.data.frames / median, 2),
        "model_TFLOP": round(operations / 1e12, 3),
        "temporary_GiB": gib(memory.temp_size_in_bytes),
        "state_and_batch_GiB": gib(memory.argument_size_in_bytes),
        "most_allotted_GiB": gib((device.memory_stats() or {}).get("peak_bytes_in_use", 0)),
        "losses_first": first,
        "losses_last": by_name(losses),
    }
    if options.trace:
        row |= traced(step)
    del step.state
    if device.platform != "cpu" and options.dtype == "bfloat16":
        rate = product_rate()
        row |= {"product_TFLOP_a_s": round(rate / 1e12, 1), "share_of_product": round(operations / median / rate, 4)}
        if device.device_kind in PEAKS:
            row["MFU"] = round(operations / median / PEAKS[device.device_kind], 4)
    return row


def traced(step):
    """The tables of `TRACED` steps that the profiler saw."""
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        with jax.profiler.trace(folder):
            step.timed(TRACED)
        costs = device_trace.costs(pathlib.Path(folder), step.compiled.as_text(), TRACED)
    names = {"by_module": tables.modules, "by_line": tables.line, "by_kind": lambda cost: {cost.kind}}
    return {
        "traced_ms": round(sum(cost.total for cost in costs) / 1e3, 2),
        **{name: tables.shares(costs, keys, device_trace.MICROSECONDS) for name, keys in names.items()},
    }


def show(row):
    """Prints an account."""
    plain = {name: value for name, value in row.items() if not name.startswith("by_")}
    for name, value in plain.items():
        print(f"{name:>20}  {value}")
    for name, rows in row.items():
        if name.startswith("by_"):
            print("\n" + tables.written(name.replace("_", " ").capitalize(), rows))


def parser():
    """The command line."""
    result = compile_for_tpu.step_parser()
    result.description = __doc__.split("\n")[0]
    result.add_argument("--steps", type=int, default=20, help="Timed, one at a time.")
    result.add_argument("--trace", action="store_true", help="Time by module and by line of source.")
    result.add_argument("--json", default="", help="File for the whole account.")
    result.set_defaults(remat="none")
    return result


def main():
    options = parser().parse_args()
    if options.json:
        writable.check_folder(pathlib.Path(options.json).absolute().parent, "--json")
    if options.trace:  # Frames that an instruction keeps: by default ten, which do not reach up to the model's modules.
        jax.config.update("jax_traceback_in_locations_limit", frames.DEEPEST)
    with compile_for_tpu.precision(options):
        row = account(options)
    show(row)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    run_program(main)
