"""A CPU seen as several devices: how many a batch allows, and that the program has them."""

import os
import subprocess
import sys

import pytest

from configs import nce, upernet
from vspw_jax.parallel import cpu_devices

PROGRAM = """
import jax
from configs import nce
from vspw_jax.parallel import cpu_devices
config = nce.get_config("demo")
cpu_devices.make(config)
print(jax.device_count())
cpu_devices.make(config)
"""


@pytest.mark.parametrize(
    "recipe, fields, expected",
    [
        (nce, {}, 2),
        (nce, {"sharding.cpu_devices": 1}, 1),
        (nce, {"sharding.cpu_devices": 8, "train.batch": 8, "loss.nce.groups": 4}, 4),
        (nce, {"sharding.cpu_devices": 3}, 1),
        (nce, {"train.accumulate": 2}, 1),  # A part has one group, of two clips.
        (upernet, {}, 2),
        (upernet, {"train.batch": 3}, 1),
        (upernet, {"train.batch": 12, "train.accumulate": 3, "sharding.cpu_devices": 8}, 4),
    ],
)
def test_as_many_devices_as_can_share_a_batch(recipe, fields, expected):
    config = recipe.get_config("demo")
    config.update_from_flattened_dict(fields)
    assert cpu_devices.count(config) == expected


@pytest.mark.parametrize("flags, expected", [("", "2"), ("--xla_force_host_platform_device_count=3", "3")])
def test_a_program_has_them_where_xla_was_not_told_otherwise(request, flags, expected):
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(request.config.rootpath)}
    ended = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.strip() == expected, ended.stderr


def test_full_recipes_have_one():
    assert cpu_devices.count(nce.get_config()) == 1
