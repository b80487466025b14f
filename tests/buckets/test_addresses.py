"""What is an address in a bucket, and what is none."""

import pytest

from vspw_jax.buckets import addresses
from vspw_jax.console.errors import UserError


@pytest.mark.parametrize("text", ["gs://bucket/run", "s3://my-bucket.eu/a b/ü", "s3://bucket", "gs://bucket/run/"])
def test_an_address_is_one(text):
    assert addresses.is_address(text)


@pytest.mark.parametrize("text", ["runs/nce", "/gs/x", "gs", "./s3/a:b", "clips/*.mp4", "a:b/c", "", None, "C:/x"])
def test_a_path_of_a_disk_is_none(text):
    assert not addresses.is_address(text)


@pytest.mark.parametrize("text", ["gs:/bucket/run", "s3://", "s3:///run", "gs://Bucket/run", "gs://b1/a//b"])
def test_half_an_address_is_refused(text):
    with pytest.raises(UserError, match="is no address in a bucket: expected (gs|s3)://BUCKET/PATH"):
        addresses.is_address(text)


@pytest.mark.parametrize("text", ["gs://bucket/../other", "s3://bucket/./run", "s3://bucket/a\nb"])
def test_a_name_that_no_folder_can_have_is_refused(text):
    with pytest.raises(UserError, match="is no address in a bucket"):
        addresses.is_address(text)


@pytest.mark.parametrize("text", ["https://host/x.pth", "az://container/run", "file:///run", "hf://model"])
def test_an_address_of_another_kind_is_refused(text):
    with pytest.raises(UserError, match="expected a path on a disk, gs://BUCKET/PATH or s3://BUCKET/PATH"):
        addresses.is_address(text)


def test_parts_of_an_address():
    assert addresses.last_name("gs://bucket/runs/a b/") == "a b"
    assert addresses.folder_of("gs://bucket/runs/a b/") == "gs://bucket/runs"
