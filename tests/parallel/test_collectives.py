"""What devices send each other, counted by hand on a program's text and on programs compiled here."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from benchmarks import collectives, compile_for_tpu
from configs import upernet
from vspw_jax.inspection import step_cost
from vspw_jax.parallel.mesh import make_mesh

TEXT = """HloModule step

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%round (state: (s32[], bf16[2,8])) -> (s32[], bf16[2,8]) {
  %state = (s32[], bf16[2,8]{1,0}) parameter(0)
  %part = bf16[2,8]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %start = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) all-gather-start(%part), replica_groups=[2,4]<=[8], dimensions={0}
  %whole = bf16[8,8]{1,0} all-gather-done(%start)
  ROOT %out = (s32[], bf16[2,8]{1,0}) tuple(%index, %part)
}

%condition (state: (s32[], bf16[2,8])) -> pred[] {
  ROOT %less = pred[] constant(true)
}

%starts (part: bf16[2,8]) -> (bf16[2,8], bf16[8,8]) {
  %part.1 = bf16[2,8]{1,0} parameter(0)
  %whole.1 = bf16[8,8]{1,0} all-gather(%part.1), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  ROOT %begun = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) custom-call(%whole.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.7 (part: bf16[2,8]) -> bf16[8,8] {
  %part.2 = bf16[2,8]{1,0} parameter(0)
  ROOT %whole.2 = bf16[8,8]{1,0} all-gather(%part.2), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
}

%ends (part: bf16[2,8]) -> bf16[8,8] {
  %part.3 = bf16[2,8]{1,0} parameter(0)
  %whole.3 = bf16[8,8]{1,0} all-gather(%part.3), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  ROOT %ended = bf16[8,8]{1,0} custom-call(%part.3, %whole.3), custom_call_target="AsyncCollectiveDone"
}

%counted_round (state: (s32[], bf16[2,8])) -> (s32[], bf16[2,8]) {
  %state.1 = (s32[], bf16[2,8]{1,0}) parameter(0)
  %part.4 = bf16[2,8]{1,0} get-tuple-element(%state.1), index=1
  %begun.1 = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) fusion(%part.4), kind=kCustom, calls=%starts
  %beside = bf16[8,8]{1,0} fusion(%part.4), kind=kCustom, calls=%async_collective_fusion.7
  %ended.1 = bf16[8,8]{1,0} fusion(%part.4), kind=kCustom, calls=%ends
  ROOT %out.1 = (s32[], bf16[2,8]{1,0}) tuple(%index, %part.4)
}

%below_five (state: (s32[], bf16[2,8])) -> pred[] {
  %state.2 = (s32[], bf16[2,8]{1,0}) parameter(0)
  %at.1 = s32[] get-tuple-element(%state.2), index=0
  %five = s32[]{:T(128)} constant(5), metadata={op_name="step"}
  ROOT %lt = pred[]{:T(512)} compare(%at.1, %five), direction=LT
}

%all-reduce-scatter.1 (input: f32[16]) -> f32[4] {
  %input = f32[16]{0} parameter(0)
  %sum.1 = f32[16]{0} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %kept = f32[4]{0} dynamic-slice(%sum.1, %at), dynamic_slice_sizes={4}
}

ENTRY %main (given: f32[8,4]) -> f32[4] {
  %given = f32[8,4]{1,0} parameter(0)
  %loop = (s32[], bf16[2,8]{1,0}) while(%init), condition=%condition, body=%round, backend_config={"known_trip_count":{"n":"6"}}
  %counted = (s32[], bf16[2,8]{1,0}) while(%init), condition=%below_five, body=%counted_round
  %scattered = f32[2,4]{1,0} reduce-scatter(%given), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add
  %fused = f32[4]{0} fusion(%row), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %total = f32[8,4]{1,0} all-reduce(%given), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
}
"""  # noqa: E501


def test_bytes_of_a_text_are_those_by_hand():
    """A ring of n sends (n - 1) / n of what is gathered or scattered, twice that of a sum; rounds of loops count."""
    assert collectives.count(TEXT, 8) == {
        "all-gather": (11, pytest.approx(11 * 64 * 2 * 3 / 4)),
        "all-reduce": (1, pytest.approx(2 * 32 * 4 * 7 / 8)),
        "reduce-scatter": (2, pytest.approx((32 + 16) * 4 * 3 / 4)),
    }


@pytest.mark.parametrize(
    "message",
    [
        "the total memory required for HLO temporaries (16.06G) exceeds available HBM (15.75G).",
        "Ran out of memory in memory space hbm. Used 16.06G of 15.75G hbm. Exceeded hbm capacity by 0.31G.",
    ],
)
def test_what_the_compiler_says_of_too_large_a_program_is_read(message):
    assert compile_for_tpu.TOO_LARGE.search(message).groups() == ("16.06G", "15.75G")


def test_a_compiled_scan_over_shards_gathers_each_layer_once():
    mesh = make_mesh(devices=jax.devices()[:4], fsdp=4)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(None, "fsdp"), P()), out_specs=P(), check_vma=False)
    def run(weights, x):
        layer = lambda x, part: (jnp.tanh(x @ jax.lax.all_gather(part, "fsdp", tiled=True)), None)
        return jax.lax.scan(layer, x, weights)[0]

    text = jax.jit(run).lower(jnp.zeros((5, 8, 8)), jnp.zeros((3, 8))).compile().as_text()
    times, sent = collectives.count(text, 4)["all-gather"]
    assert times == 5 and sent == pytest.approx(5 * 8 * 8 * 4 * 3 / 4)


def test_what_a_function_asks_for_is_counted_before_it_is_compiled():
    """Five gathers in a scan and their gradients' five scatters; a sum over eight devices, none over one."""
    mesh = make_mesh(devices=jax.devices()[:8], fsdp=4)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(None, "fsdp"), P()), out_specs=P(), check_vma=False)
    def run(weights, x):
        def loss(weights):
            layer = lambda x, part: (jnp.tanh(x @ jax.lax.all_gather(part, "fsdp", tiled=True)), None)
            return jax.lax.scan(layer, x, weights)[0].sum()

        return jax.lax.psum(jax.grad(loss)(weights).sum(), ("data", "fsdp"))

    jaxpr = jax.make_jaxpr(run)(jnp.zeros((5, 8, 8)), jnp.zeros((3, 8))).jaxpr
    sent = 5 * 8 * 8 * 4 * 3 / 4
    assert collectives.asked(jaxpr, mesh.shape) == {
        "all-gather": [5, sent],
        "reduce-scatter": [5, sent],
        "all-reduce": [1, 2 * 4 * 7 / 8],
    }
    assert "all-reduce" not in collectives.asked(jaxpr, {"data": 1, "fsdp": 1})


def test_what_a_device_holds_and_sends_does_not_grow_with_their_number(small_network):
    """The whole step with a clip a device and the state in parts, on four devices and on eight."""
    config, found = upernet.get_config("demo"), {}
    config.model.update(image_size=(32, 32), dtype="bfloat16", remat="full")
    config.model.encoder.dim = config.model.decoder.dim = 16
    config.sharding.update(fsdp=0, whole_below=128)
    for count in (4, 8):
        config.train.batch = count
        mesh = make_mesh(count, devices=jax.devices()[:count], fsdp=0)
        step, shapes = step_cost.abstract_step(config, mesh)
        traced = step.trace(*step_cost.placed_shapes(config, mesh, *shapes))
        memory = traced.lower().compile().memory_analysis()
        asked = collectives.asked(traced.jaxpr.jaxpr, mesh.shape)
        times = {kind: times for kind, (times, _) in asked.items()}
        whole = {kind: sent / (count - 1) * count for kind, (_, sent) in asked.items()}  # Of a ring.
        found[count] = memory.temp_size_in_bytes, memory.argument_size_in_bytes, times, whole
        assert asked.keys() == {"all-gather", "all-reduce", "reduce-scatter"}
    assert found[8][0] < 1.2 * found[4][0] and found[8][1] < found[4][1]
    assert found[8][2] == found[4][2] and found[8][3] == pytest.approx(found[4][3])
