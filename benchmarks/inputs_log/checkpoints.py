"""Files that people have for checkpoints."""

import gzip
import json
import zipfile

import numpy as np

from benchmarks.inputs_log import places
from benchmarks.inputs_log.case import Case, Section
from benchmarks.inputs_log.stock import EXPORT
from configs import segformer
from tests.inputs import no_checkpoints, pickles, published, state_dicts, torch_zips
from vspw_jax.interop import checkpoint_file
from vspw_jax.interop.stored_tensors import NewTensor


def kept(what, content, option="", suffix="pth"):
    """An export of a file with content(tensors)."""

    def make(folder):
        found = content(places.tensors(folder))
        if suffix == "pth":
            torch_zips.write(folder / "X.pth", found)
        else:
            write_safetensors(folder / f"X.{suffix}", found)

    return Case(what, f"{EXPORT}X.{suffix} {option}".rstrip(), make)


def write_safetensors(path, tensors):
    new = {name: NewTensor(array.shape, array.dtype, lambda array=array: array) for name, array in tensors.items()}
    checkpoint_file.write(path, new, None)


def split_files(folder):
    """Two files of safetensors and their index."""
    (folder / "released").mkdir()
    names, places_of = list(places.tensors(folder).items()), {}
    for number, part in enumerate((names[:9], names[9:]), start=1):
        path = folder / "released" / f"model-{number:05d}-of-00002.safetensors"
        write_safetensors(path, dict(part))
        places_of |= dict.fromkeys(dict(part), path.name)
    index = {"metadata": {"total_size": 1}, "weight_map": places_of}
    (folder / "released" / "model.safetensors.index.json").write_text(json.dumps(index))


def compressed(folder):
    (folder / "X.pth.gz").write_bytes(gzip.compress((folder / "net.pth").read_bytes()))


def no_checkpoint(what, name, content):
    return Case(what, f"{BY_ITSELF}{name}", lambda folder: (folder / name).write_bytes(content))


def hostile(what, program):
    """A pickle in a checkpoint's place."""

    def make(folder):
        with zipfile.ZipFile(folder / "X.pth", "w") as archive:
            archive.writestr("archive/data.pkl", program)

    return Case(what, f"{BY_ITSELF}X.pth", make)


def another_size(folder):
    """MiT-B0 alone, as NVIDIA has it."""
    config = published.in_size(segformer.get_config(), "MiT-B0")
    write_safetensors(folder / "mit_b0.safetensors", published.zeros(config, "nvlabs_mit"))


def harmless(tensors):
    beside = {key: value for key, value in pickles.harmless().items() if not isinstance(value, np.ndarray)}
    return {"state_dict": tensors, "beside": beside}


BY_ITSELF = "python -m vspw_jax.main --mode=predict --input=video --config.init_from="
OTHER = "python -m vspw_jax.main --config=configs/deeplabv3.py:demo --workdir=runs/b --mode=export --output=back.pth"
PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "_forward_module.", "model.", "my_segmenter.inner.")
BOTH = lambda tensors: {"state_dict": tensors, "state_dict_ema": tensors}

SECTION = Section(
    "Checkpoints that people have",
    {
        "Weights under many keys": (
            *(
                kept(f"Under {key}", lambda tensors, key=key: {key: tensors, "epoch": 3})
                for key in ("ema", "model_ema", "state_dict_ema", "net", "teacher", "student", "my_weights")
            ),
            kept("Nested twice", lambda tensors: {"model": {"state_dict": tensors, "config": {"a": 1}}}),
            kept("Student and teacher", lambda tensors: {"teacher": tensors, "student": tensors}),
        ),
        "Prefixes of wrappers": (
            *(
                kept(f"{prefix} in .{suffix}", lambda tensors, p=prefix: state_dicts.prefixed(p, tensors), "", suffix)
                for prefix in PREFIXES
                for suffix in ("pth", "safetensors")
            ),
            kept("Several, mixed", lambda tensors: state_dicts.mixed(("module.", "", "model.", "_orig_mod."), tensors)),
        ),
        "More than one that fits": (
            kept("An average beside the trained ones", BOTH),
            kept("The average chosen", BOTH, "--config.init_from_key=state_dict_ema"),
            kept("Two of which neither is rather meant", lambda tensors: {"first": tensors, "second": tensors}),
            kept("A key that is not there", BOTH, "--config.init_from_key=best"),
        ),
        "Several files, folders, compressed files": (
            Case("An index", f"{EXPORT}released/model.safetensors.index.json", split_files),
            Case("Its folder", f"{EXPORT}released", split_files),
            Case("One of its files", f"{EXPORT}released/model-00001-of-00002.safetensors", split_files),
            Case(".pth.gz", f"{EXPORT}X.pth.gz", compressed),
            Case("A missing file", f"{EXPORT}X.pth"),
        ),
        "What is no checkpoint": (
            *(no_checkpoint(what, "X.pth", content) for what, (content, _) in no_checkpoints.FILES.items()),
            *(no_checkpoint(name, name, bytes(100)) for name in no_checkpoints.NAMED),
        ),
        "Workdirs and their checkpoints": (
            Case("A workdir", f"{EXPORT}runs/net"),
            Case("A step", f"{EXPORT}runs/net/checkpoints/3"),
            Case("A step that is not there", f"{EXPORT}runs/net/checkpoints/4"),
            Case("A workdir of another network", f"{OTHER} --config.init_from=runs/net"),
            Case(
                "A workdir without its config.json",
                f"{EXPORT}runs/net",
                lambda folder: (folder / "runs/net/config.json").unlink(),
            ),
        ),
        "Networks of another size": (
            Case(
                "MiT-B0 for a recipe of MiT-B2",
                "python -m vspw_jax.main --config=configs/segformer.py --workdir=runs/b --config.data.records=records "
                "--config.init_from=mit_b0.safetensors",
                another_size,
            ),
        ),
        "Objects beside the tensors": (kept("Dates, paths, counters, enums and others", harmless),),
        "Hostile files": (
            *(hostile(what, program) for what, (program, _) in pickles.PROGRAMS.items()),
            *(hostile(f"Nested a hundred thousand times: {what}", program) for what, program in pickles.DEEP.items()),
        ),
    },
)
