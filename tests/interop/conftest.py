"""Small networks with drawn weights, and the config that shapes them."""

import csv
import functools
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict, FrozenConfigDict

from configs import (
    baseline,
    deeplabv3,
    mask2former_eva,
    mask2former_eva02,
    segformer,
    upernet,
    upernet_focalnet,
    upernet_internimage,
    upernet_swin,
)
from configs.parts import models
from tests.conftest import TINY
from vspw_jax.interop import checkpoint_file, namings, sizes
from vspw_jax.models import segmenter

KEYS = pathlib.Path(__file__).parent / "keys"


def listed(name):
    """Shapes of a released network's tensors by their names."""
    with (KEYS / f"{name}.csv").open(newline="") as file:
        return {
            row["key"]: () if row["shape"] == "scalar" else tuple(map(int, row["shape"].split("x")))
            for row in csv.DictReader(file)
        }


def tiny_recipe(**changes):
    """The smallest network's recipe, with changes of config.model such as num_classes=150."""
    config = baseline.get_config("demo")
    fields = {path: value for path, value in TINY.items() if path.startswith(("model.", "loss.segmentation."))}
    config.update_from_flattened_dict(fields | {"model.image_size": (96, 64), "model.decoder.encoder_ffn_dim": 48})
    config.evaluate.stride = (64, 64)
    config.model.update(changes)
    return config


def tiny_model(**changes):
    """Its config.model."""
    return tiny_recipe(**changes).model


def tiny_upernet(**changes):
    """config.model of a small BEiT with UperNet."""
    model = upernet.get_config("demo").model
    model.encoder.update(dim=32, heads=2)
    model.decoder.update(dim=32, auxiliary_dim=16)
    model.update(image_size=(64, 64), num_classes=7)
    model.update(changes)
    return model


def tiny_resnet(code, **changes):
    """config.model of a small ResNet with the DeepLabV3 of "mmseg" or "torchvision"."""
    model = deeplabv3.get_config("demo").model
    model.encoder.update(stem="deep" if code == "mmseg" else "plain", width=8, depths=(1, 2, 1, 1))
    model.decoder.update(variant=code, dim=16, dilations=(12, 24, 36), auxiliary_dim=12)
    if code == "torchvision":
        model.decoder.update(dropout=0.5, dropped="elements")
    model.update(image_size=(64, 64), num_classes=7)
    model.update(changes)
    return model


def tiny_fcn(code):
    """The same with the FCN of "mmseg" or "torchvision"."""
    model, is_mmseg = tiny_resnet(code), code == "mmseg"
    model.decoder = ConfigDict(dict(name="fcn", dim=16, num_convs=2 if is_mmseg else 1, concat_input=is_mmseg))
    model.decoder.update(inputs="coarsest", align_corners=False, conv_size=3)
    model.decoder.update(dropout=0.1, dropped="channels" if is_mmseg else "elements")
    model.decoder.update(auxiliary_dim=12, auxiliary_level=2, auxiliary_dropout=0.1)
    return model


def tiny_of_resnet(recipe):
    """config.model of a decoder's recipe on the same ResNet."""
    model = recipe.get_config("demo").model
    model.encoder = tiny_resnet("mmseg").encoder
    model.decoder.update(dim=16, auxiliary_dim=12)
    model.update(image_size=(512, 512), num_classes=7)
    return model


def tiny_hrnet(code="mmseg", **changes):
    """config.model of a small HRNet with the head of all maps, as mmseg or as HRNet's own code has it."""
    model = tiny_resnet("mmseg", image_size=(64, 64))
    model.encoder = models.hrnet_w48()
    model.encoder.update(width=4, stem_width=6, bottleneck_width=3, bottlenecks=2, modules=(1, 2, 1), blocks=2)
    model.encoder.upsampling = "bilinear" if code == "mmseg" else "aligned"
    model.encoder.update(changes)
    model.decoder = models.joined_fcn(model.encoder)
    model.decoder.align_corners = code != "mmseg"
    return model


def tiny_ocrnet(code="mmseg"):
    """The same with OCRNet."""
    model = tiny_hrnet(code)
    align_corners = model.decoder.align_corners
    model.decoder = models.ocrnet(model.encoder)
    model.decoder.update(dim=12, key_dim=6, align_corners=align_corners)
    return model


def tiny_swin(**changes):
    """config.model of a small Swin with UperNet."""
    model = upernet_swin.get_config("demo").model
    model.encoder.update(dim=16, depths=(2, 2, 4, 2), head_dim=8, window=3, drop_path=0.3)
    model.decoder.update(dim=16, auxiliary_dim=12)
    model.update(image_size=(64, 64), num_classes=7)
    model.encoder.update(changes)
    return model


def tiny_eva(**changes):
    """config.model of a small EVA-02 with UperNet, as the released ones."""
    model = tiny_upernet()
    model.encoder = mask2former_eva02.get_config("demo").model.encoder
    model.encoder.update(dim=32, heads=2, hidden=20, drop_path=0.2)
    model.encoder.update(changes)
    return model


def tiny_eva01(**changes):
    """config.model of a small EVA-01 with ViT-Adapter and Mask2Former."""
    model = tiny_model()
    model.encoder = mask2former_eva.get_config("demo").model.encoder
    model.image_size = (64, 64)
    model.encoder.update(dim=32, depth=4, heads=2, mlp_ratio=2.0, layer_scale=1.0, drop_path=0.5)
    model.encoder.update(adapter_channels=8, adapter_heads=2)
    model.encoder.update(changes)
    return tiny_mask2former(model)


def tiny_focalnet(**changes):
    """config.model of a small FocalNet with UperNet."""
    model = upernet_focalnet.get_config("demo").model
    model.encoder.update(dim=8, depths=(1, 2, 1, 1), mlp_ratio=2.0, drop_path=0.3)
    model.decoder.update(dim=16, auxiliary_dim=12)
    model.update(image_size=(64, 64), num_classes=7)
    model.encoder.update(changes)
    return model


def tiny_internimage(**changes):
    """config.model of a small InternImage with UperNet."""
    model = upernet_internimage.get_config("demo").model
    model.encoder.update(dim=16, depths=(1, 2, 1, 1), mlp_ratio=2.0, drop_path=0.4)
    model.decoder.update(dim=16, auxiliary_dim=12)
    model.update(image_size=(64, 64), num_classes=7)
    model.encoder.update(changes)
    return model


def tiny_segformer(variant="nvlabs", **changes):
    """config.model of a small SegFormer with the head of "nvlabs", which Hugging Face has too, or of "mmseg"."""
    model = segformer.get_config("demo").model
    model.encoder.update(dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), head_dim=8, mlp_ratio=2.0, drop_path=0.3)
    model.decoder.update(variant=variant, dim=12)
    model.update(image_size=(64, 64), num_classes=7)
    model.encoder.update(changes)
    return model


def tiny_mask2former(model):
    """The network with a small Mask2Former of 9 classes in place of its decoder; a ResNet is not dilated under it."""
    model.decoder = tiny_model().decoder
    model.decoder.update(dim=32, heads=2, norm_groups=32, decoder_layers=4)
    model.num_classes = 9
    if "output_stride" in model.encoder:
        model.encoder.output_stride = 32
    return model


def assert_reads(path, config):
    """The sizes of a network are read off a file of it, and the file's tensors are those of the rows."""
    file = checkpoint_file.read(path)
    read, _ = sizes.read(file)
    for section in ("encoder", "decoder"):
        expected = config[section].to_dict() | dict(layer_scale=None, drop_path=None)  # Which tensors do not tell.
        assert {name: expected[name] or value for name, value in read[section].items()} == read[section].to_dict()
    assert read.num_classes == config.num_classes
    naming = namings.recognise(file.tensors, path)
    rows = {row.theirs for row in naming.rows(config, file.tensors)}
    assert rows == {name for name in file.tensors if not naming.why_left_out(config, name)}
    return naming.name


def written(path):
    """The arrays of a file, by name."""
    return {name: tensor.read() for name, tensor in checkpoint_file.read(path).tensors.items()}


@functools.cache
def _abstract(config):
    return jax.eval_shape(lambda key: nnx.split(segmenter.build(config, key)), jax.random.key(0))


def drawn(config, seed=0):
    """A network of `config.model` with all variables drawn: batch norms' means, variances and counts too."""
    graphdef, state = _abstract(FrozenConfigDict(config))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if np.issubdtype(leaf.dtype, np.integer):
            return jax.numpy.asarray(rng.integers(0, 10_000, leaf.shape), leaf.dtype)
        return jax.numpy.asarray(rng.normal(size=leaf.shape), leaf.dtype)

    return nnx.merge(graphdef, jax.tree.map(draw, nnx.to_pure_dict(state)))


def variables(model):
    """Arrays by path."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(model)))
    return {"/".join(str(key.key) for key in keys): np.asarray(leaf) for keys, leaf in leaves}


@pytest.fixture(scope="session")
def tiny():
    """(config.model, network) to be read, not changed."""
    config = tiny_model()
    return config, drawn(config)
