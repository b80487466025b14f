"""A profiler's trace of chosen steps, for TensorBoard or xprof."""

import pathlib

import jax
from jaxtyping import PyTree

from vspw_jax.console.errors import UserError


def check(steps: tuple[int, ...]) -> None:
    """Raises UserError where they are no range of steps."""
    if len(steps) != 2 or steps != (0, 0) and not 1 <= steps[0] <= steps[1]:
        raise UserError(f"run.profile_steps is {steps}: expected the first and the last step, such as (10, 12).")


class Trace:
    """Traces steps (first, last) into a folder, as plugins/profile/<time>; no step where both are 0.

    Raises:
      UserError: see `check`.
    """

    def __init__(self, steps: tuple[int, ...], folder: pathlib.Path | str) -> None:
        check(steps)
        self._first, self._last = steps
        self._folder, self._runs = folder, False

    def before(self, step: int, state: PyTree[jax.Array]) -> None:
        """To be called before each step, with the state that the step will take."""
        if step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._runs = True
        elif step == self._last + 1 and self._runs:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a trace that runs, and writes it."""
        if self._runs:
            jax.profiler.stop_trace()
            self._runs = False
