"""Encoders against timm's own, with the same random weights, through files as timm's users have them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util
from ml_collections import ConfigDict

from configs import upernet
from configs.parts import models
from tests.interop.conftest import (
    drawn,
    tiny_eva,
    tiny_eva01,
    tiny_focalnet,
    tiny_hrnet,
    tiny_resnet,
    tiny_swin,
    variables,
)
from tests.parity.comparison import checked_gradients, draw, relative_error
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import convert, namings
from vspw_jax.models.encoders.hrnet import HRNet

torch = pytest.importorskip("torch")
timm = library("timm")
from benchmarks import encoders  # noqa: E402 - imports PyTorch.

FORWARD, GRADIENT = 1e-5, 1e-4
"""Relative errors allowed: the largest difference over the largest value."""


class Case(NamedTuple):
    """A network of timm, of few and narrow blocks, and ours."""

    theirs: Callable
    maps: Callable
    """Of their network and an image, channels first: those of our maps that timm has."""
    model: ConfigDict
    size: tuple[int, int] = (64, 96)
    compared: slice = slice(None)
    """Which of our maps."""
    only_ours: tuple[str, ...] = ()
    """Parts of our encoder that timm has not."""


def resnet(name, stem, output_stride, size):
    model = tiny_resnet("torchvision" if stem == "plain" else "mmseg")
    model.encoder.update(width=64, depths=(1, 2, 1, 1), output_stride=output_stride)
    make = lambda: timm.create_model(name, num_classes=0, layers=(1, 2, 1, 1), output_stride=output_stride)
    return Case(make, encoders.after_stages, model, size)


def hrnet():
    sizes = dict(width=16, stem_width=64, bottleneck_width=32, bottlenecks=1, modules=(1, 1, 1), blocks=2)
    make = lambda: timm.create_model("hrnet_w18_small", num_classes=0)
    return Case(make, encoders.of_hrnet, tiny_hrnet(**sizes, upsampling="nearest"))


def swin():
    """Windows that divide all maps and are smaller than the last: else timm shifts none there, and pads maps after it
    shifted them, where Microsoft's code for segmentation pads before."""
    depths, size = (2, 2, 4, 2), (128, 192)
    make = lambda: timm.models.SwinTransformer(
        size, embed_dim=16, depths=depths, num_heads=(2, 4, 8, 16), window_size=2, num_classes=0
    )
    return Case(make, encoders.normed_after_stages, tiny_swin(window=2, drop_path=0.0), size, only_ours=("norms",))


def focalnet(theirs, ours):
    make = lambda: timm.models.FocalNet(
        depths=(1, 2, 1, 1), embed_dim=8, focal_levels=(2,) * 4, mlp_ratio=2.0, num_classes=0, **theirs
    )
    return Case(make, encoders.normed_after_stages, tiny_focalnet(**ours, drop_path=0.0), only_ours=("norms",))


def eva02():
    size, model = (64, 96), tiny_eva(drop_path=0.0)
    model.image_size = size
    make = lambda: timm.create_model(
        "eva02_base_patch14_448", img_size=size, patch_size=16, embed_dim=32, depth=4, num_heads=2, mlp_ratio=20 / 32
    )
    return Case(make, encoders.of_eva(2, 3), model, size, slice(2, 4), ("fpn1", "fpn2"))


def eva01():
    """Its adapter is none of timm's, so that it has no maps to compare."""
    make = lambda: timm.create_model(
        "eva_giant_patch14_224", img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2, mlp_ratio=2.0
    )
    return Case(make, lambda network, image: (), tiny_eva01(relative_positions=False, layer_scale=0.0))


LARGE = dict(use_overlap_down=True, use_post_norm=True, layerscale_value=0.5)
CASES = {
    "resnet50": lambda: resnet("resnet50", "plain", 32, (75, 101)),
    "resnet101c, stride 8": lambda: resnet("resnet101c", "deep", 8, (64, 96)),
    "hrnet": hrnet,
    "swin": swin,
    "focalnet": lambda: focalnet({}, {}),
    "focalnet, large": lambda: focalnet(LARGE, dict(overlaps=True, post_norm=True, layer_scale=0.5)),
    "eva02": eva02,
}


def saved(tensors, path):
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_maps_and_gradients_of_a_file(make, tmp_path):
    """Gradients of the image and of all that the file has, batch norms in evaluation."""
    case = make()
    theirs = draw(case.theirs())
    path = saved(theirs.state_dict(), tmp_path / "A.pth")
    encoder = convert.load_torch(drawn(case.model), path).encoder
    for norm in getattr(encoder, "norms", ()):
        norm.scale[...], norm.bias[...] = jnp.ones_like(norm.scale), jnp.zeros_like(norm.bias)
    gradients = checked_gradients(
        encoder, theirs, case.size, (FORWARD, GRADIENT), their_maps=case.maps, compared=case.compared
    )
    # Saved in the place of the weights, their gradients come out under our names.
    tensors = theirs.state_dict() | {name: x.grad for name, x in theirs.named_parameters() if x.grad is not None}
    path = saved(tensors, tmp_path / "B.pth")
    first, second = (variables(convert.load_torch(drawn(case.model, seed), path).encoder) for seed in range(2))
    found = {"/".join(map(str, keys)): x for keys, x in traverse_util.flatten_dict(gradients).items()}
    in_file = [name for name in found if np.array_equal(first[name], second[name])]
    assert {name.split("/")[0] for name in found.keys() - set(in_file)} == set(case.only_ours)
    errors = {name: relative_error(found[name], first[name]) for name in in_file}
    assert max(errors.values()) < GRADIENT, errors


HEADS = ("norm", "fc_norm", "head", "incre_modules", "downsamp_modules", "final_layer")
"""How names of classification heads start in timm's networks."""


def of_head(name):
    return name.split(".")[0] in HEADS


@pytest.mark.parametrize("make", [*CASES.values(), eva01], ids=[*CASES, "eva01"])
def test_a_file_in_timms_names_is_timms(make, tmp_path):
    """Its network loads what is written strictly, but for its head, and gives every tensor back, bit for bit."""
    case = make()
    ours = drawn(case.model)
    convert.save_torch(ours, tmp_path / "A.pth", "timm")
    tensors, theirs = torch.load(tmp_path / "A.pth"), case.theirs()
    heads = {name: x for name, x in theirs.state_dict().items() if of_head(name)}
    assert not heads.keys() & tensors.keys()
    theirs.load_state_dict(tensors | heads, strict=True)
    path = saved(theirs.state_dict(), tmp_path / "B.pth")
    convert.save_torch(convert.load_torch(drawn(case.model, seed=1), path), tmp_path / "C.pth", "timm")
    again = torch.load(tmp_path / "C.pth")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], x) and again[name].dtype == x.dtype for name, x in tensors.items())


def test_relative_positions_beside_learned_ones_have_no_names(tmp_path):
    with pytest.raises(UserError, match="relative_positions=True has no names in files of the kind timm"):
        convert.save_torch(drawn(tiny_eva01(relative_positions=True)), tmp_path / "A.pth", "timm")


def with_encoder(encoder, **fields):
    model = upernet.get_config().model
    model.encoder = encoder
    model.encoder.update(fields)
    return model


RELEASED = {
    "resnet50": lambda: with_encoder(models.resnet_50()),
    "resnet101c": lambda: with_encoder(models.resnet_101()),
    "hrnet_w48": lambda: with_encoder(models.hrnet_w48()),
    "swin_large_patch4_window12_384": lambda: with_encoder(models.swin_base(), dim=192, window=12),
    "focalnet_base_lrf": lambda: with_encoder(models.focalnet_base()),
    "eva02_large_patch14_448": lambda: with_encoder(models.eva02_large()),
    "eva_giant_patch14_336": lambda: with_encoder(models.eva01_giant_adapter()),
}


@pytest.mark.parametrize("name", RELEASED)
def test_every_tensor_of_a_released_network_is_read_or_known(name):
    """At its full size, by names; what is written has the same."""
    with torch.device("meta"):
        names = set(timm.create_model(name).state_dict())
    naming, model = namings.recognise(names, name), RELEASED[name]()
    rows = {row.theirs for row in naming.rows(model, names)}
    assert rows <= names
    assert not [left for left in names - rows if not naming.why_left_out(model, left)]
    assert {row.theirs for row in namings.NAMINGS["timm"].rows(model, ())} == rows


def test_hrnet_w18_has_as_many_parameters():
    """But for timm's head of classification."""
    with torch.device("meta"):
        theirs = timm.create_model("hrnet_w18")
    heads = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
    wanted = sum(x.numel() for name, x in theirs.named_parameters() if not name.startswith(heads))
    config = models.hrnet_w48()
    config.width = 18
    ours = nnx.eval_shape(lambda: HRNet(config, (64, 64), "none", dtype=jnp.float32, rngs=nnx.Rngs(0)))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(ours, nnx.Param))) == wanted
