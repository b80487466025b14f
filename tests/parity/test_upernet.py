"""BEiT with UperNet against Hugging Face's modules with the same random weights: every stage, loss and gradients.

BeitForSemanticSegmentation picks hidden states one block too early for published weights (index 7 is the output of
block 7, counted from 1, where the released code takes block 8's), so its parts are run one after another here.
"""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import upernet
from tests.parity.comparison import channels_last, fill, relative_error, training_gradients
from tests.torch_libraries import library
from vspw_jax.interop import namings
from vspw_jax.models import segmenter
from vspw_jax.parallel import placement
from vspw_jax.training import train_state

torch = pytest.importorskip("torch")
library("transformers")
from benchmarks import torch_training  # noqa: E402 - imports PyTorch.

CLASSES, DIM = 7, 32
PER_BLOCK, WHOLE = 1e-5, 1e-4
"""Relative errors allowed: the largest difference over the largest value."""

STILL = ("encoder/fpn1/first/bias", "encoder/fpn1/second/bias", "encoder/fpn2/bias")
"""Biases that a batch norm takes out again: their gradients are zero, and rounding alone is left."""

CASES = {
    "square": ((48, 48), 4, (1, 2, 3, 4)),
    "uneven blocks": ((80, 80), 6, (2, 3, 4, 6)),
    "wide": ((64, 96), 8, (2, 4, 6, 8)),
    "tall, odd": ((112, 48), 4, (1, 2, 3, 4)),
}
"""Crop, depth, blocks after which features are taken."""


def small_config(size, depth, out_blocks):
    config = upernet.get_config("demo")
    config.model.update(image_size=size, num_classes=CLASSES)
    config.model.encoder.update(dim=DIM, depth=depth, heads=4, out_blocks=out_blocks)
    config.model.decoder.update(dim=DIM, auxiliary_dim=16, dropout=0.0)
    return config


def their_model(config):
    """BeitForSemanticSegmentation of the same sizes; every parameter and running statistic is random."""
    model = torch_training.build(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            draw = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith(("weight", "lambda_1", "lambda_2"))):
                tensor.copy_(1 + 0.2 * draw.clamp(-3, 3))
            elif tensor.ndim > 1 and "table" not in name:
                tensor.copy_(draw / tensor[0].numel() ** 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(0.5 * draw)
        for layer in model.beit.layers:
            # It reshapes the table to (width, height): right for square windows alone. Exchanging them mends it.
            bias = layer.relative_position_bias
            bias.window_size = bias.window_size[::-1]
    return model.eval()


def parameters(names):
    """All but the counts of batches that a batch norm has seen."""
    return {name for name in names if not name.endswith("num_batches_tracked")}


def load(config, rows, tensors):
    """(graphdef, params, model_state) of our network, filled with tensors; every one of both sides must be used."""
    graphdef, *state = train_state.split_model(segmenter.build(config.model, jax.random.key(0)))
    arrays = {}
    for tree in state:
        placement.map_with_path(lambda path, leaf: arrays.__setitem__(path, np.full(leaf.shape, np.nan)), tree)
    rows = list(rows)
    fill(arrays, rows, tensors)
    assert not [path for path, array in arrays.items() if np.isnan(array).any()]
    assert parameters(tensors) == parameters(row.theirs for row in rows)
    return graphdef, *(
        placement.map_with_path(lambda path, leaf: jnp.asarray(arrays[path], leaf.dtype), tree) for tree in state
    )


def their_tensors(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def hugging_face_rows(config, names=torch_training.IN_MEMORY):
    return namings.NAMINGS["hugging_face_upernet"].rows(config.model, names)


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def pair(request):
    """Both networks, an image and all stages of theirs."""
    config = small_config(*request.param)
    theirs = their_model(config)
    ours = nnx.merge(*load(config, hugging_face_rows(config), their_tensors(theirs)))
    image_NHWC = np.random.default_rng(0).normal(size=(2, *config.model.image_size, 3)).astype(np.float32)
    with torch.no_grad():
        image = torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())
        states = theirs.beit(image, output_hidden_states=True).hidden_states
        window = [side // 16 for side in config.model.image_size]
        features = [
            states[block][:, 1:].transpose(1, 2).reshape(2, -1, *window) for block in config.model.encoder.out_blocks
        ]
        maps = theirs.fpn(features)
        outputs = dict(
            states=states,
            features=features,
            maps=maps,
            psp=theirs.decode_head.psp_forward(list(maps)),
            logits=theirs.decode_head(list(maps)),
            auxiliary=theirs.auxiliary_head(list(maps)),
        )
    return dict(config=config, ours=ours, image=jnp.asarray(image_NHWC), theirs=outputs)


def test_every_block(pair):
    graphdef, variables = nnx.split(pair["ours"].encoder.blocks)
    states, depth = pair["theirs"]["states"], pair["config"].model.encoder.depth
    apply = jax.jit(lambda variables, x: nnx.merge(graphdef, variables)(x, 0.0))
    assert len(states) == depth + 1
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), variables)
    for number in range(depth):
        block = jax.tree.map(operator.itemgetter(number), flat)
        assert relative_error(apply(block, states[number].numpy()), states[number + 1]) < PER_BLOCK


def test_patch_embedding(pair):
    tokens = pair["ours"].encoder.patch_embed(pair["image"])
    assert relative_error(tokens, pair["theirs"]["states"][0][:, 1:]) < PER_BLOCK


def test_features_after_the_blocks_named(pair):
    for ours, theirs in zip(
        pair["ours"].encoder.features(pair["image"]), map(channels_last, pair["theirs"]["features"]), strict=True
    ):
        assert relative_error(ours, theirs) < PER_BLOCK * pair["config"].model.encoder.depth


def test_four_maps(pair):
    maps = pair["ours"].encoder(pair["image"])
    for ours, theirs in zip(maps, map(channels_last, pair["theirs"]["maps"]), strict=True):
        assert relative_error(ours, theirs) < WHOLE


def test_pyramid_pooling_and_both_heads(pair):
    """Each from the reference's maps, so that errors do not add up."""
    maps = [jnp.asarray(channels_last(x)) for x in pair["theirs"]["maps"]]
    decoder = pair["ours"].decoder
    assert relative_error(decoder.pool_pyramid(maps[-1], False), channels_last(pair["theirs"]["psp"])) < PER_BLOCK
    outputs = decoder(maps)
    assert relative_error(outputs["logits_NHWC"], channels_last(pair["theirs"]["logits"])) < PER_BLOCK
    assert relative_error(outputs["auxiliary_logits_NHWC"], channels_last(pair["theirs"]["auxiliary"])) < PER_BLOCK


def test_whole_network(pair):
    outputs = pair["ours"](pair["image"][:, None])
    for name in ("logits", "auxiliary"):
        ours = outputs["logits_BTHWC" if name == "logits" else "auxiliary_logits_BTHWC"][:, 0]
        assert relative_error(ours, channels_last(pair["theirs"][name])) < WHOLE


def test_loss_and_gradients_of_a_training_step():
    config = small_config((64, 96), 4, (1, 2, 3, 4))
    theirs = their_model(config).train()
    state = load(config, hugging_face_rows(config), their_tensors(theirs))
    theirs = theirs.double()
    # With this seed no ReLU's input is so near to zero that float32 gives it another sign than float64.
    rng = np.random.default_rng(3)
    image = rng.normal(size=(4, 1, 64, 96, 3)).astype(np.float32)
    label = np.kron(rng.choice([*range(CLASSES), 255], (4, 1, 8, 12)), np.ones((8, 8))).astype(np.int32)
    loss, gradients = training_gradients(config, state, {"image_BTHWC": image, "label_BTHW": label})

    their_image = torch.from_numpy(image[:, 0].transpose(0, 3, 1, 2).copy()).double()
    states = theirs.beit(their_image, output_hidden_states=True)
    maps = theirs.fpn([x[:, 1:].transpose(1, 2).reshape(4, -1, 4, 6) for x in states.hidden_states[1:]])
    their_loss = 0.0
    for weight, logits in ((1.0, theirs.decode_head(list(maps))), (0.4, theirs.auxiliary_head(list(maps)))):
        logits = torch.nn.functional.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False)
        target = torch.from_numpy(label[:, 0]).long()
        their_loss += weight * torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
    their_loss.backward()
    assert float(loss) == pytest.approx(their_loss.item(), rel=1e-5)

    wanted = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    rows = [row for row in hugging_face_rows(config) if row.theirs in wanted]
    expected = {}
    placement.map_with_path(lambda path, leaf: expected.__setitem__(path, np.zeros(leaf.shape)), gradients)
    fill(expected, rows, wanted)
    errors = {}

    def compare(path, leaf):
        if path in STILL:
            assert max(np.abs(leaf).max(), np.abs(expected[path]).max()) < 1e-7
        else:
            errors[path] = relative_error(leaf, expected[path])

    placement.map_with_path(compare, gradients)
    assert max(errors.values()) < WHOLE, {path: error for path, error in errors.items() if error >= WHOLE}


def test_files_with_the_names_of_version_4(tmp_path):
    """transformers saves the old names, and reads them: both tables of names lead to the same network."""
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    config = small_config((48, 48), 4, (1, 2, 3, 4))
    theirs = their_model(config)
    theirs.save_pretrained(tmp_path)
    tensors = safetensors_numpy.load_file(tmp_path / "model.safetensors")
    assert "beit.encoder.layer.0.attention.attention.query.weight" in tensors
    _, *old = load(config, hugging_face_rows(config, tensors), tensors)
    _, *new = load(config, hugging_face_rows(config), their_tensors(theirs))
    for left, right in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        np.testing.assert_array_equal(left, right)
