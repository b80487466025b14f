"""The account of a compiled program, counted by hand on the text of one and on schedules; no TPU compiler is needed."""

import json
import os
import textwrap
import time

import jax
import pytest

from benchmarks.tpu_cost import __main__ as program
from benchmarks.tpu_cost import chips, encoders, estimates, frames, schedules, tables
from vspw_jax.console.errors import UserError
from vspw_jax.inspection import step_cost

TEXT = """HloModule step

FileNames
1 "/somewhere/vspw_jax/models/encoders/beit.py"
2 "/somewhere/lib/flax/nnx/nn/linear.py"
3 "/somewhere/vspw_jax/losses/per_pixel.py"

FunctionNames
1 "Block.__call__"
2 "Linear.__call__"
3 "cross_entropy.<locals>.mean"

FileLocations
1 {file_name_id=1 function_name_id=1 line=12 end_line=12 column=1 end_column=2}
2 {file_name_id=2 function_name_id=2 line=34 end_line=34 column=1 end_column=2}
3 {file_name_id=3 function_name_id=3 line=56 end_line=56 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=1}


%inner (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  ROOT %rows = f32[8,8]{1,0} gather(%x, %x), metadata={op_name="jit(step)/take" stack_frame_id=3}
}

%outer (x.1: f32[8,8]) -> f32[8,8] {
  %x.1 = f32[8,8]{1,0} parameter(0)
  ROOT %fused = f32[8,8]{1,0} fusion(%x.1), kind=kCustom, calls=%inner
}

%body (state: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %state = (s32[], f32[8,8]{1,0}) parameter(0)
  %value = f32[8,8]{1,0} get-tuple-element(%state), index=1
  %product = f32[8,8]{1,0} fusion(%value), calls=%inner, metadata={stack_frame_id=2}, x={"estimated_cycles":"100"}
  %index = s32[] add(%state, %state)
  ROOT %out = (s32[], f32[8,8]{1,0}) tuple(%index, %product)
}

%condition (state.1: (s32[], f32[8,8])) -> pred[] {
  %state.1 = (s32[], f32[8,8]{1,0}) parameter(0)
  %bound = s32[] constant(6)
  %at = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[] compare(%at, %bound), direction=LT
}

ENTRY %main (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  %room = f32[8,8]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %begin = (s32[], f32[8,8]{1,0}) tuple(%p, %p)
  %loop = (s32[], f32[8,8]{1,0}) while(%begin), condition=%condition, body=%body
  %sampled = f32[8,8]{1,0} fusion(%p), kind=kCustom, calls=%outer, metadata={op_name="jit(step)/take" stack_frame_id=3}
  ROOT %sum = f32[8,8]{1,0} add(%sampled, %p), backend_config={"estimated_cycles":"7"}
}
"""

SCHEDULE = textwrap.dedent("""\
    LB: loop body
         0   :  { %s1 = smov 0 }
       0x1   :  { %s2 = smov 0 } /* Start region 2 */
       0x2 LB: > { %v1 = vld [vmem:[%s3] sm:$0xff]  ;;  %s5 = sphi %s1, %s4 /* phi copy */ }
    a line of a comment that goes on
       0x3   : > { %s14 = sadd.s32 1, %s5 }
       0x3   :  {} /* End region 2 */
       0x4 LB: >> { %s6 = sadd.s32 1, %s7  ;;  %s7 = sphi %s1, %s6 }
       0x5   : >> { %p1 = scmp.ge.s32.totalorder %s6, 10  ;;  %p3 = scmp.ge.s32.totalorder (%p1), %s4, 4 }
       0x6 LB: >> { %s10 = sphi %s2, %s9  ;;  %p8 = scmp.ge.s32.totalorder %s8, 999 }
       0x7   : >> { %p2 = scmp.gt.s32.totalorder %s9, %s11 }
       0x8   : > { %v4 = vst }
       0x9 LB: > { %s13 = sphi %s1, %s12  ;;  %p4 = scmp.ge.s32.totalorder %s12, 3 /* loop exit test */ }
       0xa   :  { %v2 = vst }
    """)


def test_instructions_in_a_loop_count_as_often_as_it_runs_and_those_of_a_fusion_once():
    by_name = {cost.name: cost for cost in estimates.costs(TEXT)}
    assert by_name.keys() == {"product", "sampled", "sum"}
    assert (by_name["product"].times, by_name["product"].cycles, by_name["product"].total) == (6, 100, 600)
    assert by_name["sum"].total == 7
    assert (by_name["sampled"].kind, by_name["sampled"].cycles) == ("gather", None)


def test_what_has_no_estimate_is_listed_until_its_schedule_is_known():
    assert tables.not_estimated(list(estimates.costs(TEXT))) == {"gather": 1}
    costs = list(estimates.costs(TEXT, {"sampled": 50.0, "product": 1.0}))
    assert tables.not_estimated(costs) == {} and sum(cost.total for cost in costs) == 600 + 7 + 50
    assert {cost.name for cost in costs if cost.is_scheduled} == {"sampled"}


def test_a_call_of_the_compilers_own_code_stands_by_its_name():
    costs = list(estimates.costs(TEXT.replace("AllocateBuffer", "TopK")))
    assert tables.not_estimated(costs) == {"custom-call TopK": 1, "gather": 1}


def test_costs_stand_by_module_and_by_the_innermost_line_of_this_package():
    costs = list(estimates.costs(TEXT, {"sampled": 393.0}))
    by_module = tables.shares(costs, tables.modules, chips.CHIPS["v5e"])
    assert {name: row["share"] for name, row in by_module.items()} == {
        "models/encoders/beit Block": 0.6,
        "losses/per_pixel cross_entropy": 0.393,
        "elsewhere": 0.007,
    }
    by_line = tables.shares(costs, tables.line, chips.CHIPS["v5e"])
    assert list(by_line)[:2] == [
        "models/encoders/beit.py:12 Block.__call__",
        "losses/per_pixel.py:56 cross_entropy.<locals>.mean",
    ]
    assert by_line["models/encoders/beit.py:12 Block.__call__"]["ms"] == pytest.approx(600 / 1.5e6, abs=1e-3)


def test_a_stack_leads_outwards_and_a_damaged_table_does_not_lead_in_a_circle():
    stacks = frames.Frames(TEXT)
    assert [frame.line for frame in stacks.stack(2)] == [12, 34] and stacks.stack(99) == ()
    circle = frames.Frames(TEXT.replace("location_id=1 parent_frame_id=1", "location_id=1 parent_frame_id=3"))
    assert len(circle.stack(2)) == frames.DEEPEST


def test_bundles_in_loops_count_as_often_as_the_loops_run():
    inner, by_data = 2 * 10, 2
    assert schedules.cycles(SCHEDULE) == 3 + 4 * (4 + inner + by_data) + 3 * 1


def test_schedules_are_read_while_they_come_and_their_files_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(schedules, "POLL_SECONDS", 0.01)
    names = "17-gather.3-03-final_bundles.txt", "17-gather.3-02-schedule-analysis_final_bundles.txt", "18-TLP-hlo.txt"
    with schedules.collected(tmp_path) as known:
        for name in names:
            (tmp_path / name).write_text(SCHEDULE if name == names[0] else "no schedule")
            os.utime(tmp_path / name, (0, 0))
        deadline = time.monotonic() + 20
        while any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert known == {"gather.3": schedules.cycles(SCHEDULE)}
    assert not list(tmp_path.iterdir())


def test_a_schedule_that_is_still_written_is_read_when_it_is_whole(tmp_path, monkeypatch):
    """Others that are newer come while it is."""
    monkeypatch.setattr(schedules, "POLL_SECONDS", 0.01)
    with schedules.collected(tmp_path) as known, (tmp_path / "17-sort.3-03-final_bundles.txt").open("w") as file:
        file.write(SCHEDULE[:100])
        file.flush()
        newer = tmp_path / "18-gather.4-03-final_bundles.txt"
        newer.write_text(SCHEDULE)
        os.utime(newer, (0, 0))
        deadline = time.monotonic() + 20
        while newer.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        file.write(SCHEDULE[100:])
    assert known == dict.fromkeys(("sort.3", "gather.4"), schedules.cycles(SCHEDULE))


def test_two_accounts_are_compared_and_other_files_refused(tmp_path, capsys):
    row = lambda ms: {"ms": ms, "share": 1.0, "not_estimated": 0}
    account = lambda ms: {"ms": ms, "not_estimated": {}, "by_module": {"x": row(ms)}, "by_line": {}}
    for name, ms in (("before", 4.0), ("after", 3.0)):
        (tmp_path / name).write_text(json.dumps(account(ms)))
    program.compare(tmp_path / "before", tmp_path / "after")
    assert "4.00 ms before, 3.00 ms after (0.750 of it)" in capsys.readouterr().out
    (tmp_path / "after").write_text("{}")
    with pytest.raises(UserError, match="not both files of --json"):
        program.compare(tmp_path / "before", tmp_path / "after")


def test_what_is_no_compiled_program_is_said(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        program.written_program(tmp_path / "missing")
    (tmp_path / "words").write_text("no program")
    with pytest.raises(UserError, match="no line that begins with ENTRY"):
        program.written_program(tmp_path / "words")
    (tmp_path / "step").write_text(TEXT)
    assert program.written_program(tmp_path / "step") == TEXT


def test_a_chip_that_is_not_listed_is_named():
    with pytest.raises(UserError, match="v4"):
        chips.of_topology("v4:2x2x1")


def test_the_gradient_of_an_encoder_is_traced(monkeypatch):
    """Of its own images alone; with everything rematerialised the forward pass is there twice."""
    monkeypatch.setattr(program.compile_for_tpu, "devices_of", lambda topology: jax.devices())
    arguments = ["--recipe=upernet_swin", "--part=encoder", "--size=demo", "--crop=64", "--frames=2"]
    operations = {}
    for remat in ("none", "full"):
        options = program.parser().parse_args([*arguments, f"--remat={remat}"])
        traced = encoders.traced(options)
        operations[remat] = step_cost.matrix_flops(traced.jaxpr.jaxpr)
        kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(traced.out_info)}
        assert kinds == {"float32"}  # Of the weights; the work is in bfloat16.
    forward = operations["full"] - operations["none"]
    assert 0.2 * operations["none"] < forward < 0.4 * operations["none"]
