"""Queues between threads: bounded, in order, and whatever goes wrong comes out."""

import threading

import pytest

from vspw_jax.inference.threads import WriteBehind, one_ahead, read_ahead


@pytest.mark.parametrize("most", [0, 1, 3])
def test_items_come_in_order_and_no_more_than_some_are_read_ahead(most):
    read = []

    def items():
        for number in range(20):
            read.append(number)
            yield number

    with read_ahead(items(), most) as ahead:
        for number, item in enumerate(ahead):
            # One is with the consumer, one may be waiting for room.
            assert item == number and len(read) <= number + most + 2
    assert read == list(range(20))


@pytest.mark.parametrize("most", [0, 2])
def test_an_error_comes_where_the_item_would_have(most):
    def items():
        yield 1
        raise KeyError("torn")

    with pytest.raises(KeyError, match="torn"), read_ahead(items(), most) as ahead:
        assert next(ahead) == 1
        next(ahead)


def test_leaving_early_stops_the_thread():
    threads = threading.active_count()
    with read_ahead(iter(int, 1), 2) as ahead:
        next(ahead)
    assert threading.active_count() == threads


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_all_that_was_begun_is_done_in_the_end(threads):
    done = []
    with WriteBehind(threads, 3) as write:
        futures = [write(done.append, number) for number in range(20)]
    assert sorted(done) == list(range(20)) and all(future.done() for future in futures)
    assert threads == 2 or done == list(range(20))


def test_the_caller_waits_when_too_much_is_under_way():
    gate, begun = threading.Event(), []
    with WriteBehind(1, 2) as write:
        for _ in range(2):
            write(gate.wait)
        opener = threading.Thread(target=lambda: (begun.append("third waits"), gate.set()))
        opener.start()
        write(begun.append, "third")
        opener.join()
    assert begun == ["third waits", "third"]


def fail():
    raise OSError("full")


@pytest.mark.parametrize("threads", [0, 1])
def test_an_error_in_a_thread_is_raised(threads):
    with pytest.raises(OSError, match="full"), WriteBehind(threads, 3) as write:
        write(fail)


def test_an_error_outside_is_not_hidden_and_what_has_not_begun_is_dropped():
    gate, done = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), WriteBehind(1, 9) as write:
        write(gate.wait, 10)
        for number in range(5):
            write(done.append, number)
        threading.Timer(0.2, gate.set).start()
        raise KeyboardInterrupt
    assert done == []


def test_one_is_always_begun_ahead():
    begun = []
    given = []
    for item in one_ahead(lambda item: begun.append(item) or item, range(4)):
        given.append((item, len(begun)))
    assert given == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(one_ahead(str, [])) == []
