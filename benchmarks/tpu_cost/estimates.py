"""The compiler's estimates of a compiled program's instructions, those in loops times their rounds.

Source of the fields: the text of a program that libtpu compiled; `estimated_cycles` stands in an instruction's
`backend_config`. An instruction within a fusion is a part of its estimate.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from benchmarks import program_text
from benchmarks.tpu_cost.frames import Frame, Frames

CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
STACK = re.compile(r"stack_frame_id=(\d+)")
SCOPE = re.compile(r'op_name="([^"]*)"')
TARGET = re.compile(r'custom_call_target="([^"]*)"')
MADE_FOR = ("gather", "scatter", "sort", "all-gather", "all-reduce", "reduce-scatter")
DESCENDED = ("while", "conditional", "call")
"""Operations whose computations are run as they stand; those of all branches of a conditional count."""
FREE = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|replica-id|opt-barrier|domain|iota|copy-\w+"
    r"|\w[\w-]*-(?:start|done|update)|" + "|".join(DESCENDED)
)
"""Operations that make no work, or work beside others: copies and collectives that only start or end there."""
IDLE_CALLS = ("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast")
"""Custom calls that do nothing; ConcatBitcast joins buffers that lie beside each other without a copy."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """An instruction of the program.

    Attributes:
      name: in the program's text.
      kind: its operation; of a fusion with no estimate, that which it is made for; of a call of the compiler's own
        code, with its name.
      times: how often it runs in a step.
      cycles: of one run by the compiler's estimate, or by its schedule; None where there is neither.
      scope: the JAX operations that it comes from.
      stack: the places in the source, outermost first.
      is_scheduled: whether the cycles are those of its schedule.
    """

    name: str
    kind: str
    times: int
    cycles: float | None
    scope: str
    stack: tuple[Frame, ...]
    is_scheduled: bool = False

    @property
    def total(self) -> float:
        """Cycles of all runs; 0 where they are not known."""
        return self.times * (self.cycles or 0)


def _elements(shape: str) -> int:
    return max(
        (math.prod(map(int, filter(None, sizes.split(",")))) for _, sizes in program_text.ARRAY.findall(shape)),
        default=0,
    )


def kind_of_fusion(rest: str, computations: Mapping[str, list]) -> str:
    """What a fusion is made for, in it or in a fusion within it, one of MADE_FOR; else "fusion"."""
    inside = (one for called in program_text.called_by(rest) for one in computations.get(called, ()))
    for _, _, operation, inner in inside:
        kind = kind_of_fusion(inner, computations) if operation == "fusion" else operation
        if kind in MADE_FOR:
            return kind
    return "fusion"


def _kind(operation: str, rest: str, computations: Mapping[str, list]) -> str:
    """The kind of an instruction that carries no estimate."""
    if operation == "fusion":
        return kind_of_fusion(rest, computations)
    target = TARGET.search(rest)
    return f"{operation} {target[1]}" if target else operation


def _works(shape: str, operation: str, rest: str) -> bool:
    idle = operation == "custom-call" and any(f'"{name}"' in rest for name in IDLE_CALLS)
    return not idle and not FREE.fullmatch(operation) and _elements(shape) > 1


def costs(text: str, schedules: Mapping[str, float] | None = None) -> Iterator[Cost]:
    """The instructions of a program that do work.

    Args:
      schedules: cycles of a run by an instruction's name, for those that carry no estimate; see `schedules.py`.
    """
    entry, computations = program_text.parse(text)
    frames, schedules = Frames(text), schedules or {}

    def visit(computation: str, times: int) -> Iterator[Cost]:
        for name, shape, operation, rest in computations.get(computation, ()):
            if operation in DESCENDED:
                rounds = program_text.rounds_of(rest, computations) if operation == "while" else 1
                for inner in program_text.called_by(rest):
                    yield from visit(inner, times * rounds)
            elif _works(shape, operation, rest):
                stated = CYCLES.search(rest)
                kind = operation if stated else _kind(operation, rest, computations)
                cycles = float(stated[1]) if stated else schedules.get(name)
                scope, stack = SCOPE.search(rest), STACK.search(rest)
                origin = scope[1] if scope else "", frames.stack(int(stack[1])) if stack else ()
                yield Cost(name, kind, times, cycles, *origin, is_scheduled=not stated and name in schedules)

    yield from visit(entry, 1)
