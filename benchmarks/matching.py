"""Time of the matching: under vmap, one problem after another (lax.map), and SciPy's; and its share of a training step.

    python -m benchmarks.matching [--problems=20] [--queries=100] [--targets 40 100] [--valid=10] [--rounds=7] [--step]

Costs are drawn like those of an untrained network: nearly the same for all queries but for noise. Of the targets some
are valid and the rest padding, or all are, the worst case; SciPy solves for the valid ones alone. Costs of the
solutions are compared first, then the solvers take turns; medians are printed. --step compiles and runs the training
step of configs/nce.py:demo, whose matching has 8 frames and 4 predictions.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks import measure
from configs import nce
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.inspection import step_cost
from vspw_jax.losses import matching
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import optimizers, train_state, train_step


def drawn_costs(problems, queries, targets):
    rng = np.random.default_rng(0)
    return (5 * rng.uniform(size=(problems, 1, targets)) + rng.normal(size=(problems, queries, targets))).astype("f4")


def solvers(costs, valid):
    """Functions by name that give the query of each of the first `valid` targets, computed."""
    on_device = jnp.asarray(costs)
    valid_NM = jnp.broadcast_to(jnp.arange(costs.shape[-1]) < valid, (len(costs), costs.shape[-1]))
    forms = {
        "vmap": jax.jit(jax.vmap(matching.assign)),
        "lax.map": jax.jit(lambda *problems: jax.lax.map(lambda problem: matching.assign(*problem), problems)),
    }
    run = lambda form: np.asarray(form(on_device, valid_NM))[:, :valid]
    made = {name: functools.partial(run, form) for name, form in forms.items()}
    return made | {"SciPy": lambda: np.stack([linear_sum_assignment(cost[:, :valid].T)[1] for cost in costs])}


def check_equal(costs, functions):
    """Raises UserError where a solver's cost is not SciPy's."""

    def total(query_NM):
        return np.take_along_axis(costs[:, :, : query_NM.shape[1]], query_NM[:, None], axis=1).sum(axis=(1, 2))

    wanted = total(functions["SciPy"]())
    for name, function in functions.items():
        if not np.allclose(total(function()), wanted, rtol=1e-5):
            raise UserError(f"{name} finds another cost than SciPy.")


def milliseconds(costs, valid, rounds):
    functions = solvers(costs, valid)
    check_equal(costs, functions)
    seconds = measure.take_turns(list(functions.values()), rounds, time.perf_counter)
    return {name: 1e3 * value for name, value in zip(functions, seconds, strict=True)}


def step_milliseconds(rounds):
    """Of the demo's training step, and of the matchings in it."""
    config = nce.get_config("demo")
    config.loss.nce.groups = 1
    mesh = make_mesh(devices=jax.devices()[:1])
    graphdef, params, _ = train_state.describe(config)
    transformation = optimizers.build(config, params)
    state = train_state.new_state(config, transformation, mesh)
    shapes = step_cost.abstract_batch(config)
    label = np.random.default_rng(0).integers(0, 10, shapes["label_BTHW"].shape).astype(np.int32)
    batch = {"image_BTHWC": np.zeros(shapes["image_BTHWC"].shape, np.float32), "label_BTHW": label}
    batch = placement.to_global(mesh, batch)
    step = train_step.make_train_step(config, graphdef, transformation, mesh)

    def run():
        nonlocal state
        state, metrics = step(state, batch, train_step.seed_of(config))
        jax.block_until_ready(metrics)

    frames, predictions = label.shape[0] * label.shape[1], config.model.decoder.decoder_layers + 1
    costs = drawn_costs(frames, config.model.decoder.num_queries, config.loss.segmentation.capacity)
    matched = solvers(costs, 10)["vmap"]
    whole, part = measure.take_turns([run, matched], rounds, time.perf_counter)
    return 1e3 * whole, 1e3 * part * predictions


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--problems", type=int, default=20)
    result.add_argument("--queries", type=int, default=100)
    result.add_argument("--targets", type=int, nargs="+", default=[40, 100])
    result.add_argument("--valid", type=int, default=10)
    result.add_argument("--rounds", type=int, default=7)
    result.add_argument("--step", action="store_true")
    return result


def main():
    flags = parser().parse_args()
    print(f"{flags.problems} problems of {flags.queries} queries, milliseconds")
    for targets in flags.targets:
        costs = drawn_costs(flags.problems, flags.queries, targets)
        for valid in (flags.valid, targets):
            times = "  ".join(f"{name} {value:.1f}" for name, value in milliseconds(costs, valid, flags.rounds).items())
            print(f"{valid:4d} of {targets:4d} targets  {times}", flush=True)
    if flags.step:
        whole, part = step_milliseconds(flags.rounds)
        print(f"training step of the demo {whole:.0f}, its matchings {part:.1f}: {part / whole:.1%}")


if __name__ == "__main__":
    run_program(main)
