"""Loading a checkpoint takes little more memory than the tensors that are kept, whatever else is in the file."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.interop.conftest import drawn, tiny_model
from vspw_jax.interop import checkpoint_file, convert, namings
from vspw_jax.interop.stored_tensors import NewTensor

LOAD = """
import sys
from vspw_jax.interop import convert

def status(name):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[name].split()[0]) * 1024

convert.model_from_torch(sys.argv[1])  # What tracing and imports take once is not the question.
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
model, _ = convert.model_from_torch(sys.argv[2])
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_loading_peaks_below_1_3_times_what_is_kept(tmp_path):
    convert.save_torch(drawn(tiny_model()), tmp_path / "tiny.pth")
    config = tiny_model(image_size=(640, 640))
    config.encoder.update(dim=384, depth=8)
    config.decoder.update(dim=384, encoder_ffn_dim=1536, ffn_dim=1536, decoder_layers=4)
    model = drawn(config)
    weights = [convert.nnx.to_pure_dict(convert.nnx.state(model))]
    kept = sum(leaf.nbytes for leaf in convert.leaves_by_path(*weights).values())
    tensors = {  # Every buffer by itself, as in the released file, where they are 1.9 GB.
        name: NewTensor(tensor.shape, tensor.dtype, lambda tensor=tensor: tensor.make())
        for name, tensor in convert.new_tensors(config, weights, namings.NAMINGS["mmseg"]).items()
    }
    checkpoint_file.write(tmp_path / "X.pth", tensors, "state_dict")
    assert kept > 90e6
    assert (tmp_path / "X.pth").stat().st_size > kept + 8 * 1601**2 * 8
    result = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "tiny.pth", tmp_path / "X.pth"],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(result.stdout.splitlines()[-1])
    print(f"peak {peak / kept:.2f} times the tensors kept ({kept / 1e6:.0f} MB)")
    assert peak < 1.3 * kept
