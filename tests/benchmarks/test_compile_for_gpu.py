"""Steps for GPUs that are not here: what is counted without a compiler, and what is told without one."""

import json
import subprocess
import sys

import jax
import pytest

from benchmarks import compile_for_gpu
from benchmarks.gpu_cards import CARDS
from vspw_jax.console.errors import UserError
from vspw_jax.models import attention


def test_a_step_is_counted_for_devices_that_are_not_here():
    command = [sys.executable, "-m", "benchmarks.compile_for_gpu", "--recipe=upernet", "--size=demo", "--crop=64"]
    rows = []
    for devices in (1, 4):
        done = subprocess.run(
            [*command, "--frames=1", f"--devices={devices}", "--trace-only"], capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout))
    one, four = rows
    assert one["times_and_MB"] == {} and one["TFLOP"] > 0
    assert four["TFLOP"] == pytest.approx(one["TFLOP"], rel=0.02)
    gathered, scattered = (four["times_and_MB"][kind][1] for kind in ("all-gather", "reduce-scatter"))
    assert gathered > 0 and scattered > 0


@pytest.mark.parametrize("name", CARDS)
def test_the_compiler_knows_the_cards(name):
    pytest.importorskip("jax_cuda13_plugin")
    (device,) = compile_for_gpu.devices_of(CARDS[name], 1)
    assert device.device_kind == CARDS[name].name


def test_attention_is_fused_where_the_card_can():
    options = compile_for_gpu.parser().parse_args(
        ["--recipe=upernet", "--size=demo", "--crop=64", "--frames=1", "--card=a100", "--trace-only"]
    )
    traced, _, lowered = compile_for_gpu.lowered_step(options, jax.devices()[:1])
    assert attention.FORWARD in str(traced.jaxpr) and lowered is None


def no_compiler(*_, **__):
    raise RuntimeError("topology not implemented for cuda")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text={folder}/file/a"], "--text"),
        ([], "no compiler for GPUs here.*pip install .*--trace-only"),
    ],
)
def test_what_cannot_be_done_is_told_first(monkeypatch, tmp_path, flags, message):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", no_compiler)
    monkeypatch.setattr("sys.argv", ["compile_for_gpu", *(flag.format(folder=tmp_path) for flag in flags)])
    with pytest.raises(UserError, match=message):
        compile_for_gpu.main()
