"""What stands in a checkpoint's place and is none is named as what it is."""

import re

import pytest

from tests.inputs import no_checkpoints
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("case", no_checkpoints.FILES)
def test_what_a_file_is_is_said(case, suffix, tmp_path):
    data, said = no_checkpoints.FILES[case]
    path = tmp_path / f"X.{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))} is .*{re.escape(said)}"):
        checkpoint_file.read(path)


@pytest.mark.parametrize("name", no_checkpoints.NAMED)
def test_what_the_bytes_do_not_tell_the_name_does(name, tmp_path):
    (tmp_path / name).write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=no_checkpoints.NAMED[name]):
        checkpoint_file.read(tmp_path / name)


def test_a_text_of_other_letters_or_without_an_end_is_said(tmp_path):
    for data in ("<html><title>Où".encode("latin-1"), "é".encode() * 3000, "“quota”".encode(), b"{", b"<"):
        (tmp_path / "X.pth").write_bytes(data)
        with pytest.raises(UserError, match="is no checkpoint: it is"):
            checkpoint_file.read(tmp_path / "X.pth")
