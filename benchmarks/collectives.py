"""What devices send each other: asked for by a traced function (jaxpr), or in a compiled program's text (HLO)."""

import collections
import math
import re

from benchmarks.program_text import array_bytes, called_by, parse, rounds_of
from vspw_jax.inspection import step_cost

SENT = {
    "all-gather": lambda given, got, n: got * (n - 1) / n,
    "reduce-scatter": lambda given, got, n: given * (n - 1) / n,
    "all-reduce": lambda given, got, n: 2 * given * (n - 1) / n,
    "all-to-all": lambda given, got, n: given * (n - 1) / n,
    "collective-permute": lambda given, got, n: given,
}
"""Bytes that each of n devices sends, in a ring, by the bytes that it gives and gets."""

ASKED = {"all_gather": "all-gather", "reduce_scatter": "reduce-scatter", "psum": "all-reduce", "pmax": "all-reduce"}
"""JAX's primitives."""


def asked(jaxpr, axis_sizes, rounds=1, totals=None):
    """{collective: [times run, bytes that each device sends]} of a jaxpr, those in scans times their length.

    Args:
      axis_sizes: devices along every mesh axis, by name; a collective over one device sends nothing and is left out.
    """
    totals = {} if totals is None else totals
    for equation in jaxpr.eqns:
        kind = ASKED.get(equation.primitive.name.removesuffix("_invariant").removesuffix("2"))
        if kind:
            names = equation.params.get("axes", equation.params.get("axis_name"))
            n = math.prod(axis_sizes[name] for name in (names if isinstance(names, tuple) else (names,)))
            given, got = (
                sum(variable.aval.size * variable.aval.dtype.itemsize for variable in variables)
                for variables in (equation.invars, equation.outvars)
            )
            if n > 1:
                total = totals.setdefault(kind, [0, 0.0])
                total[0] += rounds
                total[1] += rounds * SENT[kind](given, got, n)
        length = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in step_cost.inner_jaxprs(equation.params):
            asked(inner, axis_sizes, rounds * length, totals)
    return totals


def group_size(text, devices):
    """How many devices take part in one run of a collective."""
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(found[2])
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return len(found[1].split(","))
    return devices


def count(text, devices):
    """{collective: (times run, bytes that each device sends)} of a program; those in loops times `rounds_of` them.

    A TPU's program names a collective that runs beside other work in every fusion that it lasts through: the one in
    which it starts counts.
    """
    entry, computations = parse(text)
    totals = collections.defaultdict(lambda: [0, 0.0])

    def visit(name, times):
        shapes = {instruction: shape for instruction, shape, _, _ in computations.get(name, ())}
        lines = [rest for _, _, _, rest in computations.get(name, ())]
        starts, ends = (any(f"AsyncCollective{word}" in rest for rest in lines) for word in ("Start", "Done"))
        goes_on = name != entry and not starts and (ends or name.startswith("async_collective_fusion"))
        for _, shape, operation, rest in computations.get(name, ()):
            kind = operation.removesuffix("-start")
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"  # A TPU's, whose fusion keeps a part of the sum.
            if kind in SENT and not goes_on:
                operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
                given = sum(array_bytes(shapes.get(operand, "")) for operand in operands)
                # What starts an asynchronous collective gives its operands back beside what comes of it.
                got = array_bytes(shape) - (given if operation.endswith("-start") and shape.startswith("(") else 0)
                n = group_size(rest, devices)
                totals[kind][0] += times
                totals[kind][1] += times * SENT[kind](given, got or given, n)
            rounds = rounds_of(rest, computations) if operation == "while" else 1
            if operation not in SENT and not operation.startswith(("all-reduce", "reduce")):
                for other in called_by(rest):
                    visit(other, times * rounds)

    visit(entry, 1)
    return {kind: (times, sent) for kind, (times, sent) in sorted(totals.items())}
