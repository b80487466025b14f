"""Mask2Former's decoder, matching and loss, and BEiT's block, against Hugging Face's with the same numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from tests.torch_libraries import library
from vspw_jax.losses import segmentation
from vspw_jax.models.decoders import mask2former_rows
from vspw_jax.models.decoders.mask2former import Mask2Former
from vspw_jax.models.encoders import beit
from vspw_jax.models.encoders.encoder import FeatureMap

torch = pytest.importorskip("torch")
library("transformers")
from transformers import BeitConfig, Mask2FormerConfig  # noqa: E402 - not installed everywhere.
from transformers.models.beit import modeling_beit  # noqa: E402
from transformers.models.mask2former import modeling_mask2former  # noqa: E402

WIDTH, CLASSES, ALLOWED = 48, 7, 1e-5
MAPS = [FeatureMap(WIDTH, stride) for stride in (4, 8, 16, 32)]
CONFIG = ConfigDict(
    dict(
        dim=64,
        heads=4,
        points=4,
        ffn_dim=96,
        encoder_layers=2,
        decoder_layers=4,
        num_queries=12,
        query_std=1.0,
        norm_groups=32,
    )
)
CONFIG.encoder_ffn_dim = CONFIG.ffn_dim


def relative_error(ours, theirs):
    """The largest difference over the largest value."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert ours.shape == theirs.shape
    return np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()


def flatten(tree, prefix=""):
    for name, leaf in tree.items():
        if isinstance(leaf, dict):
            yield from flatten(leaf, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", leaf


def drawn(module, seed):
    """The module with every parameter random: matrices keep the size of what they pass, norms stay near 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        scale = np.prod(leaf.shape[-2:-1]) ** -0.5 if name == "kernel" else 0.1
        if name == "kernel" and leaf.ndim == 4:
            scale = np.prod(leaf.shape[:3]) ** -0.5
        if name in ("query_feat", "query_embed", "level_embed", "level_encoding"):
            scale = 1.0
        return jnp.asarray((name == "scale") + scale * rng.normal(size=leaf.shape), jnp.float32)

    graphdef, params = nnx.split(module)
    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(params)))


def exported(ours, rows, prefix):
    """Arrays by path as PyTorch's tensors by name, as the rows of `mask2former_rows` say."""
    parts = {}
    for row in rows:
        tensor = row.layout.export(np.asarray(ours[row.ours])[row.index])
        parts.setdefault(row.theirs.removeprefix(prefix), []).append(tensor)
    return {name: torch.tensor(np.concatenate(x) if len(x) > 1 else x[0]) for name, x in parts.items()}


# The modules stand alone here, without the names of those around them.
FORM = dataclasses.replace(mask2former_rows.HUGGING_FACE, layers="decoder.layers.", head="")
ROWS = {
    "pixels.": list(mask2former_rows.pixel_decoder("decoder/pixel_decoder", "pixels.", CONFIG, FORM.pixel)),
    "transformer.": list(mask2former_rows.transformer("decoder", "transformer.", CONFIG, FORM)),
}


@pytest.fixture(scope="module")
def decoders():
    """(ours, their pixel decoder, their transformer, the class layer's bias and kernel), all with the same weights."""
    ours = drawn(Mask2Former(MAPS, CLASSES, CONFIG, "none", dtype=jnp.float32, rngs=nnx.Rngs(0)), seed=0)
    config = Mask2FormerConfig(
        feature_size=CONFIG.dim,
        mask_feature_size=CONFIG.dim,
        hidden_dim=CONFIG.dim,
        encoder_feedforward_dim=CONFIG.ffn_dim,
        dim_feedforward=CONFIG.ffn_dim,
        encoder_layers=CONFIG.encoder_layers,
        decoder_layers=CONFIG.decoder_layers + 1,  # They count the prediction before the first layer.
        num_attention_heads=CONFIG.heads,
        num_queries=CONFIG.num_queries,
        dropout=0.0,
    )
    pixels = modeling_mask2former.Mask2FormerPixelDecoder(config, [WIDTH] * 4).eval()
    transformer = modeling_mask2former.Mask2FormerTransformerModule(CONFIG.dim, config).eval()
    params = dict(flatten(nnx.to_pure_dict(nnx.state(ours)), "decoder/"))
    class_layer = ["decoder/cls_embed/bias", "decoder/cls_embed/kernel"]
    assert {row.ours for rows in ROWS.values() for row in rows} | set(class_layer) == params.keys()
    for module, (prefix, rows) in zip((pixels, transformer), ROWS.items(), strict=True):
        module.load_state_dict(exported(params, rows, prefix))
    return ours, pixels, transformer, [torch.tensor(np.asarray(params[path])) for path in class_layer]


def drawn_maps(size):
    """Four maps of two images of `size`, such as an encoder gives."""
    draw = np.random.default_rng(sum(size)).normal
    return [draw(size=(2, *(-(-side // s) for side in size), WIDTH)).astype(np.float32) for s in (4, 8, 16, 32)]


def their_logits(maps, pixels, transformer, class_layer):
    """(class logits, mask logits) of all predictions."""
    bias, kernel = class_layer
    features = pixels([torch.tensor(x.transpose(0, 3, 1, 2)) for x in maps])
    output = transformer(features.multi_scale_features, features.mask_features)
    hidden = torch.stack([x.transpose(0, 1) for x in output.intermediate_hidden_states])
    return hidden @ kernel + bias, torch.stack(list(output.masks_queries_logits))


def both_logits(decoders, size):
    """(class logits, mask logits) of all predictions, ours and theirs, for random maps of an image of `size`."""
    ours, *theirs = decoders
    maps = drawn_maps(size)
    found = jax.jit(lambda maps: ours(maps))([jnp.asarray(x) for x in maps])
    with torch.no_grad():
        wanted = their_logits(maps, *theirs)
    return (found["layer_class_logits_LNQC"], found["layer_mask_logits_LNQHW"]), wanted


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (32, 128), (75, 101)], ids=["square", "tall", "wide", "odd"])
def test_logits_after_every_decoder_layer(decoders, size, capsys):
    ours, theirs = both_logits(decoders, size)
    errors = [
        [relative_error(*pair) for pair in zip(*logits, strict=True)] for logits in zip(ours, theirs, strict=True)
    ]
    with capsys.disabled():
        print(
            f"\n{size}: largest relative error of class logits {max(errors[0]):.1e}, mask logits {max(errors[1]):.1e}"
        )
    assert len(errors[0]) == len(errors[1]) == CONFIG.decoder_layers + 1
    assert max(*errors[0], *errors[1]) < ALLOWED
    # Masks neither all inside nor all outside: the attention masks were put to the test.
    assert 0.1 < float((ours[1] > 0).mean()) < 0.9


LOSS = ConfigDict(
    dict(capacity=5, num_points=64, oversample=3.0, importance=0.75, no_object_weight=0.1, void="background")
    | dict(matching=dict(cls=2.0, mask=5.0, dice=5.0))
)


def our_points(key, number, config):
    """(points of the matching, function from a target to its (uncertain draws, further draws)).

    Of an image's key and a prediction's number.
    """
    match_key, point_key = jax.random.split(jax.random.fold_in(key, number))
    mask_keys = jax.random.split(point_key, config.capacity)
    kept = int(config.importance * config.num_points)

    def of_target(target):
        draw_key, rest_key = jax.random.split(mask_keys[target])
        draws = jax.random.uniform(draw_key, (int(config.oversample * config.num_points), 2))
        return draws, jax.random.uniform(rest_key, (config.num_points - kept, 2))

    return jax.random.uniform(match_key, (config.num_points, 2)), of_target


def their_losses(class_logits, mask_logits, labels, keys, monkeypatch, number=0):
    """(loss terms, matches) of Mask2FormerLoss for prediction `number`, its random points replaced by ours."""
    config = Mask2FormerConfig(
        num_labels=CLASSES,
        no_object_weight=LOSS.no_object_weight,
        train_num_points=LOSS.num_points,
        oversample_ratio=LOSS.oversample,
        importance_sample_ratio=LOSS.importance,
        class_weight=LOSS.matching.cls,
        mask_weight=LOSS.matching.mask,
        dice_weight=LOSS.matching.dice,
    )
    points, matches = [our_points(key, number, LOSS) for key in keys], []
    loss = modeling_mask2former.Mask2FormerLoss(config, {})
    images = iter(points)

    def matcher(*args, run=loss.matcher.forward):
        matches.extend(run(*args))
        return matches

    def rand(first, count, _, device=None):
        if not matches:
            return torch.tensor(np.asarray(next(images)[0]))[None]
        draws = [points[image][1](int(target)) for image, (_, targets) in enumerate(matches) for target in targets]
        picked = 0 if count == int(LOSS.oversample * LOSS.num_points) else 1
        return torch.tensor(np.stack([draw[picked] for draw in draws]))

    monkeypatch.setattr(loss.matcher, "forward", matcher)
    monkeypatch.setattr(torch, "rand", rand)
    present = [np.setdiff1d(label, [255]) for label in labels]
    masks = [
        torch.tensor((label == ids[:, None, None]).astype(np.float32))
        for label, ids in zip(labels, present, strict=True)
    ]
    terms = loss(mask_logits, class_logits, masks, [torch.tensor(ids.astype(int)) for ids in present])
    return terms, matches


TERMS = {"cls": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}


def test_the_loss_and_its_matching(monkeypatch, capsys):
    """Images with four, two and one class, void in all of them."""
    rng = np.random.default_rng(3)
    labels = np.full((3, 32, 48), 255, np.int32)
    labels[0, :28] = np.repeat(np.repeat(rng.choice([0, 2, 3, 6], (7, 12)), 4, 0), 4, 1)
    labels[1, 4:, :40] = np.repeat(np.repeat(rng.choice([1, 5], (7, 10)), 4, 0), 4, 1)
    labels[2, 3:9, 5:31] = 4
    class_logits = rng.normal(size=(3, 12, CLASSES + 1)).astype(np.float32)
    mask_logits = (3 * rng.normal(size=(3, 12, 8, 12))).astype(np.float32)
    keys = jax.random.split(jax.random.key(5), 3)
    run = jax.jit(lambda *args: segmentation.mask_classification_loss(*args, LOSS))
    ours = run(class_logits[None], mask_logits[None], labels, keys)
    logits = torch.tensor(class_logits), torch.tensor(mask_logits)
    theirs, matches = their_losses(*logits, labels, keys, monkeypatch)
    assert [len(targets) for _, targets in matches] == [4, 2, 1]
    errors = {name: abs(float(ours[name]) / float(theirs[key]) - 1) for name, key in TERMS.items()}
    with capsys.disabled():
        print("\nrelative errors of the loss terms:", {name: f"{error:.1e}" for name, error in errors.items()})
    assert max(errors.values()) < ALLOWED


@pytest.mark.parametrize("size", [(64, 64), (75, 101)], ids=["square", "odd"])
def test_gradients_of_the_total_loss(decoders, size, monkeypatch, capsys):
    """Of every parameter of the decoder, through all predictions, their matchings and the attention masks."""
    module, pixels, transformer, class_layer = decoders
    maps, keys = drawn_maps(size), jax.random.split(jax.random.key(6), 2)
    labels = np.random.default_rng(7).choice([0, 2, 5, 255], (2, *(-(-side // 8) for side in size))).astype(np.int32)
    labels = labels.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]
    weights = {"cls": 2.0, "mask": 5.0, "dice": 5.0}
    graphdef, params = nnx.split(module)

    def loss(params):
        outputs = nnx.merge(graphdef, params)([jnp.asarray(x) for x in maps])
        logits = outputs["layer_class_logits_LNQC"], outputs["layer_mask_logits_LNQHW"]
        terms = segmentation.mask_classification_loss(*logits, labels, keys, LOSS)
        return sum(weights[name] * term for name, term in terms.items())

    value, gradients = jax.jit(jax.value_and_grad(loss))(nnx.to_pure_dict(params))
    gradients = dict(flatten(gradients, "decoder/"))
    for parameter in class_layer:
        parameter.requires_grad_()
    for parameter in (*class_layer, *pixels.parameters(), *transformer.parameters()):
        parameter.grad = None
    total = 0.0
    for number, logits in enumerate(zip(*their_logits(maps, pixels, transformer, class_layer), strict=True)):
        with monkeypatch.context() as patch:
            terms, _ = their_losses(*logits, labels, keys, patch, number)
        total += sum(weights[name] * terms[key] for name, key in TERMS.items())
    total.backward()
    total = total.item()

    errors = {
        path: relative_error(gradients[path], parameter.grad)
        for path, parameter in zip(("decoder/cls_embed/bias", "decoder/cls_embed/kernel"), class_layer, strict=True)
    }
    for theirs, (prefix, rows) in zip((pixels, transformer), ROWS.items(), strict=True):
        found = exported(gradients, rows, prefix)
        for name, parameter in theirs.named_parameters():
            wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            # Keys' biases change nothing, as softmax does not see what all keys share: their gradients are rounding.
            scale = max(float(wanted.abs().max()), 1e-3)
            errors[prefix + name] = float((found[name] - wanted).abs().max()) / scale
    worst = max(errors, key=errors.get)
    with capsys.disabled():
        print(f"\ntotal loss {float(value):.4f}, {total:.4f}: gradients of {len(errors)} parameters, largest")
        print(f"relative error {errors[worst]:.1e} ({worst})")
    assert float(value) == pytest.approx(total, rel=ALLOWED)
    assert errors[worst] < 1e-4


BEIT = {
    "norm1/scale": "layernorm_before.weight",
    "norm1/bias": "layernorm_before.bias",
    "attn/q_bias": "attention.q_proj.bias",
    "attn/v_bias": "attention.v_proj.bias",
    "attn/relative_position_bias_table": "relative_position_bias.relative_position_bias_table",
    "attn/proj/kernel": "attention.o_proj.weight",
    "attn/proj/bias": "attention.o_proj.bias",
    "gamma_1": "lambda_1",
    "norm2/scale": "layernorm_after.weight",
    "norm2/bias": "layernorm_after.bias",
    "mlp/fc1/kernel": "mlp.fc1.weight",
    "mlp/fc1/bias": "mlp.fc1.bias",
    "mlp/fc2/kernel": "mlp.fc2.weight",
    "mlp/fc2/bias": "mlp.fc2.bias",
    "gamma_2": "lambda_2",
}


@pytest.mark.parametrize("cells", [3, 6])
def test_a_beit_block(cells, capsys):
    """At the native size, which theirs must have square: its resizing of the table swaps height and width."""
    ours = drawn(beit.Block(32, 4, 4.0, (cells, cells), 0.1, dtype=jnp.float32, rngs=nnx.Rngs(0)), seed=1)
    config = BeitConfig(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=16 * cells,
        use_relative_position_bias=True,
        layer_norm_eps=1e-6,
    )
    theirs = modeling_beit.BeitLayer(config).eval()
    params = dict(flatten(nnx.to_pure_dict(nnx.state(ours))))
    qkv = np.split(np.asarray(params.pop("attn/qkv/kernel")).T, 3)
    state = {f"attention.{name}_proj.weight": torch.tensor(part) for name, part in zip("qkv", qkv, strict=True)}
    assert params.keys() == BEIT.keys()
    for name, leaf in params.items():
        state[BEIT[name]] = torch.tensor(np.asarray(leaf.T if name.endswith("kernel") else leaf))
    theirs.load_state_dict(state)
    x = np.random.default_rng(2).normal(size=(2, cells**2 + 1, 32)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.tensor(x), resolution=(16 * cells, 16 * cells))
    error = relative_error(jax.jit(lambda x: ours(x, 0.0))(x), wanted)
    with capsys.disabled():
        print(f"\nBEiT block, {cells}x{cells} patches: relative error {error:.1e}")
    assert error < ALLOWED
