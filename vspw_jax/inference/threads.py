"""Work in threads with bounded queues: reading ahead of the devices, and writing behind them."""

import collections
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

END = object()
PATIENCE = 0.1
"""A waiting thread looks after so many seconds whether it should stop."""


@contextlib.contextmanager
def read_ahead(items: Iterable[T], most: int) -> Iterator[Iterator[T]]:
    """Gives an iterator over `items`. A thread reads them ahead; at most `most` wait. With 0 there is no thread.

    What the iterable raises, the iterator raises in the item's place. Leaving the block stops the thread.
    """
    if not most:
        yield iter(items)
        return
    waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(most)
    stopped = threading.Event()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=PATIENCE)
                return

    def read() -> None:
        try:
            for item in items:
                put((item, None))
                if stopped.is_set():
                    return
        except BaseException as error:
            put((None, error))
        put((END, None))

    def taken() -> Iterator[T]:
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

    What a function raises, a later call raises, or the end of a block that ends well.
    """

    def __init__(self, threads: int, most: int) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(threads) if threads else None
        self._under_way: collections.deque[concurrent.futures.Future] = collections.deque()
        self._most = most

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            if self._pool:
                self._pool.shutdown(cancel_futures=True)

    def wait(self) -> None:
        """Until all that was begun is done."""
        while self._under_way:
            self._under_way.popleft().result()

    def __call__(self, function: Callable[..., R], *arguments: Any) -> concurrent.futures.Future[R]:
        """A future of function(*arguments)."""
        if not self._pool:
            future: concurrent.futures.Future[R] = concurrent.futures.Future()
            future.set_result(function(*arguments))
            return future
        while len(self._under_way) >= self._most:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(function, *arguments))
        return self._under_way[-1]


def one_ahead(start: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """start(item) of each item; the next item is started before this one's result is given."""
    begun = None
    for item in items:
        before, begun = begun, (start(item),)
        if before:
            yield before[0]
    if begun:
        yield begun[0]
