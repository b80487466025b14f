"""Learning rates, groups and updates against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import baseline, upernet
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


@pytest.mark.parametrize("step", [0, 1, 749, 1499, 1500, 1501, 20_000, 39_999])
def test_schedule_is_mmcvs(step):
    rate = optimizers.learning_rate(CONFIG)
    assert float(rate(jnp.asarray(step))) == pytest.approx(mmcv_rate(step), rel=1e-5)


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
        wanted = -mmcv_rate(2) * scales[path] * (1.05 if path in decayed else 1.0)
        np.testing.assert_allclose(update, np.broadcast_to(wanted, update.shape), rtol=1e-4)


def test_gradients_are_clipped_by_their_global_norm():
    """A gradient of norm 1000 clipped to 1 moves Adam's second moment as one of norm 1 does."""
    config = with_options(clip_norm=1.0)
    params = {"decoder": {"kernel": jnp.zeros(4)}}
    transformation = optimizers.build(config, params)
    _, state = transformation.update({"decoder": {"kernel": jnp.full(4, 500.0)}}, transformation.init(params), params)
    np.testing.assert_allclose(state[1].nu["decoder"]["kernel"], 0.001 * 0.25, rtol=1e-5)
