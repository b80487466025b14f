"""BEiT's relative position bias against the index table of the released code; attention in blocks against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.models.encoders import relative_attention


def index_table(height, width):
    """relative_position_index as beit.py builds it: rows of the bias table for every (query, key)."""
    tokens = height * width
    rows = (2 * height - 1) * (2 * width - 1) + 3
    index = np.zeros((tokens + 1, tokens + 1), int)
    for q in range(tokens):
        for k in range(tokens):
            dy, dx = q // width - k // width + height - 1, q % width - k % width + width - 1
            index[q + 1, k + 1] = dy * (2 * width - 1) + dx
    index[0, :] = rows - 3
    index[:, 0] = rows - 2
    index[0, 0] = rows - 1
    return index


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (2, 5), (6, 4)])
def test_bias_picks_the_released_codes_rows(window):
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) + 3
    table = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    bias = relative_attention.relative_position_bias(jnp.asarray(table), window)
    np.testing.assert_array_equal(bias, table[index_table(*window)].transpose(2, 0, 1))


def test_gradient_of_the_bias_counts_every_use():
    window, rows = (3, 4), 5 * 7 + 3
    gradient = jax.grad(lambda table: relative_attention.relative_position_bias(table, window).sum())(
        jnp.zeros((rows, 1))
    )
    np.testing.assert_array_equal(gradient[:, 0], np.bincount(index_table(*window).ravel(), minlength=rows))


HEADS, DIM, IMAGES = 2, 4, 2


def inputs(window):
    """Query, key, value and table."""
    rng = np.random.default_rng(0)
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) + 3
    tokens = [rng.normal(size=(IMAGES, window[0] * window[1] + 1, HEADS, DIM)) for _ in range(3)]
    return [x.astype(np.float32) for x in (*tokens, rng.normal(size=(rows, HEADS)))]


def reference(query, key, value, table, window):
    """softmax(q k / sqrt(D) + bias) v in float64."""
    query, key, value, table = (x.astype(np.float64) for x in (query, key, value, table))
    logits = np.einsum("nqgd,nkgd->ngqk", query, key) / np.sqrt(DIM) + table[index_table(*window)].transpose(2, 0, 1)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.einsum("ngqk,nkgd->nqgd", weights / weights.sum(axis=-1, keepdims=True), value)


# Blocks that divide the rows, a last block of fewer rows, one row a block, one block of all, windows of one row.
@pytest.mark.parametrize(
    ("window", "rows"), [((4, 4), 2), ((5, 3), 2), ((3, 5), 1), ((7, 2), 4), ((3, 2), 3), ((1, 5), 1), ((5, 1), 3)]
)
def test_attention_in_blocks(window, rows):
    arguments = inputs(window)
    wanted = reference(*arguments, window)
    direction = np.random.default_rng(1).normal(size=wanted.shape).astype(np.float32)

    def results(form, *options):
        def run(*arguments):
            output = form(*arguments, window, *options)
            return (output * direction).sum(), output

        gradients, output = jax.jit(jax.grad(run, argnums=(0, 1, 2, 3), has_aux=True))(*arguments)
        return output, *gradients

    plain = results(relative_attention.plain_attention)
    blocks = results(relative_attention.blockwise_attention, rows)
    np.testing.assert_allclose(plain[0], wanted, atol=1e-5)
    np.testing.assert_allclose(blocks[0], wanted, atol=1e-5)
    for found, expected in zip(blocks[1:], plain[1:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_stays_bfloat16():
    window = (4, 3)
    arguments = [jnp.asarray(x, jnp.bfloat16) for x in inputs(window)[:3]] + inputs(window)[3:]
    output = relative_attention.blockwise_attention(*arguments, window, 3)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(output.astype(np.float32), reference(*inputs(window), window), atol=0.05)


@pytest.mark.parametrize(
    ("window", "heads", "rows"), [((14, 14), 16, None), ((30, 30), 16, 15), ((56, 56), 16, 2), ((400, 400), 16, 1)]
)
def test_blocks_are_as_large_as_memory_allows(window, heads, rows):
    assert relative_attention.block_rows(window, heads) == rows


def test_large_windows_are_attended_in_blocks(monkeypatch):
    window = (5, 4)
    monkeypatch.setattr(relative_attention, "BLOCK_LOGITS", 2 * 2 * 4 * 21)
    arguments = inputs(window)
    jaxpr = str(jax.make_jaxpr(lambda *x: relative_attention.attention(*x, window))(*arguments))
    assert "21,21" not in jaxpr
    np.testing.assert_allclose(
        relative_attention.attention(*arguments, window), reference(*arguments, window), atol=1e-5
    )
