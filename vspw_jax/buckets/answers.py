"""What a bucket's server answers: a request is made again where it may go well later, and told where it is refused."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from vspw_jax.buckets import addresses
from vspw_jax.console.errors import UserError, no_room, warn

PATIENCE_SECONDS = 300.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0

PASSING = {errno.EREMOTEIO, errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED}
"""Errors of a server that works again soon; s3fs gives the first two for status 500, 503 and "slow down"."""
PASSING_STATUS = {408, 429, 500, 502, 503, 504}
PASSING_KINDS = ("aiohttp.", "requests.", "botocore.exceptions.ConnectionError", "botocore.exceptions.HTTPClientError")
NO_CREDENTIALS = ("NoCredentialsError", "DefaultCredentialsError", "PartialCredentialsError", "ProfileNotFound")
OF_LIBRARIES = ("gcsfs.", "botocore.", "google.")
HELP = {
    "gs": "Log in with: gcloud auth application-default login, or name a key file in GOOGLE_APPLICATION_CREDENTIALS.",
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
}

T = TypeVar("T")


class BucketError(UserError):
    """A bucket that is not there, does not answer, or refuses what is asked of it."""


class Changed(BucketError):
    """An object that was overwritten or deleted since it was listed."""


def _kinds(error: BaseException) -> str:
    """The names of an error's classes. The libraries that have them may not be installed."""
    return " ".join(f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__)


def _status(error: BaseException) -> int:
    """The HTTP status of one of gcsfs's errors, 0 where there is none."""
    code = str(getattr(error, "code", None) or getattr(error, "status", None))
    return int(code) if code.isdecimal() else 0


def _passes(error: BaseException) -> bool:
    """Whether the same request may go well later."""
    if isinstance(error, TimeoutError) or getattr(error, "errno", None) in PASSING or _status(error) in PASSING_STATUS:
        return True
    return _status(error) == 0 and any(kind in _kinds(error) for kind in PASSING_KINDS)


def _refusal(error: BaseException, scheme: str) -> str:
    """What the user can do where a server refuses, or where there are no credentials; "" where it is neither."""
    said = str(error)
    if any(kind in _kinds(error) for kind in NO_CREDENTIALS) or "Anonymous caller" in said or _status(error) == 401:
        return f"There are no valid credentials for {addresses.KINDS[scheme]}. {HELP[scheme]}"
    if isinstance(error, PermissionError) or said.startswith("Forbidden") or _status(error) == 403:
        return f"The credentials are not valid, or lack the right to do that: give it to them. {HELP[scheme]}"
    return ""


def _what_to_raise(error: Exception, doing: str, first_line: str) -> Exception:
    """For an error that is neither refused nor passes: those of this disk stay as they are."""
    from_afar = any(kind in _kinds(error) for kind in OF_LIBRARIES) or isinstance(error, OSError | ValueError)
    if no_room(error) or not from_afar:
        return error
    return BucketError(f"{doing} fails: {first_line}. Does the address name the right bucket and place?")


def patient(doing: str, scheme: str, request: Callable[[], T]) -> T:
    """The answer to a request that may be made again.

    Args:
      doing: what it does, and where, such as "Listing s3://bucket/runs".

    Raises:
      BucketError: the server refuses, or has not answered for `PATIENCE_SECONDS`.
      FileNotFoundError, FileExistsError: as the server says.
    """
    ends, wait = time.monotonic() + PATIENCE_SECONDS, FIRST_WAIT
    while True:
        try:
            return request()
        except (FileNotFoundError, FileExistsError, BucketError):
            raise
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            if refusal := _refusal(error, scheme):
                raise BucketError(f"{doing} is refused: {first_line}\n{refusal}") from error
            if not _passes(error):
                raise _what_to_raise(error, doing, first_line) from error
            if time.monotonic() + wait > ends:
                raise BucketError(
                    f"{doing} has had no answer for {PATIENCE_SECONDS:.0f} s ({first_line}). What is there stays as it "
                    "is. Give the same command again when the server answers."
                ) from error
            if wait == FIRST_WAIT:
                warn(f"{doing} has no answer yet ({first_line}). Asking again for {PATIENCE_SECONDS:.0f} s.")
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
