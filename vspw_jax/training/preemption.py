"""Requests to stop: SIGTERM and SIGINT are answered between two steps, with a saved state."""

import concurrent.futures
import contextlib
import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

from vspw_jax.console import command

SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTICE = b"\nStopping: what was trained is being saved. Once more ends it at once.\n"


class Stopped(Exception):
    """The run was asked to stop and did; the message says what is saved."""


class StopRequest:
    """While it is entered, the first SIGTERM or SIGINT is noted, not obeyed; a second one ends the program at once.

    On several processes `jax.distributed` takes SIGTERM itself, so that all stop before the same step; SIGINT is passed
    on as SIGTERM. Outside the main thread, which alone may handle signals, and unless entered, nothing is noted.
    """

    def __init__(self):
        self._agrees = jax.process_count() > 1
        self._received, self._wake = False, threading.Event()
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT] if self._agrees else SIGNALS
            self._previous |= {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _note(self, *_):
        os.write(2, NOTICE)  # A handler may come in the middle of a print.
        self.__exit__()
        if self._agrees:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._received = True
            self._wake.set()

    def no_longer_agrees(self):
        """From here on, where all is saved, each of several processes answers for itself."""
        if self._agrees:
            self._agrees = False
            self.__enter__()

    def check(self, step):
        """Raises Stopped where this step is not to be made; to be called before every one, as all processes agree."""
        if multihost_utils.reached_preemption_sync_point(step) if self._agrees else self._received:
            raise Stopped

    @contextlib.contextmanager
    def reading(self):
        """Around what other processes do for this one: signals may have reached them too, and so ended them."""
        try:
            yield
        except Exception as error:
            if self._received:
                raise Stopped from error
            raise

    def unless_requested(self, function, *args):
        """function(*args), of which nothing need be kept: a compilation cannot be interrupted, but abandoned.

        It runs in a thread of its own while this one waits for signals; where several processes must agree, in this
        one and to its end.

        Raises:
          Stopped: at once when a stop is requested; `leave` then ends the program though the thread goes on.
        """
        if self._agrees:
            return function(*args)
        outcome = concurrent.futures.Future()

        def work():
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


def leave(stopped):
    """Ends the program with status 0 and a line that says what is saved and how to go on."""
    print(f"{stopped} To go on: {command.as_typed('vspw_jax.main')}", flush=True)
    sys.stderr.flush()
    if jax.process_count() > 1:
        jax.distributed.shutdown()
    # Not by sys.exit: a compilation that was abandoned would be waited for, or torn down while it runs.
    os._exit(0)
