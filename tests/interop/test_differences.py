"""A file of another network than the recipe's is named as what it is, with the flags that the recipe needs for it."""

import numpy as np
import pytest

from configs import baseline, deeplabv3, upernet, upernet_swin
from tests.interop.conftest import listed
from vspw_jax.interop import differences, namings
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models.encoders import resnet_rows
from vspw_jax.models.torch_names import Shapes

SWIN_B = (
    "Its encoder, a swin, has dim 128, depths (2, 2, 18, 2); the recipe has dim 96, depths (2, 2, 6, 2). Set "
    "--config.model.encoder.dim=128 --config.model.encoder.depths='(2, 2, 18, 2)'."
)
CASES = {
    "timm_swin_base_patch4_window7_224": (upernet_swin, [SWIN_B]),
    "transformers_swin_base_w7_backbone_ondisk": (upernet_swin, [SWIN_B]),
    "mmseg_upernet_swin_b_w7_ade20k": (
        upernet,
        [
            "Its encoder is a swin, the recipe's is a beit.",
            "Its decoder, a upernet, has dim 512; the recipe has dim 1024. Set --config.model.decoder.dim=512.",
        ],
    ),
    "torchvision_resnet50": (
        deeplabv3,
        [
            "Its encoder, a resnet, has stem plain, depths (3, 4, 6, 3); the recipe has stem deep, depths "
            "(3, 4, 23, 3). Set --config.model.encoder.stem=plain --config.model.encoder.depths='(3, 4, 6, 3)'."
        ],
    ),
    "mmseg_deeplabv3_r101v1c_d8_ade20k": (deeplabv3, []),
    "beitv2_large": (upernet, []),
    "mask2former_896_ade20k": (
        baseline,
        [
            "Its decoder, a mask2former, has dim 1024, heads 32; the recipe has dim 256, heads 8. Set "
            "--config.model.decoder.dim=1024 --config.model.decoder.heads=32."
        ],
    ),
}
"""By released list of tensors: the recipe, and what is said of them."""


@pytest.mark.parametrize("name", CASES)
def test_another_size_and_another_family_are_said(name):
    recipe, said = CASES[name]
    config = recipe.get_config().model
    if config.encoder.name == "swin":
        config.encoder.update(dim=96, depths=(2, 2, 6, 2))
    if config.encoder.name == "vit_adapter":
        config.decoder.update(dim=256, heads=8)
    tensors = {tensor: NewTensor(shape, np.dtype(np.float32), None) for tensor, shape in listed(name).items()}
    file = CheckpointFile(name, tensors)
    assert list(differences.sentences(config, file, namings.recognise(tensors, name))) == said


@pytest.mark.parametrize(
    ("names", "stem"),
    [(("conv1.0", "bn1"), "deep"), (("stem.0", "stem.1"), "deep"), (("conv1", "bn1"), "plain")],
    ids=["timm", "mmseg", "torchvision"],
)
def test_the_stem_is_told_by_its_convolution(names, stem):
    names = (*names, "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1")
    tensors = {f"{name}.weight": NewTensor((8, 3, 3, 3), np.dtype(np.float32), None) for name in names}
    assert resnet_rows.alone_sizes(Shapes("X.pth", tensors), "").fields["stem"] == stem
