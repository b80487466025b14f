"""Goodput: the share of wall time in which training steps are made."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator


class Goodput:
    """Measures the time since it was made. After `begin_steps`, all time that is not booked `elsewhere` is steps.

    Devices may still work on steps while the program waits elsewhere: the share is a lower bound.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        self._steps_began: float | None = None
        self.seconds: dict[str, float] = collections.defaultdict(float)

    def begin_steps(self) -> None:
        """What came before is called "start"."""
        self._steps_began = self._clock()
        self.seconds["start"] = self._steps_began - self._started - sum(self.seconds.values())

    @contextlib.contextmanager
    def elsewhere(self, name: str) -> Iterator[None]:
        """Books the block's time under a name."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - began

    @property
    def total(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._started

    @property
    def share(self) -> float:
        """The share of steps in the wall time until now, 0 to 1."""
        total = self.total
        return (total - sum(self.seconds.values())) / total if self._steps_began is not None else 0.0

    def __str__(self) -> str:
        most_first = sorted(self.seconds.items(), key=lambda item: -item[1])
        rest = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in most_first)
        return f"{100 * self.share:.1f} % of {self.total:.1f} s in steps; the rest: {rest}"
