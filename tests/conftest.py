"""What the tests share: small data, a small network, one compiled training step."""

import ctypes
import functools
import gc
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import sys

# Compiling takes nearly all of the tests' time; unoptimised code is compiled in half of it. Parts of a program are not
# compiled beside each other, as the tests themselves are. LLVM's own code for fusions is made in less time than XLA's.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    + (  # An unknown flag ends the process.
        " --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false"
        if importlib.metadata.version("jaxlib").startswith("0.10.")
        else ""
    ),
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The cache's folder would be part of its keys, and processes that the tests start name it otherwise.
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")

import jax
import numpy as np
import pytest
from absl import flags

from configs import nce, upernet
from data_prep import generate, vspw
from data_prep.drawing import layouts
from vspw_jax import main
from vspw_jax.models import attention_kernel, segmenter
from vspw_jax.models.encoders import vit_adapter
from vspw_jax.sampling import deformable_kernel, point_kernel
from vspw_jax.training import train_state, train_step

REPOSITORY = pathlib.Path(__file__).parents[1]
TESTS = REPOSITORY / "tests"
LIBC = ctypes.CDLL(None)
PROGRAM = TESTS / "parallel" / "program.py"
CAMVID = pathlib.Path(__file__).parents[2] / "shared" / "data" / "camvid_vspw"

SLOW = (
    "end_to_end/test_demo.py",
    "training/test_golden_steps.py",
    "training/test_train_step.py",
    "parallel/test_processes.py",
    "interop/test_command_line.py",
    "training/test_upernet_training.py",
    "training/test_memory_training.py",
    "models/test_crops.py",
    "training/test_loop.py",
    "parity/test_hugging_face_mask2former.py",
    "parity/test_vit_adapter.py",
    "benchmarks/test_ablation.py",
    "benchmarks/test_gpu_step.py",
    "parallel/test_accumulation.py",
    "faults/test_signals.py",
    "tasks/test_task.py",
    "tasks/test_prototype_pretraining.py",
    "tasks/test_mean_teacher.py",
    "inference/test_memory.py",
    "inference/test_memory_decoders.py",
    "models/test_memory_a.py",
    "training/test_weight_average.py",
    "models/test_feature_maps.py",
    "inspection/test_inspect.py",
    "parity/test_upernet.py",
    "parity/test_timm.py",
    "benchmarks/test_encoders.py",
    "parity/test_deeplabv3.py",
    "parity/test_resnet.py",
    "parity/test_swin.py",
    "parity/test_segformer.py",
    "parity/test_focalnet.py",
    "parity/test_eva.py",
    "parity/test_eva01.py",
    "parity/test_internimage.py",
    "parity/test_hrnet.py",
    "parity/test_ocrnet.py",
    "parity/test_heads.py",
    "models/test_hrnet.py",
    "parity/test_mask2former_swin.py",
    "training/test_nan_origin.py",
    "buckets/test_processes.py",
    "buckets/test_runs.py",
    "buckets/test_checkpoints.py",
    "buckets/test_remote_folder.py",
    "inference/test_augmentation.py",
    "interop/test_convert.py",
    "models/test_resnet.py",
    "interop/test_namings.py",
    "interop/test_detectron2.py",
    "interop/test_recipe_of_file.py",
    "interop/test_memory.py",
    "models/test_relative_attention.py",
    "losses/test_segmentation.py",
    "models/test_beit_pyramid.py",
    "losses/test_pne.py",
    "models/test_upernet.py",
    "models/test_ssltm.py",
    "models/temporal/test_spatiotemporal_transformer.py",
    "evaluation/test_stages.py",
    "data/test_pipeline.py",
    "benchmarks/test_inputs_log.py",
    "end_to_end/test_class_union.py",
    "metrics/test_report_in_browser.py",
    "data_prep/test_dask.py",
)
"""Files that compile much or start the program, those that take longest first. The tests of all others are quick."""

TINY = {
    "model.image_size": (32, 32),
    "model.encoder.dim": 32,
    "model.encoder.heads": 2,
    "model.encoder.adapter_channels": 8,
    "model.encoder.adapter_heads": 2,
    "model.encoder.extra_extractors": 1,
    "model.encoder.drop_path": 0.2,
    "model.decoder.dim": 32,
    "model.decoder.heads": 2,
    "model.decoder.encoder_ffn_dim": 32,
    "model.decoder.ffn_dim": 32,
    "model.decoder.norm_groups": 8,
    "model.decoder.encoder_layers": 1,
    "model.decoder.decoder_layers": 2,
    "model.decoder.num_queries": 10,
    "loss.segmentation.capacity": 8,
    "loss.segmentation.num_points": 32,
    "loss.nce.groups": 8,
    "schedule.warmup_steps": 0,
    "train.batch": 8,
    "train.steps": 6,
    "data.augment.base_size": (64, 48),
    "evaluate.stride": (16, 16),
    "run.log_every": 1,
    "run.save_every": 2,
    "run.picture_every": 2,
    "run.compile_to_inspect": False,
}
"""Fields that make the demo as small as the architecture allows; eight devices can share its batch."""

SMALL = {
    "model.image_size": (32, 32),
    "model.encoder.dim": 16,
    "model.decoder.dim": 16,
    "schedule.warmup_steps": 0,
    "train.batch": 8,
    "data.augment.base_size": (64, 48),
    "evaluate.stride": (16, 16),
    "run.log_every": 1,
    "run.save_every": 2,
}
"""Fields of `configs/upernet.py` for the small network."""


def pytest_addoption(parser):
    parser.addoption("--write-golden", action="store_true", help="Write golden numbers in place of comparing.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Slow files come first, so that no process is left alone with one at the end; the others are marked quick."""
    places = {TESTS / name: place for place, name in enumerate(SLOW)}
    assert all(path.is_file() for path in places), "tests/conftest.py: SLOW names a file that there is not"
    items.sort(key=lambda item: places.get(item.path, len(SLOW)))
    for item in items:
        if item.path not in places:
            item.add_marker("quick")


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory):
    """Compiled functions are kept for the session, also across processes that the tests start."""
    folder = str(tmp_path_factory.mktemp("compile_cache"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.jit(lambda x: x + 1)(1)  # The first compilation fixes the folder: the program's own settings come later.
    return folder


@pytest.fixture(scope="module", autouse=True)
def forget_compiled():
    """A file's compiled functions go with it, and so does what the compiler freed and glibc keeps: 5 GB a process."""
    yield
    jax.clear_caches()
    gc.collect()
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)


@pytest.fixture(autouse=True)
def interactions_in_a_loop(request, monkeypatch):
    """A quarter of the encoder is compiled. Tests marked `unrolled` have it as those who train on CPU do."""
    if not request.node.get_closest_marker("unrolled"):
        monkeypatch.setattr(vit_adapter, "INTERACTIONS_UNROLLED_ON", ())


@pytest.fixture(params=["cpu", "tpu"])
def platform(request, monkeypatch):
    """Each platform's way of sampling and attention, on this one: the kernels' operations run one by one."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    for module, name in (
        (deformable_kernel, "sample_and_sum"),
        (attention_kernel, "attend"),
        *((point_kernel, name) for name in ("sample", "sample_all", "corner_values")),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), interpret=True))
    return request.param


@pytest.fixture(scope="session", autouse=True)
def described_once():
    """The shapes of a network are traced once a process: it takes seconds, and most tests of a recipe ask for them."""
    describe, known = train_state.describe, {}

    def once(config):
        kinds = segmenter.encoder_of(config.model), segmenter.decoder_of(config.model)  # Some tests replace them.
        key = (*kinds, config.model.to_json())
        if key not in known:
            known[key] = describe(config)
        graphdef, *weights = known[key]
        return graphdef, *jax.tree.map(lambda leaf: leaf, weights)  # Dicts of the caller's own.

    train_state.describe = once
    yield
    train_state.describe = describe


def drawn_weights(shapes, seed=0):
    """Random weights of the shapes: matrices keep the size of what they pass. To build a network would compile it."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var") or np.issubdtype(leaf.dtype, np.integer):
            return np.ones(leaf.shape, leaf.dtype)
        scale = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.1
        return (scale * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture
def tiny_config(generated_records):
    """The contrastive recipe, tiny, on the generated data."""
    config = nce.get_config("demo")
    for path, value in TINY.items():
        *parents, name = path.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[name] = value
    config.data.records = str(generated_records)
    return config


@pytest.fixture
def tiny_flags(generated_records):
    """The same recipe as flags of the command line."""
    fields = {**TINY, "data.records": generated_records}
    return [f"--config={REPOSITORY / 'configs' / 'nce.py'}:demo", *(f"--config.{k}={v}" for k, v in fields.items())]


@pytest.fixture
def small_config(generated_records, small_network):
    """The recipe of the small network."""
    config = upernet.get_config("demo")
    config.update_from_flattened_dict({**SMALL, "data.records": str(generated_records)})
    return config


@pytest.fixture
def random_batch():
    """Eight single frames for the small network: noise with random labels."""
    rng = np.random.default_rng(0)
    return {
        "image_BTHWC": rng.normal(size=(8, 1, 32, 32, 3)).astype(np.float32),
        "label_BTHW": rng.integers(0, 5, (8, 1, 32, 32), np.int32),
        "is_clip_B": np.ones(8, bool),
    }


@pytest.fixture
def small_flags(generated_records):
    """The same recipe as flags, for the program of `parallel/program.py`."""
    fields = {**SMALL, "data.records": generated_records}
    recipe = REPOSITORY / "configs" / "upernet.py"
    return [f"--config={recipe}:demo", *(f"--config.{name}={value}" for name, value in fields.items())]


@pytest.fixture
def command_line(monkeypatch, capfd, compile_cache):
    """Runs the program in this process: command_line("--mode=train", ...) gives (exit status, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, arguments)])
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
        for name in ("config", "workdir", "mode", "input", "output", "side_by_side", "naming"):
            flags.FLAGS[name].unparse()
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.command_line()
        jax.config.update("jax_compilation_cache_dir", compile_cache)
        return (ended.value.code or 0, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def program():
    """The module that the processes run."""
    spec = importlib.util.spec_from_file_location("program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # It puts its network in the others' place.
        for table in (segmenter.ENCODERS, segmenter.DECODERS):
            for name, value in table.items():
                patch.setitem(table, name, value)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_network(program, monkeypatch):
    """`configs/upernet.py` has the small network."""
    monkeypatch.setitem(segmenter.ENCODERS, "beit", program.Encoder)
    monkeypatch.setitem(segmenter.DECODERS, "upernet", program.Decoder)


class CountingStep:
    """In the place of the jitted step: counts, and has the metrics that it is given; from `bad_from` on it is bad."""

    def __init__(self, metrics, bad_from, seen):
        self.metrics, self.bad_from, self.seen = metrics, bad_from, seen

    def lower(self, *_):
        return self

    def compile(self):
        return self

    def __call__(self, state, batch, seed):
        if self.seen is not None:
            self.seen.append(batch)
        step = state["step"] + 1
        bad = step >= self.bad_from
        state = {**state, "step": step - bad, "bad_steps": np.array(int(bad))}
        return state, {**self.metrics, "bad_steps": float(bad)}


@pytest.fixture
def without_network(monkeypatch):
    """without_network(loss=1.0): from here on training has a state of a few numbers and a `CountingStep`.

    `seen` is a list for the batches, `new_state` a function of (config, transformation, mesh) for another state.
    """

    def run(bad_from=10**9, seen=None, new_state=None, **metrics):
        state = {name: np.zeros(3) for name in ("params", "model_state", "opt_state")}
        state |= {name: np.zeros((), int) for name in ("step", "bad_steps")}
        monkeypatch.setattr(train_state, "new_state", new_state or (lambda *_: state))
        monkeypatch.setattr(train_step, "make_train_step", lambda *_: CountingStep(metrics, bad_from, seen))

    return run


@pytest.fixture(scope="session")
def camvid():
    """Real labelled video in VSPW's layout, where the machine has it."""
    if not CAMVID.is_dir():
        pytest.skip("no CamVid in VSPW's layout here")
    return CAMVID


@pytest.fixture(scope="session")
def camvid_records(camvid, tmp_path_factory):
    """CamVid, converted."""
    output = tmp_path_factory.mktemp("camvid") / "records"
    vspw.convert(camvid, output)
    return output


@pytest.fixture(scope="session")
def generated_vspw(tmp_path_factory):
    """Nine small drawn videos in VSPW's layout."""
    folder = tmp_path_factory.mktemp("generated") / "vspw"
    videos = {"train": 5, "val": 3, "test": 1}
    generate.generate(folder, lambda aside: layouts.write_vspw(aside, videos, 10, 48, 64, 0))
    return folder


@pytest.fixture(scope="session")
def generated_records(generated_vspw, tmp_path_factory):
    """The same, converted."""
    output = tmp_path_factory.mktemp("records") / "records"
    vspw.convert(generated_vspw, output)
    return output


@pytest.fixture
def fill_up(monkeypatch):
    """fill_up(bytes): from here on every disk says that so much is free."""

    def run(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40 - free, free))

    return run
