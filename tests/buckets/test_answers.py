"""A request is made again where that may help, and what a user can mend is told."""

import errno

import pytest

from vspw_jax.buckets import answers
from vspw_jax.buckets.answers import BucketError, patient


class HttpError(Exception):
    """As gcsfs has it."""

    def __init__(self, code, message=""):
        self.code = code
        super().__init__(message)


@pytest.fixture(autouse=True)
def waited(monkeypatch):
    """The waits, which take no time."""
    clock, found = [0.0], []

    def sleep(seconds):
        clock[0] += seconds
        found.append(seconds)

    monkeypatch.setattr(answers.time, "sleep", sleep)
    monkeypatch.setattr(answers.time, "monotonic", lambda: clock[0])
    return found


def failing(*errors):
    """A request that fails with these errors, then answers."""
    left = list(errors)

    def request():
        if left:
            raise left.pop(0)
        return "answer"

    return request


@pytest.mark.parametrize(
    "error",
    [
        HttpError(503),
        HttpError("429"),
        TimeoutError(),
        OSError(errno.EBUSY, "slow down"),
        ConnectionResetError(104, ""),
    ],
)
def test_what_passes_is_asked_again(error, waited, capsys):
    assert patient("Reading gs://b/x", "gs", failing(error, error, error)) == "answer"
    assert waited == [1, 2, 4]
    assert capsys.readouterr().err.count("Reading gs://b/x has no answer yet") == 1


def test_patience_ends(waited):
    with pytest.raises(BucketError, match="Reading gs://b/x has had no answer for 300 s"):
        patient("Reading gs://b/x", "gs", failing(*[HttpError(503)] * 1000))
    assert 250 < sum(waited) <= 300 and max(waited) == 30


@pytest.mark.parametrize(
    "error",
    [HttpError(401), HttpError(403), OSError("Forbidden: o\nno right"), PermissionError("no")],
)
def test_what_is_refused_is_not_asked_again(error, waited):
    with pytest.raises(BucketError, match="is refused: .*\n.*credentials.*AWS_PROFILE"):
        patient("Writing s3://b/x", "s3", failing(error))
    assert waited == []


def test_an_answer_without_a_meaning_for_us_is_told():
    with pytest.raises(BucketError, match="Writing s3://b/x fails: .*bad request.*right bucket and place"):
        patient("Writing s3://b/x", "s3", failing(OSError(errno.EINVAL, "bad request")))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("a bug"), KeyError()])
def test_what_is_not_of_the_server_stays_as_it_is(error):
    with pytest.raises(type(error)):
        patient("Reading gs://b/x", "gs", failing(error))
