"""Parameter groups and updates against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
from configs.parts import training
from vspw_jax.console.errors import UserError
from vspw_jax.parallel import placement
from vspw_jax.training import optimizers

DEPTH, STEPS = 24, 40_000


def with_options(recipe=baseline, **options):
    """A recipe of `STEPS` steps, with other fields of `config.optimizer`."""
    config = recipe.get_config()
    config.train.steps = STEPS
    config.optimizer.update(options)
    return config


CONFIG = with_options()
RATE_OF_STEP_2 = 2e-5 * (1 - 2 / STEPS) * (1 - (1 - 2 / 1500) * (1 - 1e-6))
"""See test_schedules.py."""
PARAMS = {
    "encoder": {
        "cls_token": np.ones((1, 1, 4)),
        "patch_embed": {"proj": {"kernel": np.ones((2, 4)), "bias": np.ones(4)}},
        "interactions": {
            "blocks": {
                "gamma_1": np.ones((4, 6, 4)),
                "attn": {
                    "qkv": {"kernel": np.ones((4, 6, 4, 12))},
                    "relative_position_bias_table": np.ones((4, 6, 9, 2)),
                },
            },
            "injector": {"gamma": np.ones((4, 4))},
        },
    },
    "decoder": {
        "query_feat": np.ones((5, 4)),
        "mask_embed": {0: {"kernel": np.ones((4, 4)), "bias": np.ones(4)}},
        "layers": {0: {"norm1": {"scale": np.ones(4), "bias": np.ones(4)}, "fc1": {"kernel": np.ones((4, 8))}}},
    },
}


def mmcv_rate(step):
    """LrUpdaterHook: poly by iteration; in warm-up times 1 - (1 - step / warmup) * (1 - ratio)."""
    regular = 2e-5 * (1 - step / STEPS)
    return regular * (1 - (1 - step / 1500) * (1 - 1e-6)) if step < 1500 else regular


def test_layer_decay_counts_patches_blocks_and_the_rest():
    scales = optimizers.layer_scales(PARAMS, CONFIG)
    blocks = scales["encoder"]["interactions"]["blocks"]
    assert scales["encoder"]["cls_token"] == pytest.approx(0.9**25)  # 0.0718
    assert scales["encoder"]["patch_embed"]["proj"]["bias"] == pytest.approx(0.9**25)
    for interaction, block in ((0, 0), (0, 5), (1, 0), (3, 5)):
        number = 6 * interaction + block
        assert blocks["attn"]["qkv"]["kernel"][interaction, block].item() == pytest.approx(0.9 ** (24 - number))
    assert blocks["attn"]["qkv"]["kernel"].shape == (4, 6, 1, 1)
    assert scales["encoder"]["interactions"]["injector"]["gamma"] == 1
    assert scales["decoder"]["layers"][0]["fc1"]["kernel"] == 1


def test_layer_decay_of_plain_beit():
    """Eight blocks in four runs of two; the necks and both heads have the full rate."""
    params = {
        "encoder": {
            "cls_token": np.ones((1, 1, 4)),
            "blocks": {"mlp": {"fc1": {"kernel": np.ones((4, 2, 4, 8))}}},
            "fpn1": {"norm": {"scale": np.ones(4)}},
        },
        "decoder": {"classifier": {"conv": {"kernel": np.ones((4, 8))}}},
    }
    config = with_options(upernet, layer_decay=0.9)
    config.model.encoder.update(depth=8, out_blocks=(2, 4, 6, 8))
    scales = optimizers.layer_scales(params, config)
    numbers = np.arange(8).reshape(4, 2, 1, 1)
    np.testing.assert_allclose(scales["encoder"]["blocks"]["mlp"]["fc1"]["kernel"], 0.9 ** (8 - numbers), rtol=1e-6)
    assert scales["encoder"]["cls_token"] == pytest.approx(0.9**9)
    assert scales["encoder"]["fpn1"]["norm"]["scale"] == scales["decoder"]["classifier"]["conv"]["kernel"] == 1


def test_layer_decay_of_swin():
    """Eighteen blocks in four stages, two a pair; a merging is in the block before it, the norms in none."""
    pairs = {stage: np.ones((depth // 2, 4)) for stage, depth in enumerate((2, 4, 6, 6))}
    params = {
        "encoder": {
            "patch_embed": {"norm": {"scale": np.ones(4)}},
            "stages": {stage: {"plain": {"a": x}, "shifted": {"a": x}} for stage, x in pairs.items()},
            "mergings": {stage: {"reduction": {"kernel": np.ones((4, 2))}} for stage in range(3)},
            "norms": {0: {"scale": np.ones(4)}},
        },
        "decoder": {"classifier": {"conv": {"kernel": np.ones((4, 8))}}},
    }
    config = with_options(upernet_swin, layer_decay=0.9)
    config.model.encoder.depths = (2, 4, 6, 6)
    optimizers.check(config)
    scales = optimizers.layer_scales(params, config)
    layer = lambda scale: 19 - np.log(np.ravel(scale)) / np.log(0.9)
    found = [
        np.stack([layer(stage[kind]["a"]) for kind in ("plain", "shifted")], axis=1).ravel()
        for stage in scales["encoder"]["stages"].values()
    ]
    np.testing.assert_allclose(np.concatenate(found), np.arange(1, 19), rtol=1e-4)
    mergings = [layer(x["reduction"]["kernel"]).item() for x in scales["encoder"]["mergings"].values()]
    np.testing.assert_allclose(mergings, [2, 6, 12], rtol=1e-4)
    assert scales["encoder"]["patch_embed"]["norm"]["scale"] == pytest.approx(0.9**19)
    assert scales["encoder"]["norms"][0]["scale"] == scales["decoder"]["classifier"]["conv"]["kernel"] == 1


def test_layer_decay_of_mit_and_the_decoders_own_rate():
    """Four stages of one or two blocks: a stage's patches are in the block before it, its norm in its last block."""
    stage = lambda depth: {"patch_embed": {"a": np.ones(2)}, "blocks": {"a": np.ones((depth, 4))}, "norm": {"scale": 1}}
    depths = (1, 2, 1, 2)
    params = {
        "encoder": {"stages": {number: stage(depth) for number, depth in enumerate(depths)}},
        "decoder": {"fusion": {"conv": {"kernel": np.ones((4, 8))}}},
    }
    params = jax.tree.map(np.asarray, params)
    config = with_options(segformer, layer_decay=0.9)
    config.model.encoder.depths = depths
    optimizers.check(config)
    scales = optimizers.layer_scales(params, config)
    found = {name: [] for name in ("patch_embed", "blocks", "norm")}
    for parts in scales["encoder"]["stages"].values():
        for name, tree in parts.items():
            found[name] += [round(7 - np.log(x) / np.log(0.9)) for x in np.ravel(jax.tree.leaves(tree)[0])]
    assert found == {"patch_embed": [0, 1, 3, 4], "blocks": [1, 2, 3, 4, 5, 6], "norm": [1, 3, 4, 6]}
    assert scales["decoder"]["fusion"]["conv"]["kernel"] == 10


def layer_numbers(recipe, sizes, parts):
    """The layers of every part of an encoder in turn; None at the full rate, as the decoder has.

    `parts` are shapes by path, `sizes` fields of the encoder's config.
    """
    config = with_options(recipe, layer_decay=0.5)
    config.model.encoder.update(sizes)
    optimizers.check(config)
    tree = {"encoder": {path: np.ones(shape) for path, shape in parts.items()}, "decoder": {"kernel": np.ones(2)}}
    scales = optimizers.layer_scales(tree, config)
    assert scales["decoder"]["kernel"] == 1
    outside = sum(sizes["depths"]) + 1 if "depths" in sizes else sizes["depth"] + 1
    layer = lambda scale: None if scale == 1 else outside + int(np.log2(scale))
    return [[layer(x) for x in np.ravel(scales["encoder"][path])] for path in parts]


def test_layer_decay_of_internimage():
    """OpenGVLab's: block b of level i is in layer b + 1 + the blocks before the level; halving and norm of level i are
    in layer 1 + the blocks up to its end, the last level's norm in that of the level before."""
    depths = (1, 2, 3, 1)
    parts = {"stem/conv/kernel": (3, 4), "patch_embed/norm/scale": (4,)}
    parts |= {f"stages/{level}/mlp/fc1/kernel": (depth, 4, 8) for level, depth in enumerate(depths)}
    parts |= {f"halvings/{level}/conv/kernel": (4, 8) for level in range(3)}
    parts |= {f"norms/{level}/scale": (4,) for level in range(4)}
    found = layer_numbers(upernet_internimage, dict(depths=depths, post_norm=False), parts)
    assert found == [[0], [0], [1], [2, 3], [4, 5, 6], [7], [2], [4], [7], [2], [4], [7], [7]]


def test_layer_decay_of_focalnet():
    """As Swin's: a halving is in the block before it, the norms of the maps are in no layer."""
    depths = (1, 2, 3, 1)
    parts = {"patch_embed/proj/kernel": (3, 4)}
    parts |= {f"stages/{level}/mlp/fc1/kernel": (depth, 4, 8) for level, depth in enumerate(depths)}
    parts |= {f"halvings/{level}/proj/kernel": (4, 8) for level in range(3)}
    parts |= {f"norms/{level}/scale": (4,) for level in range(4)}
    found = layer_numbers(upernet_focalnet, dict(depths=depths), parts)
    assert found == [[0], [1], [2, 3], [4, 5, 6], [7], [1], [3], [6], *[[None]] * 4]


@pytest.mark.parametrize(
    ("recipe", "blocks", "others"),
    [
        (mask2former_eva02, "blocks", ("fpn1/norm/scale", "fpn2/kernel")),
        (mask2former_eva, "interactions/blocks", ("interactions/injector/gamma", "prior/stem/0/kernel", "level_embed")),
    ],
)
def test_layer_decay_of_eva(recipe, blocks, others):
    """As BEiT's: tokens, positions and patches before the blocks, each block a layer, all else at the full rate."""
    parts = {"cls_token": (1, 1, 4), "pos_embed": (1, 5, 4), "patch_embed/proj/kernel": (3, 4)}
    parts |= {f"{blocks}/attn/q_bias": (4, 2, 4)} | dict.fromkeys(others, (4,))
    sizes = dict(depth=8) | (dict(out_blocks=(2, 4, 6, 8)) if recipe is mask2former_eva02 else {})
    found = layer_numbers(recipe, sizes, parts)
    assert found == [[0], [0], [0], list(range(1, 9)), *[[None]] * len(others)]


def test_layer_decay_of_an_encoder_without_layers_is_refused():
    config = deeplabv3.get_config("demo")
    optimizers.check(config)
    config.optimizer.layer_decay = 0.9
    with pytest.raises(UserError, match="layer_decay is 0.9, but the layers of the encoder resnet have no rates"):
        optimizers.check(config)


@pytest.mark.parametrize(("switch", "scale"), [(True, 0.9**25), (False, 1.0)])
def test_decoder_embeddings_follow_the_released_code_by_a_switch(switch, scale):
    config = with_options(embeddings_at_layer_0=switch)
    scales = optimizers.layer_scales(PARAMS, config)
    assert scales["decoder"]["query_feat"] == pytest.approx(scale)
    assert scales["decoder"]["mask_embed"][0]["kernel"] == pytest.approx(scale)


def updates_of(config, gradients, params, steps=1):
    transformation = optimizers.build(config, params)
    state = transformation.init(params)
    for _ in range(steps):
        updates, state = transformation.update(gradients, state, params)
    return updates


def flat(tree):
    found = {}
    placement.map_with_path(lambda path, leaf: found.__setitem__(path, np.asarray(leaf)), tree)
    return found


def test_update_is_adamw_with_the_groups_rate_and_decay():
    """After s equal gradients g, Adam's step is g / (|g| + eps): 1. Decay adds 0.05 of the weight to kernels alone."""
    ones = placement.map_with_path(lambda _, leaf: jnp.ones(leaf.shape), PARAMS)
    updates = flat(updates_of(CONFIG, ones, ones, steps=3))
    scales = flat(optimizers.layer_scales(PARAMS, CONFIG))
    decayed = {path for path in updates if path.endswith(("kernel", "cls_token", "table", "query_feat"))}
    assert {path for path in updates if path not in decayed} == {
        "encoder/patch_embed/proj/bias",
        "encoder/interactions/blocks/gamma_1",
        "encoder/interactions/injector/gamma",
        "decoder/mask_embed/0/bias",
        "decoder/layers/0/norm1/scale",
        "decoder/layers/0/norm1/bias",
    }
    for path, update in updates.items():
        wanted = -RATE_OF_STEP_2 * scales[path] * (1.05 if path in decayed else 1.0)
        np.testing.assert_allclose(update, np.broadcast_to(wanted, update.shape), rtol=1e-4)


def test_gradients_are_clipped_by_their_global_norm():
    """A gradient of norm 1000 clipped to 1 moves Adam's second moment as one of norm 1 does."""
    config = with_options(clip_norm=1.0)
    params = {"decoder": {"kernel": jnp.zeros(4)}}
    transformation = optimizers.build(config, params)
    _, state = transformation.update({"decoder": {"kernel": jnp.full(4, 500.0)}}, transformation.init(params), params)
    np.testing.assert_allclose(state[1].nu["decoder"]["kernel"], 0.001 * 0.25, rtol=1e-5)


def sgd_config(**options):
    """SGD without warm-up, every layer at the same rate."""
    config = upernet.get_config()
    config.optimizer = training.sgd(learning_rate=0.1, weight_decay=0.01)
    config.optimizer.update(options)
    config.schedule = training.poly(power=0.9)
    config.train.steps = 10
    return config


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decayed", ["all", "kernels"])
def test_sgd_is_torchs(nesterov, decayed):
    """Weight decay joins the gradient, which joins the momentum; with Nesterov the step looks ahead. In float64."""
    config = sgd_config(nesterov=nesterov, decayed=decayed)
    rng = np.random.default_rng(0)
    ours = {"decoder": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}}
    ours = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), ours)
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in ours["decoder"].items()}
    momenta = {name: np.zeros_like(weight) for name, weight in weights.items()}
    optimizer = optimizers.build(config, ours)
    state = optimizer.init(ours)
    for step in range(6):
        gradients = {name: rng.normal(size=weight.shape) for name, weight in weights.items()}
        updates, state = optimizer.update({"decoder": jax.tree.map(jnp.float32, gradients)}, state, ours)
        ours = optax.apply_updates(ours, updates)
        rate = 0.1 * (1 - step / 10) ** 0.9
        for name, weight in weights.items():
            decay = 0.01 if decayed == "all" or name == "kernel" else 0.0
            gradient = gradients[name] + decay * weight
            momenta[name] = 0.9 * momenta[name] + gradient
            weights[name] = weight - rate * (gradient + 0.9 * momenta[name] if nesterov else momenta[name])
    for name, weight in weights.items():
        np.testing.assert_allclose(ours["decoder"][name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_beside_torchs_own(nesterov):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(5, 3, 4)).astype(np.float32)
    config = sgd_config(nesterov=nesterov)
    config.schedule.power = 0.0  # A constant rate.
    optimizer = optimizers.build(config, {"decoder": {"kernel": jnp.asarray(start)}})
    ours = {"decoder": {"kernel": jnp.asarray(start)}}
    state = optimizer.init(ours)
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    for gradient in gradients:
        updates, state = optimizer.update({"decoder": {"kernel": jnp.asarray(gradient)}}, state, ours)
        ours = optax.apply_updates(ours, updates)
        theirs.grad = torch.tensor(gradient)
        reference.step()
    np.testing.assert_allclose(ours["decoder"]["kernel"], theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_an_optimizer_has_its_own_fields_and_no_other():
    config = sgd_config()
    optimizers.check(config)
    config.optimizer.beta1 = 0.9
    with pytest.raises(UserError, match="optimizer.name is 'sgd', which does not read beta1.*configs/parts"):
        optimizers.check(config)
