"""Goodput: the share of wall time in which training steps are made."""

import collections
import contextlib
import time


class Goodput:
    """Keeps the time from its making on; what is not booked as something else since `begin_steps` is steps.

    Devices may still be at work on steps while the program waits elsewhere: the share is a lower bound.
    """

    def __init__(self, clock=time.monotonic):
        self._clock, self._started = clock, clock()
        self._steps_began, self.seconds = None, collections.Counter()

    def begin_steps(self):
        """What came before is called "start"."""
        self._steps_began = self._clock()
        self.seconds["start"] = self._steps_began - self._started - sum(self.seconds.values())

    @contextlib.contextmanager
    def elsewhere(self, name):
        """Books the block's time under a name."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - began

    @property
    def total(self):
        """Seconds since the run began."""
        return self._clock() - self._started

    @property
    def share(self):
        """Of the wall time until now, 0 to 1."""
        total = self.total
        return (total - sum(self.seconds.values())) / total if self._steps_began is not None else 0.0

    def __str__(self):
        rest = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.most_common())
        return f"{100 * self.share:.1f} % of {self.total:.1f} s in steps; the rest: {rest}"
