"""ResNet's maps under every decoder, by shapes alone, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.parts import models
from tests.interop.conftest import drawn, tiny_fcn, tiny_resnet
from vspw_jax.console.errors import UserError
from vspw_jax.interop import convert
from vspw_jax.models import segmenter

DECODERS = {
    "deeplabv3": lambda: tiny_resnet("mmseg").decoder,
    "fcn": lambda: tiny_fcn("mmseg").decoder,
    "mask2former": models.mask2former,
    "upernet": models.upernet,
}


def network(output_stride, decoder):
    model = tiny_resnet("mmseg", image_size=(97, 130))
    model.encoder.output_stride, model.decoder = output_stride, DECODERS[decoder]()
    return model


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("output_stride", "strides"), [(8, (4, 8, 8, 8)), (16, (4, 8, 16, 16)), (32, (4, 8, 16, 32))])
def test_outputs_of_a_crop_that_no_stride_divides(output_stride, strides, decoder):
    """Maps have a cell for each part of a stride. Features have the size of the finest map, or of the coarsest; scores
    have that of the finest."""
    image = jax.ShapeDtypeStruct((1, 2, 97, 130, 3), jnp.float32)
    model = network(output_stride, decoder)

    def run(image_BTHWC):
        outputs = segmenter.build(model, jax.random.key(0))(image_BTHWC)
        return outputs, segmenter.class_scores(outputs)

    outputs, scores = jax.eval_shape(run, image)
    sizes = [(-(-97 // stride), -(-130 // stride)) for stride in strides]
    assert [x.shape[2:] for x in outputs["encoder"]] == [
        (*size, width) for size, width in zip(sizes, (32, 64, 128, 256), strict=True)
    ]
    assert [x.stride for x in segmenter.maps_of(model)] == list(strides)
    size = sizes[0] if decoder in ("mask2former", "upernet") else sizes[-1]
    assert outputs["features_BTHWC"].shape[2:4] == size and scores.shape[2:4] == sizes[0]
    if decoder != "mask2former":
        assert outputs["auxiliary_logits_BTHWC"].shape[2:4] == sizes[2]


def test_scores_of_a_coarse_map_are_the_softmax_of_resized_logits():
    """As mmseg, which resizes logits, does in PyTorch; of a fine map they are as they are."""
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(1, 2, 3, 5, 4)).astype(np.float32)
    finest = np.zeros((1, 2, 6, 9, 1))
    maps = torch.from_numpy(logits[0].transpose(0, 3, 1, 2).copy())
    resized = torch.nn.functional.interpolate(maps, size=(6, 9), mode="bilinear", align_corners=False)
    wanted = resized.softmax(dim=1).numpy().transpose(0, 2, 3, 1)[None]
    outputs = {"logits_BTHWC": logits, "encoder": [finest]}
    np.testing.assert_allclose(segmenter.class_scores(outputs), wanted, rtol=1e-5, atol=1e-6)
    assert segmenter.cell_scores(outputs).shape == logits.shape
    outputs["encoder"] = [logits]
    np.testing.assert_array_equal(segmenter.class_scores(outputs), segmenter.cell_scores(outputs))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("encoder", {"depths": (3, 4, 6)}, r"depths is \(3, 4, 6\): expected four counts"),
        ("encoder", {"output_stride": 4}, "output_stride is 4: expected one of 8, 16, 32"),
        ("encoder", {"stem": "wide"}, "model.encoder.stem is 'wide': .*deep, plain"),
        ("encoder", {"width": 9}, "width is 9: expected an even number"),
        ("decoder", {"variant": "keras"}, "model.decoder.variant is 'keras': .*mmseg, torchvision"),
        ("decoder", {"dropped": "rows"}, "model.decoder.dropped is 'rows': .*channels, elements"),
        ("decoder", {"auxiliary_level": 4}, "auxiliary_level is 4: .*0 to 3"),
    ],
)
def test_what_makes_no_network_is_refused(part, changes, message):
    model = tiny_resnet("mmseg")
    model[part].update(changes)
    with pytest.raises(UserError, match=message):
        segmenter.check(model)


def test_a_head_without_names_in_a_file_is_refused(tmp_path):
    """Each code has one of the two heads; the message names the files that have it."""
    with pytest.raises(UserError, match="variant='torchvision' has no names in files of the kind mmseg"):
        convert.save_torch(drawn(tiny_resnet("torchvision")), tmp_path / "A.pth", "mmseg")
    with pytest.raises(
        UserError, match="num_convs=2, .*concat_input=True has no names in files of the kind torchvision"
    ):
        convert.save_torch(drawn(tiny_fcn("mmseg")), tmp_path / "A.pth", "torchvision")


def test_a_resnet_under_upernet_is_read_without_dilation(tmp_path):
    """mmseg's UperNet reads maps at 1/4 to 1/32."""
    model = network(32, "upernet")
    model.decoder.update(dim=16, auxiliary_dim=12)
    convert.save_torch(drawn(model), tmp_path / "A.pth")
    _, config = convert.model_from_torch(tmp_path / "A.pth")
    assert config.model.encoder.to_dict() == model.encoder.to_dict()
    assert config.model.decoder.to_dict() == model.decoder.to_dict()


def test_a_classifier_of_whole_images_starts_a_segmentation_network(tmp_path, capsys):
    """The files that ImageNet's ResNets come in; their `fc` is left out, and the report says why."""
    torch = pytest.importorskip("torch")
    source = drawn(tiny_resnet("mmseg"))
    convert.save_torch(source, tmp_path / "A.pth", "torchvision_resnet")
    state = torch.load(tmp_path / "A.pth", weights_only=True)
    torch.save(state | {"fc.weight": torch.zeros(10, 256), "fc.bias": torch.zeros(10)}, tmp_path / "B.pth")
    convert.load_torch(drawn(tiny_resnet("mmseg"), seed=1), tmp_path / "B.pth")
    printed = capsys.readouterr().out
    assert "2 not read (fc.weight, fc.bias): the classifier of whole images" in printed
    assert "stay as initialised, as the file has none: decoder/aspp" in printed
