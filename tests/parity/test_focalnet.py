"""FocalNet against transformers' modules with the same random weights, through files in Microsoft's names."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from configs import upernet_focalnet
from tests.interop.conftest import assert_reads, drawn, listed, tiny_focalnet, variables, written
from tests.parity.comparison import (
    assert_same_maps,
    checked_gradients,
    draw,
    largest_error,
)
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import convert, namings
from vspw_jax.models import segmenter
from vspw_jax.models.encoders import focal_kernels
from vspw_jax.training import train_state

torch = pytest.importorskip("torch")
transformers = library("transformers")

FORWARD, GRADIENT = 1e-5, 1e-4
"""Relative errors allowed: the largest difference over the largest value."""
LARGE = dict(overlaps=True, post_norm=True, layer_scale=0.5, modulation_norm=True, normalize_modulator=True)
"""All that the larger sizes have, which no released one has at once."""
OPTIONS = {"base": {}, "large": LARGE}
IMAGES = ((64, 96), (75, 101))
"""Of the second every map but the last is padded."""


class Theirs(torch.nn.Module):
    """transformers' FocalNet and the norms of the maps, which it has not; its parameters in Microsoft's names."""

    def __init__(
        self, overlaps=False, post_norm=False, layer_scale=0.0, modulation_norm=False, normalize_modulator=False
    ):
        super().__init__()
        config = transformers.FocalNetConfig(
            image_size=64,
            embed_dim=8,
            hidden_sizes=[8, 16, 32, 64],
            depths=[1, 2, 1, 1],
            focal_levels=[2] * 4,
            focal_windows=[3] * 4,
            mlp_ratio=2.0,
            drop_path_rate=0.0,
            use_conv_embed=overlaps,
            use_post_layernorm=post_norm,
            use_layerscale=bool(layer_scale),
            use_post_layernorm_in_modulation=modulation_norm,
            normalize_modulator=normalize_modulator,
        )
        self.body = transformers.FocalNetModel(config, add_pooling_layer=False)
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(8 * 2**stage) for stage in range(4)])

    def forward(self, image):
        x, size = self.body.embeddings(image)
        maps = []
        for stage, norm in zip(self.body.encoder.stages, self.norms, strict=True):
            after, x, sizes = stage(x, size)
            maps.append(norm(x).reshape(len(x), *size, -1).permute(0, 3, 1, 2))
            x, size = after, sizes[-2:]
        return maps

    def in_microsofts_names(self, arrays):
        """Arrays by the names of our parameters, renamed; without the norm of the classifier."""
        rules = (
            (r"^norms\.", "norm"),
            (r"^body\.layernorm\..*", ""),
            (r"^body\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
            (r"^body\.embeddings\.norm", "patch_embed.norm"),
            (r"^body\.encoder\.stages\.(\d)\.layers\.", r"layers.\1.blocks."),
            (r"^body\.encoder\.stages\.(\d)\.downsample\.projection", r"layers.\1.downsample.proj"),
            (r"^body\.encoder\.stages\.(\d)\.downsample", r"layers.\1.downsample"),
            (r"projection_in", "f"),
            (r"projection_context", "h"),
            (r"projection_out", "proj"),
            (r"modulation\.layernorm", "modulation.ln"),
        )
        renamed = {}
        for name, array in arrays.items():
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            renamed[name] = array
        return {name: array for name, array in renamed.items() if name}


@pytest.fixture(scope="module", params=OPTIONS.values(), ids=OPTIONS.keys())
def pair(request, tmp_path_factory):
    """(their network, ours, read from a file in Microsoft's names, our config.model)."""
    theirs, path = draw(Theirs(**request.param)).eval(), tmp_path_factory.mktemp("torch") / "theirs.pth"
    torch.save({"model": theirs.in_microsofts_names(theirs.state_dict())}, path)
    model = tiny_focalnet(**request.param)
    return theirs, convert.load_torch(drawn(model, seed=1), path).encoder, model


def test_every_stage(pair):
    theirs, ours, _ = pair
    assert_same_maps(ours, theirs, IMAGES, FORWARD)


def test_maps_and_gradients_in_training(pair):
    """Of all parameters and the image, on maps that are padded."""
    theirs, ours, model = pair
    gradients = checked_gradients(ours, theirs, IMAGES[1], (FORWARD, GRADIENT), train=True)
    found = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    wanted = {name: gradient.numpy() for name, gradient in theirs.in_microsofts_names(found).items()}
    rows = namings.NAMINGS["microsoft_focalnet"].rows(model, wanted)
    assert largest_error({"encoder": gradients}, rows, wanted) < GRADIENT


@pytest.mark.parametrize("naming", ["mmseg", "microsoft_focalnet", "hugging_face_focalnet"])
def test_files_give_every_tensor_back(pair, naming, tmp_path):
    _, ours, config = pair
    model = drawn(config)
    nnx.update(model.encoder, nnx.state(ours))
    convert.save_torch(model, tmp_path / "A.pth", naming)
    again = convert.load_torch(drawn(config, seed=1), tmp_path / "A.pth")
    for name, array in variables(again.encoder).items():
        if not (naming.startswith("hugging_face") and name.startswith("norms/")):
            np.testing.assert_array_equal(array, variables(ours)[name], err_msg=name)
    convert.save_torch(again, tmp_path / "B.pth", naming)
    first, second = written(tmp_path / "A.pth"), written(tmp_path / "B.pth")
    assert first.keys() == second.keys()
    assert all(np.array_equal(array, second[name]) for name, array in first.items())


def test_sizes_are_read_off_a_file_of_the_whole_network(tmp_path):
    config = tiny_focalnet(drop_path=0.3)
    convert.save_torch(drawn(config), tmp_path / "A.pth")
    assert assert_reads(tmp_path / "A.pth", config) == "mmseg"


def test_timms_names_and_another_window(tmp_path, capsys):
    """timm has other names and 1x1 convolutions; smaller kernels are padded with zeros, larger ones are cut."""
    config = tiny_focalnet(window=5, **LARGE)
    model = drawn(config)
    convert.save_torch(model, tmp_path / "A.pth", "microsoft_focalnet")
    timm = {}
    for name, array in written(tmp_path / "A.pth").items():
        if re.search(r"^norm\d", name):
            continue
        name = re.sub(r"^patch_embed", "stem", name)
        name = re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)
        name = re.sub(r"(blocks\.\d\.norm\d)", r"\1_post", name)
        name = re.sub(r"gamma_(\d)", r"ls\1.gamma", name).replace("modulation.ln", "modulation.norm")
        timm[name] = torch.from_numpy((array[:, :, None, None] if array.ndim == 2 else array).copy())
    torch.save(timm | {"head.fc.weight": torch.ones(9, 64)}, tmp_path / "B.pth")
    same = convert.load_torch(drawn(config, seed=1), tmp_path / "B.pth").encoder
    stages = {name: x for name, x in variables(model.encoder).items() if not name.startswith("norms/")}
    assert all(np.array_equal(variables(same)[name], array) for name, array in stages.items())
    larger = convert.load_torch(drawn(tiny_focalnet(window=7, **LARGE)), tmp_path / "B.pth").encoder
    assert "5 kernels of 5 cells a side padded with zeros to 7" in re.sub(r"\s+", " ", capsys.readouterr().out)
    kernel = variables(larger)["stages/1/modulation/context_convs/0/kernel"]
    found = variables(model.encoder)["stages/1/modulation/context_convs/0/kernel"]
    np.testing.assert_array_equal(kernel, np.pad(found, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0))))
    np.testing.assert_array_equal(
        focal_kernels.centred(np.pad(found[0].T, ((0, 0), (0, 0), (2, 2), (2, 2))), 5), found[0].T
    )


def full_size(**fields):
    config = upernet_focalnet.get_config()
    config.model.encoder.update(fields)
    return config, train_state.describe(config)[1:]


def exported(config, weights, naming):
    tensors = convert.new_tensors(config.model, weights, namings.NAMINGS[naming])
    return {name: tensor.shape for name, tensor in tensors.items()}


LARGE_FL4 = dict(dim=192, levels=4, window=3, overlaps=True, post_norm=True, layer_scale=1e-4, normalize_modulator=True)


def test_the_released_lists_of_tensors():
    """Microsoft's FocalNet-B with large windows for segmentation, transformers' of ImageNet, timm's FocalNet-L."""
    config, weights = full_size()
    found = exported(config, weights, "microsoft_focalnet")
    assert found == listed("focalnet_base_lrf_seg_backbone_official")
    config, weights = full_size(window=3)
    wanted = listed("transformers_focalnet_base_lrf_ondisk")
    wanted = {name.removeprefix("focalnet."): shape for name, shape in wanted.items()}
    heads = ("classifier.", "layernorm.")
    wanted = {name: shape for name, shape in wanted.items() if not name.startswith(heads)}
    assert exported(config, weights, "hugging_face_focalnet") == wanted
    timm, heads = listed("timm_focalnet_large_fl4"), ("norm.", "head.")
    timm = {name: shape for name, shape in timm.items() if not name.startswith(heads)}
    assert exported(*full_size(**LARGE_FL4), "timm") == timm


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [({"window": 3}, 87.725), (LARGE_FL4, 205.744), (LARGE_FL4 | {"levels": 3, "window": 5}, 205.564)],
)
def test_published_numbers_of_parameters(fields, parameters):
    """In millions, of FocalNet-B and both FocalNet-L without a head; of the maps' norms they have the last one."""
    encoder = full_size(**fields)[1][0]["encoder"]
    first_norms = 2 * sum(encoder["norms"][stage]["scale"].shape[0] for stage in range(3))
    found = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(encoder)) - first_norms
    assert round(found / 1e6, 3) == parameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (2, 2, 6)}, "expected four counts of blocks"),
        ({"window": 4}, "model.encoder.window is 4: expected an"),
    ],
)
def test_what_makes_no_network_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        segmenter.check(tiny_focalnet(**changes))
