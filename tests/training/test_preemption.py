"""A request to stop is noted and answered where nothing is lost; a second one is not held up."""

import os
import signal
import threading

import pytest

from vspw_jax.training import preemption


@pytest.fixture
def stop():
    with preemption.StopRequest() as request:
        yield request


@pytest.mark.parametrize("number", preemption.SIGNALS)
def test_a_signal_is_answered_at_the_next_step_and_a_second_one_at_once(number):
    before = signal.getsignal(number)
    with preemption.StopRequest() as stop:
        stop.check(1)
        assert signal.getsignal(number) != before
        signal.raise_signal(number)
        assert signal.getsignal(number) == before
        with pytest.raises(preemption.Stopped):
            stop.check(2)
    assert signal.getsignal(number) == before


def test_handlers_are_given_back():
    """Those that were there: a program in the background of a script ignores SIGINT."""
    before = [signal.getsignal(number) for number in preemption.SIGNALS]
    with preemption.StopRequest():
        assert [signal.getsignal(number) for number in preemption.SIGNALS] != before
    assert [signal.getsignal(number) for number in preemption.SIGNALS] == before


def test_what_is_not_stopped_gives_its_result_and_its_error(stop):
    assert stop.unless_requested(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        stop.unless_requested(divmod, 7, 0)
    assert preemption.StopRequest().unless_requested(divmod, 7, 2) == (3, 1)


def test_what_cannot_be_interrupted_is_left(stop):
    """As a compilation, which no signal reaches: the caller goes on at once."""
    released, ended = threading.Event(), threading.Event()

    def compile_for_hours():
        os.kill(os.getpid(), signal.SIGTERM)
        released.wait()
        ended.set()

    with pytest.raises(preemption.Stopped):
        stop.unless_requested(compile_for_hours)
    assert not ended.is_set()
    released.set()
    assert ended.wait(60)


def test_nothing_is_begun_after_a_request(stop):
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(preemption.Stopped):
        stop.unless_requested(pytest.fail, "begun")


def test_readers_that_the_signal_ended_too_are_no_failure(stop):
    with pytest.raises(ValueError), stop.reading():
        raise ValueError("damaged record")
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(preemption.Stopped), stop.reading():
        raise RuntimeError("a worker was terminated")


def test_other_threads_note_nothing_and_do_not_fail():
    def enter():
        with preemption.StopRequest() as stop:
            stop.check(1)
            found.append(signal.getsignal(signal.SIGTERM))

    found, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [before]
