"""The training step of a full recipe, lowered for NVIDIA GPUs that are not here.

    python -m benchmarks.lower_for_gpu --recipe=nce --devices=8

Shows that every operation of the step, forward and backward, has a form for CUDA, how often each collective stands in
its text (StableHLO; a loop's once), and what each device is asked to send (loops times their rounds; bytes of a ring).
What stays open until there is a GPU: how XLA fuses and schedules it, and so its memory and its speed. The step is that
of benchmarks.compile_for_tpu, whose options it takes.
"""

import collections
import json
import os
import re

from benchmarks import compile_for_tpu
from vspw_jax.console.errors import run_program

COLLECTIVES = ("all_gather", "all_reduce", "reduce_scatter", "all_to_all", "collective_permute")


def lower_step(options, count):
    """What is in the step's StableHLO for `count` GPUs, as a dict."""
    import jax

    from benchmarks.collectives import asked as asked_for
    from vspw_jax.inspection import step_cost

    traced, mesh = compile_for_tpu.traced_step(options, jax.devices(), "gpu")
    found, calls = {}, {}
    if not options.trace_only:
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        found = collections.Counter(re.findall(r"stablehlo\.(\w+)", text))
        calls = collections.Counter(re.findall(r"custom_call @(\w+)", text))
    asked = asked_for(traced.jaxpr.jaxpr, mesh.shape)
    return {
        **{name: value for name, value in vars(options).items() if name != "text"},
        "devices": count,
        "TFLOP": float(f"{step_cost.matrix_flops(traced.jaxpr.jaxpr) / 1e12:.4g}"),
        "times_and_MB": {kind: [times, round(sent / 1e6, 1)] for kind, (times, sent) in sorted(asked.items())},
        "in_the_text": {name: found[name] for name in COLLECTIVES if name in found},
        "custom_calls": dict(calls),
    }


def parser():
    """The command line."""
    result = compile_for_tpu.step_parser()
    result.add_argument("--devices", type=int, default=8, help="GPUs.")
    result.add_argument("--trace-only", action="store_true", help="Count, but do not lower.")
    return result


def main():
    options = parser().parse_args()
    count = options.devices
    del options.devices
    os.environ.update(JAX_PLATFORMS="cpu", XLA_FLAGS=f"--xla_force_host_platform_device_count={count}")
    print(json.dumps(lower_step(options, count)))


if __name__ == "__main__":
    run_program(main)
