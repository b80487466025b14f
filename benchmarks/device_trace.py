"""What the profiler saw of a compiled program's instructions, with their places in the source."""

import collections

import jax

from benchmarks import program_text
from benchmarks.tpu_cost import chips, estimates, frames
from vspw_jax.console.errors import UserError

MICROSECONDS = chips.Chip(clock=1e6, operations=0, links=0.0)
"""For tables of costs whose cycles are microseconds."""


def seen(folder):
    """{an instruction's name: nanoseconds in all} of the traces in a folder."""
    found = collections.Counter()
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name is not None:
                        found[name] += event.duration_ns
    return found


def costs(folder, text, steps):
    """The `Cost` of a step of each instruction that ran, in microseconds.

    Args:
      folder: where the profiler wrote.
      text: of the compiled program.
      steps: how many the profiler saw.

    Raises:
      UserError: the trace has none of the program's instructions.
    """
    _, computations = program_text.parse(text)
    instructions = {name: rest for rows in computations.values() for name, *rest in rows}
    places = frames.Frames(text)
    found = []
    for name, nanoseconds in seen(folder).items():
        _, operation, rest = instructions.get(name, ("", "not in the program's text", ""))
        if operation in estimates.DESCENDED:
            continue  # What it runs is in the trace by itself.
        scope, stack = estimates.SCOPE.search(rest), estimates.STACK.search(rest)
        kind = operation
        if operation == "fusion":
            kind = estimates.kind_of_fusion(rest, computations)
        elif operation == "custom-call":
            kind = rest.partition('custom_call_target="')[2].partition('"')[0]
        place = places.stack(int(stack[1])) if stack else ()
        found.append(estimates.Cost(name, kind, 1, nanoseconds / 1e3 / steps, scope[1] if scope else "", place))
    if not found:
        raise UserError("The profiler saw no instruction of the program: is this device one that it can look into?")
    return found
