"""Work in threads with bounded queues: reading ahead of the devices, and writing behind them."""

import collections
import concurrent.futures
import contextlib
import queue
import threading

END = object()
PATIENCE = 0.1
"""Seconds after which a thread that waits looks whether it should stop."""


@contextlib.contextmanager
def read_ahead(items, most):
    """Gives an iterator over `items`, which a thread reads; at most `most` wait. With 0 no thread is made.

    What the iterable raises is raised where the item would have come. Leaving the block stops the thread.
    """
    if not most:
        yield iter(items)
        return
    waiting, stopped = queue.Queue(most), threading.Event()

    def put(item):
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=PATIENCE)
                return

    def read():
        try:
            for item in items:
                put((item, None))
                if stopped.is_set():
                    return
        except BaseException as error:
            put((None, error))
        put((END, None))

    def taken():
        while (entry := waiting.get())[0] is not END:
            if entry[1]:
                raise entry[1]
            yield entry[0]

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        thread.join()


class WriteBehind:
    """Runs functions in threads; the caller waits once `most` are under way. With no threads it runs them itself.

    What one raises is raised by a later call, or when the block ends well.
    """

    def __init__(self, threads, most):
        self._pool = concurrent.futures.ThreadPoolExecutor(threads) if threads else None
        self._most, self._under_way = most, collections.deque()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            while self._under_way and kind is None:
                self._under_way.popleft().result()
        finally:
            if self._pool:
                self._pool.shutdown(cancel_futures=True)

    def __call__(self, function, *arguments):
        """A future of function(*arguments)."""
        if not self._pool:
            future = concurrent.futures.Future()
            future.set_result(function(*arguments))
            return future
        while len(self._under_way) >= self._most:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(function, *arguments))
        return self._under_way[-1]


def one_ahead(start, items):
    """start(item) of each item, always one more begun than has been given."""
    begun = None
    for item in items:
        before, begun = begun, (start(item),)
        if before:
            yield before[0]
    if begun:
        yield begun[0]
