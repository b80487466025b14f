"""The text of a compiled program (HLO): its computations, what they call, how often its loops run."""

import math
import re

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
BYTES |= {"s64": 8, "u64": 8}
"""Of a number, by the name of its type."""

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
CALLED = re.compile(r"(?:body|calls|condition|to_apply|\w+_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def array_bytes(shape):
    """Bytes of the arrays named in a shape's text, such as (bf16[4,8]{1,0}, f32[])."""
    return sum(
        BYTES[kind] * math.prod(map(int, filter(None, sizes.split(","))))
        for kind, sizes in ARRAY.findall(shape)
        if kind in BYTES
    )


def parse(text):
    """(entry, {computation: [(name, shape, operation, rest of the line)]}) of a module's text."""
    computations, entry, name = {}, None, None
    for line in text.splitlines():
        if found := COMPUTATION.match(line):
            name = found[1]
            computations[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name and (found := INSTRUCTION.match(line)):
            computations[name].append(found.groups())
    return entry, computations


def rounds_of(loop, computations):
    """How often a while loop runs, by the rest of its line: as noted there, or the bound below which its condition
    keeps a counter, which is what a TPU's program has: from 0, by 1. Else 1."""
    if noted := TRIPS.search(loop):
        return int(noted[1])
    condition = computations.get(re.search(r"condition=%?([\w.\-]+)", loop)[1], ())
    constants = {name: rest for name, _, operation, rest in condition if operation == "constant"}
    for _, _, operation, rest in condition:
        bound = re.match(r"%?[\w.\-]+, %?([\w.\-]+)\), direction=LT", rest) if operation == "compare" else None
        if bound and (number := re.match(r"\d+", constants.get(bound[1], ""))):
            return int(number[0])
    return 1


def called_by(rest):
    """Names of the computations that an instruction calls, by the rest of its line."""
    return [name for called in CALLED.findall(rest) for name in re.findall(r"[\w.\-]+", " ".join(called))]
