"""Requests to stop: SIGTERM and SIGINT are answered between two steps, with a saved state."""

import concurrent.futures
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Self, TypeVar

import jax
from jax.experimental import multihost_utils

from vspw_jax.console import command, ending

Result = TypeVar("Result")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTICE = b"\nStopping: the training state is being saved. A second signal ends the program at once.\n"


class Stopped(Exception):
    """The run was asked to stop, and stopped; the message says what is saved."""


class StopRequest:
    """While it is entered, it notes the first SIGTERM or SIGINT; a second one ends the program at once.

    On several processes `jax.distributed` takes SIGTERM itself, so all stop before the same step; SIGINT is passed on
    as SIGTERM. Only the main thread may handle signals: in another thread, and while it is not entered, it notes
    nothing.
    """

    def __init__(self) -> None:
        self._agrees = jax.process_count() > 1
        self._received, self._wake = False, threading.Event()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT] if self._agrees else SIGNALS
            self._previous |= {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _note(self, *_: object) -> None:
        os.write(2, NOTICE)  # A handler may come in the middle of a print.
        self.__exit__()
        if self._agrees:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._received = True
            self._wake.set()

    def no_longer_agrees(self) -> None:
        """From here on each of several processes answers for itself: everything is saved."""
        if self._agrees:
            self._agrees = False
            self.__enter__()

    def check(self, step: int) -> None:
        """Raises Stopped where the run must stop before this step. Call it before every step: all processes agree."""
        if multihost_utils.reached_preemption_sync_point(step) if self._agrees else self._received:
            raise Stopped

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Raises Stopped for an error after a request: the signal may have ended processes that read for this one."""
        try:
            yield
        except Exception as error:
            if self._received:
                raise Stopped from error
            raise

    def unless_requested(self, function: Callable[..., Result], *args: Any) -> Result:
        """function(*args), for work such as a compilation: it cannot be interrupted, but its result can be given up.

        It runs in a thread of its own, while this one waits for signals. Where several processes must agree, it runs in
        this thread, to its end.

        Raises:
          Stopped: at once when a stop is requested; `leave` then ends the program, though the thread goes on.
        """
        if self._agrees:
            return function(*args)
        outcome: concurrent.futures.Future[Result] = concurrent.futures.Future()

        def work() -> None:
            try:
                outcome.set_result(function(*args))
            except BaseException as error:
                outcome.set_exception(error)
            self._wake.set()

        self._wake.clear()
        if not self._received:
            threading.Thread(target=work, daemon=True).start()
            self._wake.wait()
        if not outcome.done():
            raise Stopped
        return outcome.result()


def leave(stopped: Stopped, status: int = 0) -> NoReturn:
    """Ends the program with an exit status and a line that says what is saved and how to go on."""
    ending.reached()
    print(f"{stopped} To go on: {command.as_typed('vspw_jax.main')}", flush=True)
    sys.stderr.flush()
    if jax.process_count() > 1:
        jax.distributed.shutdown()
    # Not sys.exit: it would wait for an abandoned compilation, or destroy what the compilation uses while it runs.
    os._exit(status)
