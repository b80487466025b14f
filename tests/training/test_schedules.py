"""Learning rates by step against their definitions."""

import math

import jax.numpy as jnp
import pytest

from configs.parts import training
from vspw_jax.console.errors import UserError
from vspw_jax.training import schedules

RATE, STEPS = 2e-5, 40_000


def mmcv_rate(step, warmup=1500, power=1.0, minimum=0.0):
    """LrUpdaterHook: poly by iteration; in warm-up times 1 - (1 - step / warmup) * (1 - ratio)."""
    regular = (RATE - minimum) * (1 - step / STEPS) ** power + minimum
    return regular * (1 - (1 - step / warmup) * (1 - 1e-6)) if step < warmup else regular


@pytest.mark.parametrize("step", [0, 1, 749, 1499, 1500, 1501, 20_000, 39_999])
def test_poly_is_mmcvs(step):
    rate = schedules.build(training.poly(power=1.0, warmup_steps=1500), RATE, STEPS)
    assert float(rate(jnp.asarray(step))) == pytest.approx(mmcv_rate(step), rel=1e-5)


@pytest.mark.parametrize("step", [0, 1, 30_000, 39_999])
def test_poly_with_a_power_and_a_minimum(step):
    config = training.poly(power=0.9)
    config.minimum = 1e-6
    rate = schedules.build(config, RATE, STEPS)
    assert float(rate(jnp.asarray(step))) == pytest.approx(mmcv_rate(step, 0, 0.9, 1e-6), rel=1e-5)


@pytest.mark.parametrize("step", [0, 50, 99, 100, 20_000, 39_999])
def test_cosine_is_half_a_wave_after_its_warm_up(step):
    config = training.cosine(warmup_steps=100)
    config.minimum = 1e-6
    wave = 1e-6 + (RATE - 1e-6) * (1 + math.cos(math.pi * step / STEPS)) / 2
    ramp = min(1.0, 1e-6 + (1 - 1e-6) * step / 100)
    rate = schedules.build(config, RATE, STEPS)
    assert float(rate(jnp.asarray(step))) == pytest.approx(wave * ramp, rel=1e-5)


@pytest.mark.parametrize(("steps", "is_said"), [(20, True), (100, True), (101, False)])
def test_a_training_that_ends_before_its_warm_up_is_said(capsys, steps, is_said):
    schedules.warn_of_long_warmup(training.poly(warmup_steps=100), steps)
    said = capsys.readouterr().err
    assert ("schedule.warmup_steps is 100, and training has" in said) == is_said
    schedules.warn_of_long_warmup(training.poly(), 1)
    assert capsys.readouterr().err == ""


def test_a_schedule_has_its_own_fields_and_no_other():
    config = training.cosine()
    config.power = 0.9
    with pytest.raises(UserError, match="schedule.name is 'cosine', which does not read power"):
        schedules.check(config)
    del config.power
    schedules.check(config)
