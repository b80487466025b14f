"""Addresses in buckets: gs://BUCKET/PATH of Google Cloud Storage, s3://BUCKET/PATH of S3 and of servers like it."""

import posixpath
import re
from typing import TypeGuard

from vspw_jax.console.errors import UserError

KINDS = {"gs": "Google Cloud Storage", "s3": "S3"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_ADDRESS = re.compile(r"(gs|s3)://([a-z0-9][a-z0-9._-]+)((?:/[^/]+)*)/?")


def is_address(path: object) -> TypeGuard[str]:
    """Whether a path is an address of something in a bucket, and not on a disk.

    Raises:
      UserError: it is an address of another kind, or not whole.
    """
    text = str(path)
    scheme = _SCHEME.match(text)
    if scheme is None or (scheme[1] not in KINDS and not text.startswith(f"{scheme[0]}/")):
        return False
    found = _ADDRESS.fullmatch(text)
    if scheme[1] not in KINDS:
        raise UserError(
            f"{text} begins with {scheme[1]}://: expected a path on a disk, gs://BUCKET/PATH or s3://BUCKET/PATH. Copy "
            "it to a disk first."
        )
    if found is None or {".", ".."} & set(found[3].split("/")) or not text.isprintable():
        raise UserError(
            f"{text!r} is no address in a bucket: expected {scheme[1]}://BUCKET/PATH, the bucket's name in lower case, "
            "one slash between names, and none of them . or .."
        )
    return True


def plain(address: str) -> str:
    """The same address without a slash at its end."""
    return address.rstrip("/")


def last_name(address: str) -> str:
    """The last name of an address: a file's or a folder's."""
    return posixpath.basename(plain(address))


def folder_of(address: str) -> str:
    """The address of the folder that holds it."""
    return posixpath.dirname(plain(address))
