"""The decoder's attention mask and position encoding."""

import jax
import jax.numpy as jnp
import numpy as np

from vspw_jax.models.decoders.mask2former import attention_mask
from vspw_jax.models.decoders.pixel_decoder import sine_position_encoding


def test_queries_look_inside_their_masks():
    logits = jnp.full((1, 1, 8, 8), -4.0).at[0, 0, :4, :4].set(4.0)
    mask = attention_mask(logits, (2, 2))
    assert mask.tolist() == [[[True, False, False, False]]]


def test_a_query_with_an_empty_mask_looks_everywhere():
    logits = jnp.stack([jnp.full((8, 8), -1.0), jnp.full((8, 8), 1.0).at[:4].set(-1.0)])[None]
    mask = attention_mask(logits, (4, 4))
    assert mask[0, 0].all()
    np.testing.assert_array_equal(mask[0, 1].reshape(4, 4)[:, 0], [False, False, True, True])


def test_a_probability_of_one_half_is_inside():
    """The released code masks sigmoid < 0.5, so a logit of exactly 0 is looked at."""
    logits = jnp.full((1, 1, 4, 4), -1.0).at[0, 0, 0, 0].set(0.0)
    assert attention_mask(logits, (4, 4))[0, 0].sum() == 1


def test_no_gradient_passes_through_the_mask():
    logits = jax.random.normal(jax.random.key(0), (1, 2, 8, 8))
    gradient = jax.grad(lambda x: attention_mask(x, (4, 4)).astype(jnp.float32).sum())(logits)
    np.testing.assert_array_equal(gradient, 0)


def test_position_encoding_equals_its_formula():
    """DETR: y in the first half, sine and cosine in turn, positions 1..n scaled to 2 pi, temperature 10000."""
    height, width, dim = 3, 5, 8
    encoding = sine_position_encoding(height, width, dim).reshape(height, width, dim)
    for row, column, channel in np.ndindex(height, width, dim):
        position, size = ((row + 1), height) if channel < dim // 2 else ((column + 1), width)
        number = channel % (dim // 2)
        angle = position / (size + 1e-6) * 2 * np.pi / 10000 ** (2 * (number // 2) / (dim // 2))
        wanted = np.sin(angle) if number % 2 == 0 else np.cos(angle)
        assert abs(encoding[row, column, channel] - wanted) < 1e-6
