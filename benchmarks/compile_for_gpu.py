"""The training step of a full recipe, compiled ahead of time for NVIDIA GPUs that are not here.

    pip install "jax[cuda13]"                             of the version that is installed
    python -m benchmarks.compile_for_gpu --recipe=nce --crop=480 --frames=2 --card=h200
    python -m benchmarks.compile_for_gpu --recipe=nce --card=h100 --devices=8
    python -m benchmarks.compile_for_gpu --recipe=nce --devices=256 --trace-only      without jax[cuda13]

Nothing runs. The compiled program says what share of a card's memory the step needs: JAX takes 0.75, or what
XLA_PYTHON_CLIENT_MEM_FRACTION says. Printed are also the floating point operations of a device (matrix products and
convolutions, loops times their rounds), what it is asked to send (bytes of a ring), and the libraries' kernels that the
program calls. A compilation takes minutes and up to 10 GiB.

The compiler chooses among kernels by their time on the card, which it cannot take here: it is not the program that will
run there. Its memory was the same on a card within 0.2 % (benchmarks/RESULTS.md, "Compiled for GPUs").
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import time
import unittest.mock

from benchmarks import compile_for_tpu, gpu_cards
from benchmarks.gpu_cards import CARDS
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files import writable

OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
"""Without a GPU the compiler can time none of its choices."""


def devices_of(card, count):
    """So many GPUs of one host, which are not here. UserError where JAX's CUDA plugin is not installed."""
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(
            platform="cuda", target_config=gpu_cards.target(card), topology=f"1x1x{count}"
        ).devices
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'There is no compiler for GPUs here ({str(error).splitlines()[0]}): pip install "jax[cuda13]", or take '
            "--trace-only."
        ) from error


def lowered_step(options, devices):
    """(the step traced for GPUs that are not here, their mesh, the step lowered or None)."""
    with contextlib.ExitStack() as patches:
        patch = lambda name, value: patches.enter_context(unittest.mock.patch(name, lambda *_: value))
        patch("vspw_jax.models.attention.compute_capability", CARDS[options.card].capability)
        # JAX asks the GPU and the cuDNN that are here.
        patch("jax._src.cudnn.fused_attention_stablehlo.check_compute_capability", True)
        patch("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", gpu_cards.CUDNN)
        traced, mesh = compile_for_tpu.traced_step(options, devices, "gpu")
        return traced, mesh, None if options.trace_only else traced.lower(lowering_platforms=("cuda",))


def compile_step(options):
    """What a device needs for a step, as a dict."""
    import jax

    from benchmarks import collectives
    from vspw_jax.inspection import step_cost

    devices = jax.devices() if options.trace_only else devices_of(CARDS[options.card], options.devices)
    with compile_for_tpu.precision(options):
        step, mesh, lowered = lowered_step(options, devices)
    asked = collectives.asked(step.jaxpr.jaxpr, mesh.shape)
    row = {
        **{name: value for name, value in vars(options).items() if name not in ("text", "trace_only")},
        "TFLOP": float(f"{step_cost.matrix_flops(step.jaxpr.jaxpr) / 1e12:.4g}"),
        "times_and_MB": {kind: [times, round(sent / 1e6, 1)] for kind, (times, sent) in sorted(asked.items())},
    }
    if options.trace_only:
        return row
    started = time.monotonic()
    compiled = lowered.compile(compiler_options=OPTIONS)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    gib = lambda size: round(size / 2**30, 2)
    row |= {
        "compile_s": round(time.monotonic() - started),
        "temporary_GiB": gib(memory.temp_size_in_bytes),
        "state_and_batch_GiB": gib(memory.argument_size_in_bytes),
        "peak_GiB": gib(memory.peak_memory_in_bytes),
        "share_of_memory": round(memory.peak_memory_in_bytes / CARDS[options.card].memory, 3),
        "kernels": dict(collections.Counter(re.findall(r'custom_call_target="([^"]+)"', text))),
    }
    if options.text:
        pathlib.Path(options.text).write_text(text)
    return row


def parser():
    """The command line."""
    result = compile_for_tpu.step_parser()
    result.description = __doc__.split("\n")[0]
    result.add_argument("--card", choices=CARDS, default="h100")
    result.add_argument("--devices", type=int, default=1, help="GPUs of one host.")
    result.add_argument("--trace-only", action="store_true", help="Count, but do not compile.")
    result.set_defaults(remat="none")
    return result


def main():
    options = parser().parse_args()
    if options.text:
        writable.check_folder(pathlib.Path(options.text).absolute().parent, "--text")
    os.environ["JAX_PLATFORMS"] = "cpu"
    if options.trace_only:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.devices}"
    print(json.dumps(compile_step(options)))


if __name__ == "__main__":
    run_program(main)
