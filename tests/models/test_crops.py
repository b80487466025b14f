"""The network at crops of several shapes, in prediction and training, and what it says to a crop it cannot take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from configs import baseline
from tests.conftest import drawn_weights
from vspw_jax.console.errors import UserError
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import train_state


def config_for(image_size):
    config = baseline.get_config("demo")
    model = config.model
    model.image_size = image_size
    model.encoder.update(dim=16, heads=2, adapter_channels=4, adapter_heads=2, extra_extractors=1)
    model.decoder.update(dim=16, heads=2, ffn_dim=16, norm_groups=4, encoder_layers=1, decoder_layers=1, num_queries=5)
    return config


@pytest.mark.parametrize("image_size", [(32, 96), (128, 64)], ids=["32x96", "128x64"])
def test_predicts_and_trains_at_any_crop(image_size):
    config = config_for(image_size)
    graphdef, *shapes = train_state.describe(config)
    params, model_state = drawn_weights(shapes)
    images = np.random.default_rng(0).normal(size=(1, 2, *image_size, 3)).astype(np.float32)

    def run(params, model_state, images):
        def loss(params):
            outputs = nnx.merge(graphdef, params, model_state)(images, train=True)
            return (segmenter.class_scores(outputs) ** 2).mean(), outputs

        return jax.grad(loss, has_aux=True)(params)

    mesh = make_mesh(devices=jax.devices()[:1])
    mapped = jax.shard_map(run, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P(), check_vma=False)
    step = jax.jit(mapped, compiler_options={"xla_backend_optimization_level": 0})
    gradients, outputs = step(params, model_state, images)

    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((gradients, outputs)))
    height, width = image_size
    assert outputs["mask_logits_BTQHW"].shape == (1, 2, 5, height // 4, width // 4)
    maps = [x.shape for x in outputs["encoder"]]
    assert maps == [(1, 2, height // stride, width // stride, 16) for stride in (4, 8, 16, 32)]
    table = gradients["encoder"]["interactions"]["blocks"]["attn"]["relative_position_bias_table"]
    assert table.shape == (4, 1, (height // 8 - 1) * (width // 8 - 1) + 3, 2)
    # The class token's rows and the nearest neighbours' are used at every crop.
    assert (np.abs(table).max(axis=(0, 1, 3)) > 0).all()


@pytest.mark.parametrize("image_size", [(480, 853), (100, 96), (16, 32)])
def test_a_crop_that_32_does_not_divide_is_the_users_to_mend(image_size):
    with pytest.raises(UserError, match=r"multiples of 32.*Set --config.model.image_size"):
        train_state.describe(config_for(image_size))
