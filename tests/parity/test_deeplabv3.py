"""DeepLabV3 and FCN against PyTorch with the same random weights, through files in mmsegmentation's and torchvision's
names.

The files are read by `convert.model_from_torch`, so what is compared has the sizes that were read off the tensors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import deeplabv3
from configs.parts import models
from tests.interop.conftest import listed
from tests.parity.comparison import channels_last, draw, largest_error, loaded, relative_error, training_gradients
from tests.torch_libraries import library
from vspw_jax.interop import convert, namings
from vspw_jax.models import segmenter

torch = pytest.importorskip("torch")

from benchmarks import torch_heads  # noqa: E402

FORWARD, GRADIENT = 1e-5, 1e-5
"""Relative errors allowed: the largest difference over the largest value; gradients are taken in float64, but losses in
float32."""

CLASSES = 7
SIZES = dict(width=8, depths=(1, 2, 1, 1), dim=16, auxiliary_dim=12, num_classes=CLASSES)
NETWORKS = {
    "deeplabv3 of mmseg": ("mmseg", torch_heads.mmseg_deeplabv3),
    "deeplabv3 of torchvision": ("torchvision", torch_heads.torchvision_deeplabv3),
    "fcn of mmseg": ("mmseg", torch_heads.mmseg_fcn),
    "fcn of torchvision": ("torchvision", torch_heads.torchvision_fcn_resnet),
}
"""Kind of file and the reference's network."""
IMAGES = ((112, 128), (97, 130))
"""Maps at 1/8 of 14 x 16 and 13 x 17 cells: dilation 12 reaches into them, 24 and 36 do not."""


def random_image(size, count=2):
    return np.random.default_rng(0).normal(size=(count, *size, 3)).astype(np.float32)


def channels_first(image_NHWC):
    return torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS.keys())
def pair(request, tmp_path_factory):
    """(kind of file, reference, path of its file, our network read from there, its config)."""
    naming, make = request.param
    theirs = draw(make(**SIZES)).eval()
    path = tmp_path_factory.mktemp("torch") / "theirs.pth"
    torch.save(theirs.state_dict(), path)
    return naming, theirs, path, *convert.model_from_torch(path)


def test_sizes_are_read_off_the_file(pair):
    _, _, _, _, config = pair
    encoder, decoder = config.model.encoder, config.model.decoder
    assert (encoder.width, encoder.depths, encoder.output_stride) == (8, (1, 2, 1, 1), 8)
    assert (decoder.dim, decoder.auxiliary_dim, config.model.num_classes) == (16, 12, CLASSES)


def test_both_heads_in_evaluation(pair):
    _, theirs, _, ours, _ = pair
    graphdef, state = nnx.split(ours)
    run = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image[:, None]))
    for size in IMAGES:
        image = random_image(size)
        with torch.no_grad():
            logits, auxiliary = theirs(channels_first(image))
        outputs = run(state, image)
        assert outputs["features_BTHWC"].shape[:4] == outputs["logits_BTHWC"].shape[:4]
        assert relative_error(outputs["logits_BTHWC"][:, 0], channels_last(logits)) < FORWARD
        assert relative_error(outputs["auxiliary_logits_BTHWC"][:, 0], channels_last(auxiliary)) < FORWARD


def test_an_exported_file_is_loaded_strictly(pair, tmp_path):
    """Every tensor comes back, bit for bit."""
    naming, theirs, _, ours, _ = pair
    convert.save_torch(ours, tmp_path / "ours.pth", naming)
    state = torch.load(tmp_path / "ours.pth", weights_only=True)
    state = state.get("state_dict", state)
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.state_dict().items())


def test_without_an_auxiliary_head(tmp_path):
    """torchvision's files of aux_loss=None."""
    theirs = draw(torch_heads.torchvision_deeplabv3(**SIZES)).eval()
    state = {name: x for name, x in theirs.state_dict().items() if not name.startswith("aux_classifier.")}
    torch.save(state, tmp_path / "A.pth")
    model, config = convert.model_from_torch(tmp_path / "A.pth")
    assert config.model.decoder.auxiliary_dim == 0
    convert.save_torch(model, tmp_path / "B.pth", "torchvision")
    assert torch.load(tmp_path / "B.pth", weights_only=True).keys() == state.keys()


@pytest.mark.parametrize("name", ["deeplabv3 of mmseg", "deeplabv3 of torchvision", "fcn of mmseg"])
def test_loss_and_gradients_of_a_training_step(name, monkeypatch):
    """The recipe's loss of both heads, batch norms in training, whatever the name of the file."""
    monkeypatch.setitem(segmenter.DTYPES, "float64", jnp.float64)
    naming, make = NETWORKS[name]
    head = {"dilations": (1, 2)} if name.startswith("deeplabv3") else {}
    theirs = draw(make(**SIZES, **head)).double().train()
    size, rng = (66, 49), np.random.default_rng(1)
    config = deeplabv3.get_config("demo")
    config.model.update(image_size=size, num_classes=CLASSES, dtype="float64")
    config.model.encoder.update(stem="deep" if naming == "mmseg" else "plain", width=8, depths=SIZES["depths"])
    if head:
        config.model.decoder.update(head, variant=naming)
    else:
        config.model.decoder = models.fcn()
    config.model.decoder.update(dim=16, dropout=0.0, auxiliary_dim=12, auxiliary_dropout=0.0)
    image = rng.normal(size=(3, 1, *size, 3))
    label = np.kron(rng.choice([*range(CLASSES), 255], (3, 1, 11, 7)), np.ones((6, 7))).astype(np.int32)
    rows = namings.NAMINGS[naming].rows(config.model, theirs.state_dict())
    with jax.enable_x64(True):
        state = loaded(config, rows, {name: x.numpy() for name, x in theirs.state_dict().items()})
        loss, gradients = training_gradients(config, state, {"image_BTHWC": image, "label_BTHW": label})

    their_loss = 0.0
    for weight, logits in zip((1.0, 0.4), theirs(channels_first(image[:, 0])), strict=True):
        logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        target = torch.from_numpy(label[:, 0]).long()
        their_loss += weight * torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
    their_loss.backward()
    assert float(loss) == pytest.approx(their_loss.item(), rel=1e-5)
    wanted = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert largest_error(gradients, rows, wanted) < GRADIENT


@pytest.mark.parametrize(
    ("name", "make", "head"),
    [
        ("torchvision_deeplabv3_resnet50_aux", torch_heads.torchvision_deeplabv3, (256, 21)),
        ("mmseg_deeplabv3_r50v1c_d8_ade20k", torch_heads.mmseg_deeplabv3, (512, 150)),
    ],
)
def test_the_released_lists_of_tensors_are_the_references(name, make, head):
    dim, num_classes = head
    with torch.device("meta"):
        reference = make(64, (3, 4, 6, 3), dim, 256, num_classes)
    assert {name: tuple(x.shape) for name, x in reference.state_dict().items()} == listed(name)


@pytest.mark.parametrize("name", ["deeplabv3", "fcn"])
def test_the_reference_is_torchvisions(name):
    """Logits at the size of the image, and names; the backbone is torchvision's too."""
    torchvision = library("torchvision")
    models, segmentation = torchvision.models, torchvision.models.segmentation
    depths = SIZES["depths"]
    backbone = models.resnet.ResNet(
        models.resnet.Bottleneck, list(depths), replace_stride_with_dilation=[False, True, True]
    )
    backbone = models._utils.IntermediateLayerGetter(backbone, {"layer4": "out", "layer3": "aux"})
    heads = {"deeplabv3": segmentation.deeplabv3.DeepLabHead, "fcn": segmentation.fcn.FCNHead}
    kinds = {"deeplabv3": segmentation.DeepLabV3, "fcn": segmentation.FCN}
    theirs = kinds[name](backbone, heads[name](2048, CLASSES), segmentation.fcn.FCNHead(1024, CLASSES))
    theirs = draw(theirs).eval()
    _, make = NETWORKS[f"{name} of torchvision"]
    reference = make(64, depths, 256 if name == "deeplabv3" else 512, 256, CLASSES).eval()
    reference.load_state_dict(theirs.state_dict(), strict=True)
    size = IMAGES[1]
    image = channels_first(random_image(size, count=1))
    with torch.no_grad():
        for logits, wanted in zip(reference(image), theirs(image).values(), strict=True):
            logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            assert relative_error(logits.numpy(), wanted.numpy()) < FORWARD
