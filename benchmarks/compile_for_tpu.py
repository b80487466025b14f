"""The training step of full recipes, compiled ahead of time for TPUs that are not here.

    pip install -r requirements.txt -r requirements-tpu.txt
    python -m benchmarks.compile_for_tpu --recipe=nce --crop=480 --frames=2 --topologies=v5e:2x2,v5e:8x8,v5e:16x16

Nothing runs: libtpu compiles for a slice by its name, refuses what does not fit into a chip's memory, and the compiled
program says what a chip needs. The batch grows with the slice, `--clips` a chip; computation in bfloat16, state in
float32, divided among all chips. A row has, a chip: the peak of memory, the floating point operations (matrix products
and convolutions, loops times their rounds), and what it sends in collectives in a step, as [times, MB]. A compilation
takes minutes and 10 GiB of memory, so that each has a process of its own.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import time
import unittest.mock

from vspw_jax.console.errors import run_program

TOO_LARGE = re.compile(r"(?:Used |temporaries \()([\d.]+[GM])\)? (?:of|exceeds available HBM) \(?([\d.]+[GM])")
"""How the compiler refuses a program: what it needs of a chip's memory, and what there is."""

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # There is no metadata server to ask which TPU this is.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def recipe(options, chips):
    """The recipe's config for a slice of so many chips."""
    config = importlib.import_module(f"configs.{options.recipe}").get_config(options.size)
    config.model.image_size = (options.crop, options.crop)
    config.model.update(dtype=options.dtype, remat=options.remat)
    config.data.frames = options.frames
    config.train.batch = chips * options.clips
    config.train.accumulate = options.accumulate
    config.sharding.update(fsdp=options.fsdp, whole_below=options.whole_below)
    if "nce" in config.loss:
        config.loss.nce.groups = chips * options.clips if options.scope == "clip" else chips * options.accumulate
    return config


def precision(options):
    """In which a step in float32 is traced: without it a GPU multiplies numbers of 10 bits (TF32)."""
    import jax

    return jax.default_matmul_precision("highest") if options.dtype == "float32" else contextlib.nullcontext()


def devices_of(topology):
    """The chips of a slice that is not here."""
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def traced_step(options, devices, backend):
    """(the recipe's step traced for devices that need not be here, their mesh)."""
    import jax

    from vspw_jax.inspection import step_cost
    from vspw_jax.parallel.mesh import make_mesh

    config = recipe(options, len(devices))
    mesh = make_mesh(config.train.batch, 0, devices, options.fsdp, options.accumulate)
    # What is chosen by the device in use must be chosen for the one that is compiled for.
    with unittest.mock.patch.object(jax, "default_backend", lambda: backend):
        step, shapes = step_cost.abstract_step(config, mesh)
        placed = step_cost.placed_shapes(config, mesh, *shapes)
        with jax.set_mesh(mesh):  # By which a kernel knows its device.
            return step.trace(*placed), mesh


def compile_step(options, topology):
    """What one chip of a slice needs for a step, as a dict."""
    import jax

    from benchmarks import collectives
    from vspw_jax.inspection import step_cost

    devices = devices_of(topology)
    row = {**vars(options), "topology": topology, "chips": len(devices)}
    del row["topologies"]
    traced, _ = traced_step(options, devices, "tpu")
    row["TFLOP"] = float(f"{step_cost.matrix_flops(traced.jaxpr.jaxpr) / 1e12:.4g}")
    started = time.monotonic()
    try:
        compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    except jax.errors.JaxRuntimeError as error:
        found = TOO_LARGE.search(str(error))
        if not found:
            raise
        return {**row, "fits": False, "needs": found[1], "of": found[2]}
    row["compile_s"] = round(time.monotonic() - started)
    memory = compiled.memory_analysis()
    gib = lambda size: round(size / 2**30, 2)
    row["peak_GiB"], row["temporary_GiB"] = gib(memory.peak_memory_in_bytes), gib(memory.temp_size_in_bytes)
    row["state_and_batch_GiB"] = gib(memory.argument_size_in_bytes)
    row["xla_TFLOP"] = round((compiled.cost_analysis() or {}).get("flops", 0) / 1e12, 2)
    text = compiled.as_text()
    if options.text:
        with open(options.text, "w") as file:
            file.write(text)
    for kind, (times, sent) in collectives.count(text, len(devices)).items():
        row[kind] = [times, round(sent / 1e6, 1)]
    return {**row, "fits": True}


def step_parser():
    """Which step, and how it is compiled, as options."""
    parser = argparse.ArgumentParser(description="A full recipe's training step for accelerators that are not here.")
    parser.add_argument("--recipe", default="nce", help="A file of configs/.")
    parser.add_argument("--size", default="full", help="Or demo: a narrow network, which compiles in less time.")
    parser.add_argument("--crop", type=int, default=480)
    parser.add_argument("--frames", type=int, default=2, help="Of a clip.")
    parser.add_argument("--clips", type=int, default=1, help="A chip.")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--scope", default="group", help="clip: each clip is a contrastive group; group: a chip's are.")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--remat", default="full")
    parser.add_argument("--fsdp", type=int, default=0, help="Chips among which a copy of the state is divided; 0: all.")
    parser.add_argument("--whole-below", type=int, default=2**16, help="Smaller weights are not divided.")
    parser.add_argument("--text", default="", help="File for the compiled program's text.")
    return parser


def parser():
    """The command line."""
    parser = step_parser()
    parser.add_argument("--topologies", default="v5e:2x2,v5e:8x8,v5e:16x16")
    return parser


def main():
    options = parser().parse_args()
    names = options.topologies.split(",")
    if len(names) == 1:
        print(json.dumps(compile_step(options, names[0])), flush=True)
        return
    for name in names:
        arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--topologies")]
        command = [sys.executable, "-m", "benchmarks.compile_for_tpu", *arguments, f"--topologies={name}"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    run_program(main)
