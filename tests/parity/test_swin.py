"""Swin against transformers' modules with the same random weights, through files in Hugging Face's names."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import upernet_swin
from configs.parts import models
from tests.interop.conftest import drawn, listed, tiny_swin, variables
from tests.parity.comparison import channels_last, checked_gradients, fill, relative_error
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert, namings
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models import segmenter
from vspw_jax.models.encoders import window_tables
from vspw_jax.parallel import placement
from vspw_jax.training import train_state

torch = pytest.importorskip("torch")
transformers = library("transformers")

FORWARD, GRADIENT = 1e-5, 1e-4
"""Relative errors allowed: the largest difference over the largest value."""
CLASSES, DEPTHS, WINDOW = 7, (2, 2, 4, 2), 3
"""Those of `tiny_swin`."""
IMAGES = ((96, 64), (75, 101))
"""Maps of 24 x 16 cells to 3 x 2, and of 19 x 26 to 3 x 4: pixels, windows and mergings are padded."""


def their_model():
    """UperNetForSemanticSegmentation of the same sizes; every parameter and running statistic is random."""
    backbone = transformers.SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=list(DEPTHS),
        num_heads=[2, 4, 8, 16],
        window_size=WINDOW,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    model = transformers.UperNetForSemanticSegmentation(
        transformers.UperNetConfig(
            backbone_config=backbone,
            hidden_size=16,
            auxiliary_channels=12,
            auxiliary_in_channels=64,
            num_labels=CLASSES,
        )
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(1 + 0.2 * noise.clamp(-3, 3))
            elif tensor.ndim > 1 and "table" not in name:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(0.5 * noise)
    return model.eval()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(their network, the folder that they saved it in, ours, read from there)."""
    theirs, folder = their_model(), tmp_path_factory.mktemp("hugging_face")
    theirs.save_pretrained(folder)
    ours, config = convert.model_from_torch(folder / "model.safetensors")
    assert config.model.encoder.to_dict() == tiny_swin().encoder.to_dict()
    assert (config.model.decoder.dim, config.model.decoder.auxiliary_dim, config.model.num_classes) == (16, 12, CLASSES)
    return theirs, folder, ours


def random_image(size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def channels_first(image_NHWC):
    return torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("size", IMAGES)
def test_every_stage_and_both_heads(pair, size):
    theirs, _, ours = pair
    image = random_image(size)
    with torch.no_grad():
        maps = theirs.backbone(channels_first(image)).feature_maps
        logits, auxiliary = theirs.decode_head(maps), theirs.auxiliary_head(maps)
    graphdef, state = nnx.split(ours)
    outputs = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image[:, None]))(state, image)
    for x, expected in zip(outputs["encoder"], maps, strict=True):
        assert relative_error(x[:, 0], channels_last(expected)) < FORWARD
    assert relative_error(outputs["logits_BTHWC"][:, 0], channels_last(logits)) < FORWARD
    assert relative_error(outputs["auxiliary_logits_BTHWC"][:, 0], channels_last(auxiliary)) < FORWARD


@pytest.mark.parametrize(("size", "train"), [(IMAGES[0], True), (IMAGES[1], True), (IMAGES[1], False)])
def test_gradients(pair, size, train):
    """Of all the encoder's parameters and the image; no path is dropped in training."""
    theirs, folder, ours = pair
    theirs, maps = copy.deepcopy(theirs.backbone), lambda module, image: module(image).feature_maps
    gradients = checked_gradients(ours.encoder, theirs, size, (FORWARD, GRADIENT), their_maps=maps, train=train)
    # Their gradients take the place of the weights, so that they are saved under the names of files.
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.grad is not None:  # Not of the classifier's norm.
                parameter.copy_(parameter.grad)
    theirs.save_pretrained(folder / "gradients")
    tensors = {
        f"backbone.{name}": tensor.read()
        for name, tensor in checkpoint_file.read(folder / "gradients" / "model.safetensors").tensors.items()
    }
    expected, errors = {}, {}
    placement.map_with_path(lambda path, leaf: expected.__setitem__(f"encoder/{path}", np.zeros(leaf.shape)), gradients)
    rows = namings.NAMINGS["hugging_face_backbone_upernet"].rows(tiny_swin(), tensors)
    fill(expected, [row for row in rows if row.ours in expected], tensors)
    placement.map_with_path(
        lambda path, leaf: errors.__setitem__(path, relative_error(leaf, expected[f"encoder/{path}"])), gradients
    )
    # A softmax over keys does not see what is added to all of them, so the keys' bias has no gradient.
    assert max(errors.values()) < GRADIENT, errors


def assert_same(ours, theirs):
    for name, array in variables(theirs).items():
        np.testing.assert_array_equal(variables(ours)[name], array, err_msg=name)


@pytest.mark.parametrize("naming", ["mmseg", "hugging_face_backbone_upernet", "microsoft_swin", "hugging_face_swin"])
def test_export_then_import_gives_every_tensor_back(naming, tmp_path):
    model = drawn(tiny_swin())
    convert.save_torch(model, tmp_path / "A.pth", naming)
    loaded = convert.load_torch(drawn(tiny_swin(), seed=1), tmp_path / "A.pth")
    assert_same(loaded.encoder, model.encoder)
    convert.save_torch(loaded, tmp_path / "B.pth", naming)
    first, second = (checkpoint_file.read(tmp_path / name).tensors for name in ("A.pth", "B.pth"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor.read(), second[name].read())


def tensors_of(path, naming, model):
    convert.save_torch(model, path, naming)
    return {name: tensor.read() for name, tensor in checkpoint_file.read(path).tensors.items()}


def write(path, arrays):
    tensors = {name: NewTensor(x.shape, x.dtype, lambda x=x: x) for name, x in arrays.items()}
    checkpoint_file.write(path, tensors, None)
    return path


def test_mmsegs_merged_cells_are_in_the_order_of_unfold(tmp_path):
    """As mmseg's converter puts Microsoft's: groups 0, 2, 1, 3, then channel first."""
    model = drawn(tiny_swin())
    ours, theirs = (tensors_of(tmp_path / f"{name}.pth", name, model) for name in ("microsoft_swin", "mmseg"))
    for stage in range(3):
        linear, norm = (ours[f"layers.{stage}.downsample.{name}.weight"] for name in ("reduction", "norm"))
        channels = linear.shape[1] // 4
        wanted = linear.reshape(-1, 4, channels)[:, [0, 2, 1, 3]].transpose(0, 2, 1).reshape(linear.shape)
        np.testing.assert_array_equal(theirs[f"backbone.stages.{stage}.downsample.reduction.weight"], wanted)
        wanted = norm.reshape(4, channels)[[0, 2, 1, 3]].T.reshape(-1)
        np.testing.assert_array_equal(theirs[f"backbone.stages.{stage}.downsample.norm.weight"], wanted)


def test_timms_and_microsofts_classifiers_start_the_encoder(tmp_path):
    """timm names a merging after the stage behind it; both have a last norm and a head that are not read."""
    model = drawn(tiny_swin())
    arrays = tensors_of(tmp_path / "A.pth", "microsoft_swin", model)
    arrays = {name: x for name, x in arrays.items() if not name.startswith("norm") and not name.endswith("index")}
    arrays |= {"norm.weight": np.ones(128, np.float32), "head.fc.bias": np.ones(9, np.float32)}
    timm = {
        (f"layers.{int(name[7]) + 1}.{name[9:]}" if ".downsample." in name else name): x for name, x in arrays.items()
    }
    for path in (write(tmp_path / "B.pth", timm), write(tmp_path / "C.pth", arrays)):
        loaded, fresh = convert.load_torch(drawn(tiny_swin(), seed=1), path).encoder, drawn(tiny_swin(), seed=1).encoder
        for name, array in variables(loaded).items():
            np.testing.assert_array_equal(array, variables(fresh if name.startswith("norms/") else model.encoder)[name])


@pytest.mark.parametrize(
    ("naming", "prefix", "token"),
    [("hugging_face_swin", "swin.", "embeddings.mask_token"), ("microsoft_swin", "encoder.", "mask_token")],
)
def test_simmims_pretrained_networks_start_the_encoder(naming, prefix, token, tmp_path):
    """Beside the Swin these have a token of masked patches, and a layer that draws pixels."""
    model = drawn(tiny_swin())
    arrays = {prefix + name: x for name, x in tensors_of(tmp_path / "A.pth", naming, model).items()}
    arrays |= {prefix + token: np.ones((1, 1, 16), np.float32), "decoder.0.bias": np.ones(3072, np.float32)}
    loaded = convert.load_torch(drawn(tiny_swin(), seed=1), write(tmp_path / "B.pth", arrays))
    assert_same(loaded.encoder, model.encoder)


@pytest.mark.parametrize(("source", "target"), [(7, 12), (12, 7), (3, 4), (5, 5)])
def test_tables_are_resized_as_torchs_bicubic(source, target):
    table = np.random.default_rng(0).normal(size=((2 * source - 1) ** 2, 3)).astype(np.float32)
    grid = torch.from_numpy(table.T.reshape(1, 3, 2 * source - 1, -1).astype(np.float64))
    wanted = torch.nn.functional.interpolate(grid, size=(2 * target - 1,) * 2, mode="bicubic", align_corners=False)
    found = window_tables.resize(table, source, target)
    np.testing.assert_allclose(found, wanted.numpy().reshape(3, -1).T, rtol=1e-5, atol=1e-6)


def test_another_window_is_read_through_resized_tables(tmp_path, capsys):
    convert.save_torch(drawn(tiny_swin(window=4)), tmp_path / "A.pth", "microsoft_swin")
    convert.load_torch(drawn(tiny_swin()), tmp_path / "A.pth")
    assert (
        "10 relative position tables resized from windows of 4 to 3 cells a side (bicubic)" in capsys.readouterr().out
    )


def exported(config, weights, naming):
    tensors = convert.new_tensors(config.model, weights, namings.NAMINGS[naming])
    return {name: tensor.shape for name, tensor in tensors.items()}


def test_the_released_lists_of_tensors():
    """mmsegmentation's whole network, timm's and transformers' encoders."""
    config = upernet_swin.get_config()
    config.model.num_classes = 150
    _, *weights = train_state.describe(config)
    assert exported(config, weights, "mmseg") == listed("mmseg_upernet_swin_b_w7_ade20k")
    hugging_face = listed("transformers_swin_base_w7_backbone_ondisk")
    hugging_face = {name: shape for name, shape in hugging_face.items() if not name.startswith("swin.layernorm.")}
    assert exported(config, weights, "hugging_face_swin") == hugging_face
    timm = listed("timm_swin_base_patch4_window7_224")
    heads = ("norm.", "head.")
    assert exported(config, weights, "timm") == {name: x for name, x in timm.items() if not name.startswith(heads)}


def test_every_tensor_of_hugging_faces_mask2former_has_a_row():
    """facebook/mask2former-swin-base-ade-semantic: rows read all but what is left out with a reason."""
    model, naming = upernet_swin.get_config().model, namings.NAMINGS["hugging_face_mask2former"]
    model.decoder = models.mask2former()
    model.decoder.update(dim=256, heads=8, encoder_ffn_dim=1024, ffn_dim=2048, num_queries=100)
    names = listed("hf_mask2former_swin_base_ade_semantic").keys()
    read = {row.theirs for row in naming.rows(model, names)}
    assert read <= names
    assert len(names - read) == 3 and all(naming.why_left_out(model, name) for name in names - read)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (2, 2, 5, 2)}, r"depths is \(2, 2, 5, 2\): expected four even counts"),
        ({"depths": (2, 2, 6)}, "expected four even counts"),
        ({"head_dim": 5}, "model.encoder.head_dim is 5"),
    ],
)
def test_what_makes_no_network_is_refused(changes, message):
    model = tiny_swin()
    model.encoder.update(changes)
    with pytest.raises(UserError, match=message):
        segmenter.check(model)


def test_stochastic_depth_draws_of_an_image_are_its_own():
    """With keys passes differ, by image; without, nothing is drawn."""
    encoder = drawn(tiny_swin()).encoder
    graphdef, state = nnx.split(encoder)
    run = jax.jit(lambda image, keys: nnx.merge(graphdef, state)(image, True, keys)[-1])
    image, keys = jnp.asarray(random_image((32, 32))), jax.random.split(jax.random.key(0), 2)
    both = run(image, keys)
    np.testing.assert_allclose(run(image[::-1], keys[::-1])[::-1], both, rtol=1e-5, atol=1e-5)
    assert np.abs(both - run(image, keys[::-1])).max() > 1e-3
