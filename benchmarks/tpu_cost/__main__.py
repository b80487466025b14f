"""What a training step costs on TPUs that are not here, by the account of their compiler.

    pip install -r requirements.txt -r requirements-tpu.txt
    python -m benchmarks.tpu_cost --recipe=nce --crop=480 --frames=2 --topology=v5e:2x2 --json=before.json
    python -m benchmarks.tpu_cost --recipe=nce --part=loss --crop=480 --frames=2 --schedules       the mask loss alone
    python -m benchmarks.tpu_cost --recipe=upernet_swin --part=encoder --crop=896 --frames=1     the encoder alone
    python -m benchmarks.tpu_cost --compare before.json after.json
    python -m benchmarks.tpu_cost --check --topology=v5e:2x2      programs whose cost is known

Nothing runs. The compiler leaves an estimate in cycles at most instructions of a compiled program; the sum over the
instructions, those in loops times their rounds, at the chip's clock, is its estimate of a step. Printed are: that sum;
the floating point operations of the model (nothing rematerialised) and of the program over the chip's peak in that
time; the estimate by module of the model and by line of source; how many executions carry no estimate (gathers,
scatters, kernels); and what a chip sends in collectives, over the bandwidth of its links. `--schedules` counts the
instructions that carry no estimate by the bundles of their schedules, which takes longer to compile.
"""

import contextlib
import copy
import json
import os
import pathlib
import tempfile
import time

from benchmarks import compile_for_tpu
from benchmarks.tpu_cost import chips, estimates, frames, schedules, tables
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files import writable

CHECKED = 4096
"""Side of the square matrices whose product must come out near the peak."""


def summary(text, topology, known=None):
    """The account of a compiled program's text, as a dict."""
    import jax

    from benchmarks import collectives

    chip = chips.of_topology(topology)
    costs = list(estimates.costs(text, known))
    cycles = sum(cost.total for cost in costs)
    devices = len(compile_for_tpu.devices_of(topology))
    sent = collectives.count(text, devices)
    return {
        "topology": topology,
        "jax": jax.__version__,
        "ms": round(chip.milliseconds(cycles), 3),
        "cycles": cycles,
        "not_estimated": tables.not_estimated(costs),
        "by_schedule": sum(cost.times for cost in costs if cost.is_scheduled),
        "collectives": {
            kind: {"times": times, "MB": round(size / 1e6, 2), "ms": round(1e3 * size / chip.links, 3)}
            for kind, (times, size) in sent.items()
        },
        "by_module": tables.shares(costs, tables.modules, chip),
        "by_line": tables.shares(costs, tables.line, chip),
    }


def compiled_program(traced):
    """A traced program, compiled; UserError where it does not fit into a chip."""
    import jax

    try:
        return traced.lower(lowering_platforms=("tpu",)).compile()
    except jax.errors.JaxRuntimeError as error:
        found = compile_for_tpu.TOO_LARGE.search(str(error))
        if not found:
            raise
        raise UserError(
            f"The program needs {found[1]} of a chip's {found[2]}: expected one that fits. Take fewer --clips or "
            "--remat=full; for a step also a larger --topology or another --fsdp."
        ) from error


def written_program(path):
    """The text in a file of --text; UserError where it is none."""
    try:
        text = pathlib.Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}. Expected a file that --text wrote.") from error
    if "\nENTRY " not in text:
        raise UserError(f"{path} is no compiled program: it has no line that begins with ENTRY. See --text.")
    return text


def of_recipe(options, folder=None):
    """The account of a recipe's step or a part of it; `folder` is where the compiler leaves its schedules, if any."""
    import jax

    from benchmarks.tpu_cost import encoders, losses

    # Frames that an instruction keeps: by default the innermost ten, which do not reach up to the model's modules.
    jax.config.update("jax_traceback_in_locations_limit", frames.DEEPEST)
    trace = {"step": traced_step, "loss": losses.traced, "encoder": encoders.traced}[options.part]
    traced = trace(options)
    account = compiled(traced, options, folder)
    account |= work("hardware", traced, options, account["cycles"])
    if options.part != "loss":  # In which nothing is rematerialised.
        once = copy.copy(options)
        once.remat = "none"
        account |= work("model", trace(once), options, account["cycles"])
    return account


def traced_step(options):
    """The recipe's step, traced for the chips of --topology."""
    return compile_for_tpu.traced_step(options, compile_for_tpu.devices_of(options.topology), "tpu")[0]


def work(name, traced, options, cycles):
    """What a traced program has of matrix products and convolutions, and its share of the chip's peak in that time."""
    from vspw_jax.inspection import step_cost

    operations = step_cost.matrix_flops(traced.jaxpr.jaxpr)
    share = chips.of_topology(options.topology).share_of_peak(operations, cycles)
    return {f"{name}_TFLOP": round(operations / 1e12, 4), f"{name}_share_of_peak": round(share, 4)}


def compiled(traced, options, folder):
    """The account of a traced program."""
    started = time.monotonic()
    with schedules.collected(folder) if folder else contextlib.nullcontext({}) as known:
        program = compiled_program(traced)
        text = program.as_text()
    account = summary(text, options.topology, known)
    account["compile_s"] = round(time.monotonic() - started)
    account["peak_GiB"] = round(program.memory_analysis().peak_memory_in_bytes / 2**30, 2)
    if options.text:
        pathlib.Path(options.text).write_text(text)
    return account


def check(topology):
    """Raises UserError unless a large product comes out near the peak, alone and in a loop of four."""
    import jax
    import jax.numpy as jnp

    sharding = jax.sharding.SingleDeviceSharding(compile_for_tpu.devices_of(topology)[0])
    square = jax.ShapeDtypeStruct((CHECKED, CHECKED), jnp.bfloat16, sharding=sharding)
    loop = lambda x, y: jax.lax.fori_loop(0, 4, lambda _, x: x @ y, x)
    chip = chips.of_topology(topology)
    for name, function, products in (("alone", jnp.matmul, 1), ("in a loop of 4", loop, 4)):
        text = jax.jit(function).lower(square, square).compile().as_text()
        cycles = sum(cost.total for cost in estimates.costs(text) if cost.kind != "copy")  # Of what the loop carries.
        share = chip.share_of_peak(2 * products * CHECKED**3, cycles)
        print(f"A product of {CHECKED} x {CHECKED} {name}: {chip.milliseconds(cycles):.3f} ms, {share:.0%} of the peak")
        if not 0.7 < share < 1.05:
            raise UserError(f"That is not near the peak: {topology}'s entry in benchmarks/tpu_cost/chips.py is wrong.")


def show(account):
    """Prints an account."""
    print(f"{account['ms']:.2f} ms on {account['topology']}, by the compiler's estimate (jax {account['jax']})")
    for name in ("model", "hardware"):
        if f"{name}_TFLOP" in account:
            share = account[f"{name}_share_of_peak"]
            print(f"  {name}: {account[f'{name}_TFLOP']} TFLOP, {share:.1%} of the peak in that time")
    if "peak_GiB" in account:
        print(f"  at most {account['peak_GiB']} GiB of a chip at once")
    unknown = account["not_estimated"]
    print(f"  without an estimate: {', '.join(f'{count} x {kind}' for kind, count in unknown.items()) or 'nothing'}")
    if account["by_schedule"]:
        print(f"  by their schedules: {account['by_schedule']} executions")
    for kind, row in account["collectives"].items():
        print(f"  {kind}: {row['times']} times, {row['MB']} MB, {row['ms']} ms of the links")
    print("\n" + tables.written("By module; one within another counts in both", account["by_module"]))
    print("\n" + tables.written("By line", account["by_line"]))


def compare(before, after):
    """Prints what changed between two files of --json."""
    try:
        old, new = (json.loads(pathlib.Path(path).read_text()) for path in (before, after))
        print(f"{old['ms']:.2f} ms before, {new['ms']:.2f} ms after ({new['ms'] / old['ms']:.3f} of it)")
        print(f"without an estimate: {old['not_estimated']} before, {new['not_estimated']} after")
        print("\nBy module:\n" + tables.compared(old["by_module"], new["by_module"]))
        print("\nBy line:\n" + tables.compared(old["by_line"], new["by_line"]))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{before} and {after} are not both files of --json: {error!r}.") from error


def parser():
    """The command line."""
    result = compile_for_tpu.step_parser()
    result.description = "What a training step costs on TPUs that are not here, by their compiler's account."
    result.add_argument("--topology", default="v5e:2x2", help="Of v5e, v5p or v6e.")
    part = (
        "What is compiled: the step; or for one chip, with its gradient, the mask classification loss or the encoder."
    )
    result.add_argument("--part", choices=("step", "loss", "encoder"), default="step", help=part)
    result.add_argument("--json", default="", help="File for the whole account.")
    result.add_argument("--schedules", action="store_true", help="Count by schedules what carries no estimate.")
    result.add_argument("--program", default="", help="File of a compiled program's text, in place of a recipe's step.")
    result.add_argument("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="Two files of --json.")
    result.add_argument("--check", action="store_true", help="Look at programs whose cost is known.")
    return result


def account_of(options):
    """The account that the options ask for."""
    if options.program:
        return summary(written_program(options.program), options.topology)
    if not options.schedules:
        return of_recipe(options)
    with tempfile.TemporaryDirectory(prefix="schedules-") as name:
        # Read when the compiler is loaded.
        given = os.environ.get("LIBTPU_INIT_ARGS", "")
        os.environ["LIBTPU_INIT_ARGS"] = f"{given} {schedules.FLAGS.format(folder=name)}"
        return of_recipe(options, pathlib.Path(name))


def main():
    options = parser().parse_args()
    for path in filter(None, (options.json, options.text)):
        folder = pathlib.Path(path).absolute().parent
        writable.check_folder(folder, "--json or --text")  # Before minutes of compiling.
        folder.mkdir(parents=True, exist_ok=True)
    if options.compare:
        compare(*options.compare)
    elif options.check:
        check(options.topology)
    else:
        account = account_of(options)
        show(account)
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(account, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.update(compile_for_tpu.ENVIRONMENT)
    run_program(main)
