"""BEiT's relative position bias against the index table of the released code; the attention's forms against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import ad_checkpoint

from vspw_jax.models import attention, attention_kernel
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


def results(form, arguments, window, *options):
    """(output, gradients by query, key, value and table) of a form; the output is weighed by drawn numbers."""
    direction = np.random.default_rng(1).normal(size=arguments[0].shape).astype(np.float32)

    def run(*arguments):
        output = form(*arguments, window, *options)
        return (output * direction).sum(), output

    gradients, output = jax.jit(jax.grad(run, argnums=(0, 1, 2, 3), has_aux=True))(*arguments)
    return output, *gradients


def assert_equal(form, window, *options):
    """A form gives what float64 gives, and the gradients of the plain form, which does too."""
    arguments = inputs(window)
    plain = results(relative_attention.plain_attention, arguments, window)
    found = results(form, arguments, window, *options)
    wanted = reference(*arguments, window)
    np.testing.assert_allclose(plain[0], wanted, atol=1e-5)
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)
    for gradient, expected in zip(found[1:], plain[1:], strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


# Blocks that divide the rows, a last block of fewer rows, one row a block, one block of all, windows of one row.
@pytest.mark.parametrize(
    ("window", "rows"), [((4, 4), 2), ((5, 3), 2), ((3, 5), 1), ((7, 2), 4), ((3, 2), 3), ((1, 5), 1), ((5, 1), 3)]
)
def test_attention_in_blocks(window, rows):
    assert_equal(relative_attention.blockwise_attention, window, rows)


on_tpus = pytest.mark.parametrize("platform", ["tpu"], indirect=True)


# Rows of 32, 64 and 96 keys, of which 4, 2 and 4 fill tiles; rows of padding; in the last rows three tiles a step.
@on_tpus
@pytest.mark.parametrize("window", [(1, 1), (1, 5), (5, 3), (4, 2), (3, 33), (5, 65), (2, 100)])
def test_attention_by_kernel(platform, window):
    assert_equal(relative_attention.attention, window)


@on_tpus
def test_kernel_attends_few_heads_at_a_time(platform, monkeypatch):
    monkeypatch.setitem(globals(), "HEADS", 4)
    monkeypatch.setitem(globals(), "DIM", 64)
    assert attention_kernel.Grid(5, 3, HEADS, DIM).together == 2
    assert_equal(relative_attention.attention, (5, 3))


@on_tpus
def test_kernel_in_bfloat16(platform):
    window = (5, 3)
    arguments = inputs(window)
    wanted = results(relative_attention.plain_attention, arguments, window)
    found = results(
        relative_attention.attention, [*(jnp.asarray(x, jnp.bfloat16) for x in arguments[:3]), arguments[3]], window
    )
    assert [x.dtype for x in found] == [jnp.bfloat16] * 4 + [jnp.float32]
    for result, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(result.astype(np.float32), expected, atol=0.02 * np.abs(expected).max())


@on_tpus
def test_kernel_in_a_loop_of_layers_on_two_devices(platform):
    """As the encoders have it: images on several devices, layers in a scan, each rematerialised."""
    window = (5, 3)
    x, _, _, table = inputs(window)
    tables = np.stack([table, 2 * table])

    def gradient(form, x, tables):
        layer = jax.checkpoint(lambda x, table: (form(x, x, x, table, window), None))
        return jax.grad(lambda tables: (jax.lax.scan(layer, x, tables)[0] ** 2).sum())(tables)

    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    mapped = jax.shard_map(
        lambda *x: jax.lax.psum(gradient(relative_attention.attention, *x), "data"),
        mesh=mesh,
        in_specs=(jax.P("data"), jax.P()),
        out_specs=jax.P(),
        check_vma=False,
    )
    wanted = gradient(relative_attention.plain_attention, x, tables)
    np.testing.assert_allclose(jax.jit(mapped)(x, tables), wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("window", "heads", "channels", "fits"),
    [
        ((30, 30), 16, 64, True),
        ((56, 56), 16, 64, True),
        ((80, 80), 16, 64, False),
        ((30, 30), 16, 48, False),
        ((14, 14), 3, 64, False),
        ((4, 4), 2, 4, True),
    ],
)
def test_kernel_attends_where_heads_fill_tiles_and_memory_is_enough(window, heads, channels, fits):
    assert attention_kernel.fits(window, heads, channels) == fits


@pytest.fixture
def given_to_cudnn(monkeypatch):
    """Shapes of the queries and biases that cuDNN is given, while XLA multiplies in its place."""
    attend, given = jax.nn.dot_product_attention, []

    def by_xla(query, key, value, bias=None, implementation=None):
        if implementation == "cudnn":
            given.append((query.shape, None if bias is None else bias.shape))
        return attend(query, key, value, bias=bias)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    return given


@pytest.mark.parametrize(("window", "even"), [((4, 3), 14), ((3, 5), 16), ((1, 1), 2)])
def test_attention_by_cudnn_has_an_even_number_of_tokens(given_to_cudnn, window, even):
    assert_equal(relative_attention.attention_by_cudnn, window)
    assert set(given_to_cudnn) == {((IMAGES, even, HEADS, DIM), (1, HEADS, even, even))}


def test_cudnn_attends_once_and_the_backward_pass_makes_the_bias_again(monkeypatch, capsys):
    """Only traced: the kernels themselves need a GPU."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91500)
    window = (4, 3)
    heads = [jax.ShapeDtypeStruct((IMAGES, 13, HEADS, 8), jnp.bfloat16)] * 3
    arguments = [*heads, jax.ShapeDtypeStruct((relative_attention.num_rows(window), HEADS), jnp.float32)]
    loss = lambda *x: relative_attention.attention_by_cudnn(*x, window).astype(jnp.float32).sum()
    jaxpr = str(jax.make_jaxpr(jax.grad(loss, (0, 1, 2, 3)))(*arguments))
    assert jaxpr.count(f"{attention.FORWARD}[") == jaxpr.count(f"{attention.BACKWARD}[") == 1
    ad_checkpoint.print_saved_residuals(loss, *arguments)
    kept = capsys.readouterr().out
    assert "14,14]" not in kept, kept
    assert f"f32[{IMAGES},{HEADS},14]" in kept, kept


@pytest.mark.parametrize(
    ("capability", "dtype", "channels", "fused"),
    [
        (9.0, "bfloat16", 64, True),
        (8.0, "bfloat16", 88, True),
        (7.5, "bfloat16", 64, False),
        (0.0, "bfloat16", 64, False),
        (9.0, "float32", 64, False),
        (9.0, "bfloat16", 4, False),
        (9.0, "bfloat16", 136, False),
    ],
)
def test_cudnn_attends_what_it_can(given_to_cudnn, monkeypatch, capability, dtype, channels, fused):
    monkeypatch.setattr(attention, "compute_capability", lambda: capability)
    window = (4, 3)
    heads = [jax.ShapeDtypeStruct((IMAGES, 13, HEADS, channels), dtype)] * 3
    table = jax.ShapeDtypeStruct((relative_attention.num_rows(window), HEADS), jnp.float32)
    jax.eval_shape(lambda *x: relative_attention.attention(*x, window), *heads, table)
    jax.eval_shape(attention.softmax_attention, *heads)
    wanted = [((IMAGES, 14, HEADS, channels), (1, HEADS, 14, 14)), ((IMAGES, 13, HEADS, channels), None)]
    assert given_to_cudnn == (wanted if fused else [])


def test_a_cpu_has_no_compute_capability():
    assert attention.compute_capability() == 0


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
