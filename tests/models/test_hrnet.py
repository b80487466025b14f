"""HRNet's maps under every decoder and OCRNet on every encoder, by shapes alone; files of either; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.parts import models
from tests.interop.conftest import drawn, tiny_hrnet, tiny_ocrnet, tiny_resnet, tiny_swin, variables
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.models import folded_bias, segmenter

SIZE = (97, 130)


def on_hrnet(decoder):
    model = tiny_hrnet(modules=(1, 1, 1), bottlenecks=1, blocks=1)
    model.image_size = SIZE
    model.decoder = {
        "fcn": models.joined_fcn,
        "ocrnet": models.ocrnet,
        "mask2former": lambda _: models.mask2former(),
        "upernet": lambda _: models.upernet(),
    }[decoder](model.encoder)
    if decoder == "mask2former":
        model.decoder.update(encoder_layers=1, decoder_layers=1)
    return model


def with_ocrnet(model, inputs):
    model.image_size = SIZE
    model.decoder = tiny_ocrnet().decoder
    model.decoder.inputs = inputs
    return model


def shapes_of(model):
    """(outputs, scores) of a clip of two frames."""

    def run(image_BTHWC):
        outputs = segmenter.build(model, jax.random.key(0))(image_BTHWC)
        return outputs, segmenter.class_scores(outputs)

    return jax.eval_shape(run, jax.ShapeDtypeStruct((1, 2, *SIZE, 3), jnp.float32))


def cells(stride):
    return tuple(-(-side // stride) for side in SIZE)


@pytest.mark.parametrize("decoder", ["fcn", "ocrnet", "mask2former", "upernet"])
def test_outputs_of_a_crop_that_no_stride_divides(decoder):
    model = on_hrnet(decoder)
    outputs, scores = shapes_of(model)
    assert [x.shape[2:] for x in outputs["encoder"]] == [(*cells(4 * 2**i), 4 * 2**i) for i in range(4)]
    assert [x.stride for x in segmenter.maps_of(model)] == [4, 8, 16, 32]
    assert outputs["features_BTHWC"].shape[2:4] == scores.shape[2:4] == cells(4)


@pytest.mark.parametrize(
    ("make", "inputs", "stride", "of_auxiliary"),
    [(lambda: tiny_resnet("mmseg"), "coarsest", 8, 8), (tiny_swin, "coarsest", 32, 16), (tiny_swin, "all", 4, 4)],
    ids=["resnet", "swin, coarsest", "swin, all"],
)
def test_ocrnet_reads_any_encoder(make, inputs, stride, of_auxiliary):
    outputs, scores = shapes_of(with_ocrnet(make(), inputs))
    assert outputs["logits_BTHWC"].shape == (1, 2, *cells(stride), 7)
    assert outputs["features_BTHWC"].shape[2:] == (*cells(stride), 12)
    assert outputs["auxiliary_logits_BTHWC"].shape == (1, 2, *cells(of_auxiliary), 7)
    assert scores.shape == (1, 2, *cells(4), 7)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("encoder", {"modules": (1, 4)}, r"modules is \(1, 4\): expected three counts"),
        ("encoder", {"upsampling": "cubic"}, "upsampling is 'cubic': .*aligned, bilinear, nearest"),
        ("encoder", {"upsampling": "nearest"}, r"image_size is \(97, 130\): .*multiples of 32"),
        ("decoder", {"inputs": "finest"}, "inputs is 'finest': .*all, coarsest"),
        ("decoder", {"auxiliary_size": 5}, "auxiliary_size is 5: expected 1 or 3"),
        ("decoder", {"auxiliary_dim": 0}, "auxiliary_dim is 0: expected 1 or more"),
        ("decoder", {"auxiliary_level": 4}, "auxiliary_level is 4: .*0 to 3"),
    ],
)
def test_what_makes_no_network_is_refused(part, changes, message):
    model = on_hrnet("ocrnet")
    model[part].update(changes)
    with pytest.raises(UserError, match=message):
        segmenter.check(model)


def test_sizes_are_read_off_an_mmseg_file(tmp_path):
    """And HRNet's own files have no such head where it reads one map."""
    model = tiny_hrnet()
    convert.save_torch(drawn(model), tmp_path / "A.pth")
    _, config = convert.model_from_torch(tmp_path / "A.pth")
    assert config.model.encoder.to_dict() == model.encoder.to_dict()
    assert config.model.decoder.to_dict() == model.decoder.to_dict()
    model = tiny_hrnet("hrnet")
    model.decoder.inputs = "coarsest"
    with pytest.raises(UserError, match="inputs='coarsest', .*no names in files of the kind hrnet"):
        convert.save_torch(drawn(model), tmp_path / "B.pth", "hrnet")


def test_a_classifier_of_whole_images_starts_a_segmentation_network(tmp_path, capsys):
    """Files of ImageNet, HRNet's own and timm's; what belongs to the classifier is left out, and the report says so."""
    source = drawn(tiny_hrnet())
    convert.save_torch(source, tmp_path / "A.safetensors", "hrnet_alone")
    tensors = {
        name: checkpoint_file.NewTensor(x.shape, x.dtype, x.read)
        for name, x in checkpoint_file.read(tmp_path / "A.safetensors").tensors.items()
    }
    zeros = np.zeros(3, np.float32)
    extra = ("incre_modules.0.0.bn1.bias", "downsamp_modules.0.1.bias", "final_layer.1.bias", "classifier.bias")
    tensors |= {name: checkpoint_file.NewTensor((3,), zeros.dtype, lambda: zeros) for name in extra}
    checkpoint_file.write(tmp_path / "B.pth", tensors, None)
    loaded = variables(convert.load_torch(drawn(tiny_hrnet(), seed=1), tmp_path / "B.pth"))
    for path, array in variables(source).items():
        assert path.startswith("decoder/") or np.array_equal(loaded[path], array), path
    printed = capsys.readouterr().out
    assert "4 not read" in printed and "of an image classification head" in printed
    assert "stay as initialised, as the file has none: decoder/head" in printed


def test_a_folded_bias():
    """A file without the bias is read as it is; one with a bias of another length is refused."""
    tensor = lambda *values: checkpoint_file.NewTensor(
        (len(values),), np.dtype(np.float32), lambda: np.array(values, np.float32)
    )
    fold = folded_bias.FoldedBias("conv.bias", 2)
    rule_for = lambda **biases: fold.rule(
        "mean", {"mean": tensor(1, 2), **{f"conv.{k}": v for k, v in biases.items()}}, (2,), (8, 8)
    )
    mean = np.array([1, 2], np.float32)
    np.testing.assert_array_equal(rule_for(bias=tensor(3, 5)).apply(mean, None), [-2, -3])
    np.testing.assert_array_equal(rule_for().apply(mean, None), mean)
    assert rule_for(bias=tensor(3, 5, 7)) is None
