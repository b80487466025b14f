"""`model.remat="auto"` on eight devices of stated memory, with a small network that rematerialises its blocks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.inspection import step_cost
from vspw_jax.models import layers, segmenter
from vspw_jax.parallel import processes
from vspw_jax.training import loop, optimizers, rematerialisation, train_state


@pytest.fixture
def config(small_config, program, monkeypatch):
    """The small network with more blocks, each of a product and of what is cheap to compute again."""

    class Encoder(program.Encoder):
        def __init__(self, config, image_size, remat, *, dtype, rngs):
            super().__init__(config, image_size, remat, dtype=dtype, rngs=rngs)
            self.remat = remat
            make = lambda rngs: layers.linear(config.dim, config.dim, dtype=dtype, rngs=rngs)
            self.more = layers.stack_modules(make, 12, rngs)

        def __call__(self, image_NHWC, train=False, keys_N=None):
            x, *_ = super().__call__(image_NHWC, train, keys_N)
            block = lambda linear, x, _: (x + jnp.sin(jnp.tanh(linear(x))), None)
            x, _ = layers.scan_modules(self.more, block, x, remat=self.remat)
            return [x[:, ::stride, ::stride] for stride in (1, 2, 4, 8)]

    monkeypatch.setitem(segmenter.ENCODERS, "beit", Encoder)
    small_config.model.image_size = (64, 64)
    small_config.model.remat = "auto"
    small_config.update_from_flattened_dict({"train.steps": 2, "run.picture_every": 1000})
    return small_config


@pytest.fixture
def choose(config, monkeypatch):
    """choose(limit): (the policy that a run takes where devices state that limit, the policies that it compiled)."""
    mesh = train_state.mesh_of_run(config)
    graphdef, params, _ = train_state.describe(config)
    optimizer = optimizers.build(config, params)
    _, shapes = step_cost.abstract_step(config, mesh)
    placed = step_cost.placed_shapes(config, mesh, *shapes)

    def run(limit, compiled=compiled_once):
        monkeypatch.setattr(rematerialisation, "bytes_limit", lambda _: limit)
        steps = rematerialisation.possible_steps(config, graphdef, optimizer, mesh)
        names, programs = {step: name for name, step in steps.items()}, {}

        def watched(step, *inputs):
            programs[names[step]] = None
            programs[names[step]] = compiled(names[step], step, *inputs)
            return programs[names[step]]

        found = rematerialisation.fitting_step(steps, watched, mesh, *placed)
        return next(name for name, program in programs.items() if program is found), list(programs)

    return run


KNOWN = {}


def compiled_once(name, step, *inputs):
    if name not in KNOWN:
        KNOWN[name] = loop.compiled(step, *inputs)
    return KNOWN[name]


@pytest.fixture
def needed(choose):
    """Bytes that the compiled step needs, by policy."""
    with pytest.raises(UserError):
        choose(1)
    return {name: rematerialisation.step_bytes(program) for name, program in KNOWN.items()}


def test_less_memory_takes_more_rematerialisation(choose, needed):
    assert needed["none"] > needed["dots"] > needed["full"]
    room = lambda size: math.ceil(size / rematerialisation.SHARE)
    assert choose(room(needed["none"])) == ("none", ["none"])
    assert choose(room(needed["none"]) - 2) == ("dots", ["none", "dots"])
    assert choose(room(needed["dots"]) - 2) == ("full", ["none", "dots", "full"])
    assert choose(needed["full"]) == ("full", ["none", "dots", "full"])


def test_a_step_that_never_fits_is_refused(choose, needed):
    with pytest.raises(UserError) as refusal:
        choose(needed["full"] - 1)
    gib = [f"{name} {size / 2**30:.2f} GiB" for name, size in needed.items()]
    for part in (", ".join(gib), "--config.sharding.fsdp=0", "--config.train.accumulate=2"):
        assert part in str(refusal.value)


def test_devices_that_do_not_say_how_much_memory_they_have(choose):
    assert choose(None) == ("full", ["full"])


def test_what_the_compiler_refuses_does_not_fit(choose):
    def refusing(name, *step):
        if name == "none":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.")
        return compiled_once(name, *step)

    assert choose(2**40, refusing) == ("dots", ["none", "dots"])

    def failing(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        choose(2**40, failing)


def test_processes_take_what_fits_into_the_least_memory_of_all(choose, needed, monkeypatch):
    """Of two processes the other has less memory, or a compiler that needs more."""
    monkeypatch.setattr(processes, "gathered", lambda mine: [mine, [needed["full"]] if isinstance(mine, list) else 0])
    assert choose(2**40)[0] == "full"
    monkeypatch.setattr(processes, "gathered", lambda mine: [mine, mine if isinstance(mine, list) else 2**39])
    assert choose(2**39)[0] == "full"


@pytest.mark.parametrize(("limit", "chosen"), [(2**40, "none"), (None, "full")])
def test_a_run_logs_its_choice_and_ends_as_one_that_was_told(config, monkeypatch, tmp_path, limit, chosen):
    monkeypatch.setattr(rematerialisation, "bytes_limit", lambda _: limit)
    state = loop.train(config, tmp_path / "auto")
    log = (tmp_path / "auto" / "logs" / "process_0.log").read_text()
    (line,) = [line for line in log.splitlines() if "model.remat=auto" in line]
    assert f"model.remat=auto: {chosen}" in line and ("none 0.01 GiB" in line) == (chosen == "none")
    config.model.remat = chosen
    told = loop.train(config, tmp_path / "told")
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((state["params"], told["params"])))


def test_other_modes_take_it(small_network, small_flags, command_line, tmp_path):
    flags = [*small_flags, "--config.model.remat=auto", "--config.train.steps=2", f"--workdir={tmp_path / 'run'}"]
    status, output, errors = command_line(*flags)
    assert status == 0, errors
    assert "mIoU" in output and "Predicted video" in output
