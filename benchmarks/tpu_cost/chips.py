"""TPU chips: what an estimate in cycles is measured against.

Sources: cloud.google.com/tpu/docs/{v5e,v5p,v6e} for the peak in bfloat16, the memory and its bandwidth, and the bytes
that a chip sends to its neighbours; the clocks are those at which the matrix units reach that peak.
"""

import dataclasses

from vspw_jax.console.errors import choose


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip as the compiler's estimates see it.

    Attributes:
      clock: cycles a second.
      operations: of bfloat16 in a cycle, a multiplication with an addition being two.
      memory: bytes a second to and from its main memory.
      links: bytes a second that it sends to all of its neighbours.
    """

    clock: float
    operations: int
    memory: float
    links: float

    def milliseconds(self, cycles: float) -> float:
        """How long so many cycles last."""
        return 1e3 * cycles / self.clock

    def share_of_peak(self, operations: float, cycles: float) -> float:
        """What so many operations in so many cycles are of the most that the chip can do."""
        return operations / (cycles * self.operations) if cycles else 0.0


CHIPS = {
    "v5e": Chip(clock=1.5e9, operations=131_072, memory=819e9, links=200e9),
    "v5p": Chip(clock=1.75e9, operations=262_144, memory=2765e9, links=600e9),
    "v6e": Chip(clock=1.75e9, operations=524_288, memory=1640e9, links=448e9),
}
"""By the first part of a slice's name, such as v5e:2x2."""


def of_topology(topology: str) -> Chip:
    """The chip of a slice such as "v5e:2x2"; UserError for one that is not listed."""
    return choose(CHIPS, topology.partition(":")[0], "--topology")
