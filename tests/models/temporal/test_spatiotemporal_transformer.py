"""The spatial-temporal transformer against PyTorch in float64: values, and gradients of everything.

The reference knows no windows: all cells of a clip attend to all, but for pairs that lie in different windows. Cell p
is in window floor((p - shift) / window) along each axis, so nothing is padded and nothing is rolled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vspw_jax.models.temporal import window_attention_3d
from vspw_jax.models.temporal.spatiotemporal_transformer import SpatiotemporalTransformer

torch = pytest.importorskip("torch")

CLIPS, DIM, HEADS = 2, 6, 2
FORWARD, GRADIENT = 1e-5, 1e-4
CASES = {
    "no window divides a side": ((3, 5, 7), (2, 3, 4)),
    "one window covers all": ((2, 3, 5), (4, 7, 6)),
    "one window covers time": ((3, 5, 4), (3, 2, 4)),
}
"""Sizes of clips and of windows, in frames, rows and columns."""


def relative_error(ours, theirs):
    theirs = theirs.detach().numpy()
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def linear(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def normed(x, layer):
    return torch.nn.functional.layer_norm(x, (DIM,), layer["scale"], layer["bias"], 1e-5)


def attention(x, layer, window, shift):
    """Full attention of (N, T, H, W, C), masked by windows, with the bias of each pair's offset."""
    size = x.shape[1:4]
    shift = [0 if side <= cells else by for side, cells, by in zip(size, window, shift, strict=True)]
    place = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1).reshape(-1, 3)
    number = np.floor((place - np.array(shift)) / window)
    together = torch.from_numpy((number[:, None] == number[None]).all(axis=-1))
    dt, dy, dx = np.moveaxis(place[:, None] - place[None] + np.array(window) - 1, -1, 0)
    row = (dt * (2 * window[1] - 1) + dy) * (2 * window[2] - 1) + dx
    bias = layer["relative_position_bias_table"][torch.from_numpy(row * together.numpy())]
    qkv = linear(x.reshape(CLIPS, -1, DIM), layer["qkv"]).reshape(CLIPS, -1, 3, HEADS, DIM // HEADS)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    logits = query @ key.transpose(-1, -2) * (DIM // HEADS) ** -0.5 + bias.permute(2, 0, 1)
    weights = torch.softmax(logits.masked_fill(~together, -torch.inf), dim=-1)
    return linear((weights @ value).transpose(1, 2).reshape(x.shape), layer["proj"])


def mix_ffn(x, layer):
    hidden = linear(x, layer["fc1"])
    frames = hidden.reshape(-1, *hidden.shape[2:]).permute(0, 3, 1, 2)
    kernel = layer["depthwise"]["kernel"].permute(3, 2, 0, 1)
    mixed = torch.nn.functional.conv2d(frames, kernel, layer["depthwise"]["bias"], padding=1, groups=len(kernel))
    return linear(torch.nn.functional.gelu(mixed.permute(0, 2, 3, 1).reshape(hidden.shape)), layer["fc2"])


def transformer(x, params, window):
    """What the last frame becomes; the second block is shifted by half a window."""
    for number, block in params["blocks"].items():
        shift = [cells // 2 * (number % 2) for cells in window]
        x = x + attention(normed(x, block["norm1"]), block["attn"], window, shift)
        x = x + mix_ffn(normed(x, block["norm2"]), block["mlp"])
    return x[:, -1]


def options():
    return dict(dtype=jnp.float32, rngs=nnx.Rngs(params=jax.random.key(0)))


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_against_full_attention_in_torch(case):
    size, window = CASES[case]
    make = lambda: SpatiotemporalTransformer(DIM, HEADS, window, 2, True, 1.5, "full", **options())
    graphdef, params = nnx.split(nnx.eval_shape(make), nnx.Param)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), nnx.to_pure_dict(params))
    x, weights = rng.normal(size=(2, CLIPS, *size, DIM)).astype(np.float32)

    def loss(params, x_NTHWC):
        output = nnx.merge(graphdef, params)(x_NTHWC)
        return (output * weights[:, -1]).sum(), output

    gradients, ours = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    theirs = jax.tree.map(lambda x: torch.from_numpy(x).double().requires_grad_(), (params, x))
    output = transformer(theirs[1], theirs[0], window)
    (output * torch.from_numpy(weights[:, -1])).sum().backward()
    assert relative_error(ours, output) < FORWARD
    errors = jax.tree.map(lambda ours, theirs: relative_error(ours, theirs.grad), gradients, theirs)
    assert max(jax.tree.leaves(errors)) < GRADIENT


def test_a_cell_alone_in_its_window_sees_itself_alone():
    """The last window of this clip holds one cell and seven that pad it."""
    size, window = (3, 5, 5), (2, 2, 2)
    module = window_attention_3d.WindowAttention3d(DIM, HEADS, window, (0, 0, 0), **options())
    seen = np.asarray(window_attention_3d.seen_cells(size, window, (0, 0, 0)))
    assert seen.shape == (2 * 3 * 3, 8, 8) and (seen.sum(axis=2)[[0, -1]] == np.array([[8], [1]])).all()
    x = jax.random.normal(jax.random.key(1), (1, *size, DIM))
    values = jnp.split(module.qkv(x[:, 2:, 4:, 4:]), 3, axis=-1)[2]
    np.testing.assert_allclose(module(x, last=1)[:, :, 4:, 4:], module.proj(values), atol=1e-6)
