"""The folder that every case begins with a copy of: drawn video, its records, a run on it, and the run's weights.

video/                  nine drawn videos of 64 x 48 pixels, in VSPW's layout
records/                the same, converted
small.py                configs/upernet.py, smaller
runs/a                  four steps of it, of which the second and the last are saved
net.py                  configs/segformer.py, smaller
net.pth                 a checkpoint of its network
"""

import pathlib
import runpy
import shutil

import jax
import jax.numpy as jnp

from benchmarks.inputs_log import trial
from data_prep import generate
from data_prep.drawing import layouts
from vspw_jax.checkpoints import run_identity
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.interop import convert
from vspw_jax.training import train_state

ROOT = pathlib.Path(__file__).parents[2]

RECIPE = """from configs import upernet


def get_config(size="full"):
    config = upernet.get_config("demo")
    config.data.records = "records"
    config.data.augment.base_size = (64, 48)
    config.model.image_size = (32, 32)
    config.model.encoder.dim = config.model.decoder.dim = 16
    config.schedule.warmup_steps = 0
    config.train.update(steps=4, batch=2)
    config.evaluate.stride = (32, 32)
    config.run.update(save_every=2, log_every=1, afterwards=())
    return config
"""

NET_RECIPE = """from configs import segformer


def get_config(size="full"):
    config = segformer.get_config("demo")
    config.data.records = "records"
    config.model.image_size = config.evaluate.stride = (64, 64)
    config.model.encoder.update(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), head_dim=8, mlp_ratio=2.0)
    config.model.decoder.dim = 12
    return config
"""

NET = "python -m vspw_jax.main --config=net.py --workdir=runs/n"
EXPORT = f"{NET} --mode=export --output=back.pth --naming=nvlabs_segformer --config.init_from="

VIDEOS = {"train": 5, "val": 3, "test": 1}

COMMANDS = (
    "python -m data_prep.vspw --source=video --output=records",
    "python -m vspw_jax.main --config=small.py --workdir=runs/a",
)


def make(folder: pathlib.Path, programs: trial.Programs) -> None:
    """Makes it in a new folder.

    Raises:
      RuntimeError: a command of it does not end well.
    """
    folder.mkdir()
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "small.py").write_text(RECIPE)
    generate.generate(folder / "video", lambda aside: layouts.write_vspw(aside, VIDEOS, 10, 48, 64, 0))
    (folder / "net.py").write_text(NET_RECIPE)
    write_net(folder)
    for command in COMMANDS:
        ended = programs.run(command, folder)
        if ended.status:
            raise RuntimeError(f"{command}\n{ended.words}")


def write_net(folder: pathlib.Path) -> None:
    """Writes net.pth and runs/net, in which every number is 0.5."""
    config = runpy.run_path(str(folder / "net.py"))["get_config"]()
    _, *shapes = train_state.describe(config)
    weights = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5, leaf.dtype), shapes)
    convert.save_weights(config.model, weights, folder / "net.pth", "nvlabs_segformer")
    zero, workdir = jnp.zeros((), jnp.int32), folder / "runs" / "net"
    run_identity.claim_workdir(workdir, config, {})
    checkpoints = Checkpoints(workdir, keep=1)
    state = dict(params=weights[0], model_state=weights[1], opt_state={}, step=zero, bad_steps=zero)
    checkpoints.save(3, state)
    checkpoints.close()


def copied(stock: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A copy of it for one case; what was compiled is shared."""
    shutil.copytree(stock, folder, symlinks=True, ignore=shutil.ignore_patterns("compile_cache"))
    (stock / "runs" / "compile_cache").mkdir(exist_ok=True)
    (folder / "runs" / "compile_cache").symlink_to(stock / "runs" / "compile_cache")
    return folder
