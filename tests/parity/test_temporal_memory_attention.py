"""Temporal memory attention against a PyTorch module in float64: values, gradients, frame by frame."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vspw_jax.models.temporal.temporal_memory_attention import (
    TemporalMemoryAttention,
    chosen,
    drawn_before,
    frames_before,
)
from vspw_jax.parallel import placement

torch = pytest.importorskip("torch")

DIM, KEY, VALUE, PAST = 6, 4, 5, 2
CLIPS, FRAMES, HEIGHT, WIDTH = 2, 4, 3, 5
TOLERANCE = 1e-5


def conv(channels_in, channels_out, size):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=False),
        torch.nn.BatchNorm2d(channels_out),
        torch.nn.ReLU(),
    )


class Equations(torch.nn.Module):
    """A frame's values, and those of the past, read by softmax(Q K^T) over all their pixels; a layer of its own for
    each place in the past."""

    def __init__(self):
        super().__init__()
        stack = lambda width: torch.nn.Sequential(conv(DIM, width, 1), conv(width, width, 3))
        self.query_key, self.query_value = stack(KEY), stack(VALUE)
        self.memory_key, self.memory_value = (
            torch.nn.ModuleList([stack(width) for _ in range(PAST)]) for width in (KEY, VALUE)
        )
        self.bottleneck = conv(2 * VALUE, DIM, 3)

    def forward(self, video):
        """(B, T, C, H, W) to the same shape; before the first frame stands the first frame."""
        outputs = []
        for t in range(video.shape[1]):
            past = [video[:, max(t - PAST + place, 0)] for place in range(PAST)]
            keys = torch.cat([f(x).flatten(2) for f, x in zip(self.memory_key, past, strict=True)], dim=2)
            values = torch.cat([f(x).flatten(2) for f, x in zip(self.memory_value, past, strict=True)], dim=2)
            query, own = self.query_key(video[:, t]).flatten(2), self.query_value(video[:, t])
            weights = torch.softmax(query.transpose(1, 2) @ keys, dim=-1)
            read = (weights @ values.transpose(1, 2)).transpose(1, 2).reshape(own.shape)
            outputs.append(self.bottleneck(torch.cat([own, read], dim=1)))
        return torch.stack(outputs, dim=1)


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def last(x):
    """Channels of (B, T, C, H, W) last, clips and frames in one axis."""
    return x.detach().numpy().astype(np.float32).transpose(0, 1, 3, 4, 2).reshape(-1, HEIGHT, WIDTH, x.shape[2])


def value(path, tensors):
    """Of the tensor that a parameter's path means, in our axes."""
    layer, _, kind = path.rpartition("/conv/") if path.endswith("kernel") else path.rpartition("/norm/")
    number = {"kernel": "0.weight", "scale": "1.weight", "bias": "1.bias"}[kind]
    array = tensors[f"{layer.replace('/', '.')}.{number}"].detach().numpy().astype(np.float32)
    if array.ndim < 4:
        return array
    return array[..., 0, 0].T if array.shape[-1] == 1 else array.transpose(2, 3, 1, 0)


@pytest.fixture(scope="module")
def pair():
    """(the module's parts, its parameters, their module with gradients, the video, their output, its weights)."""
    torch.manual_seed(0)
    theirs = Equations().double().eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith("1.bias"):
            torch.nn.init.normal_(parameter, 0.0, 0.2)
        elif parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    video = torch.randn(CLIPS, FRAMES, DIM, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    output, weights = theirs(video), torch.randn(video.shape, dtype=torch.float64)
    (output * weights).sum().backward()
    make = lambda: TemporalMemoryAttention(
        DIM, DIM, PAST, KEY, VALUE, "full", dtype=jnp.float32, rngs=nnx.Rngs(params=jax.random.key(0))
    )
    graphdef, params, rest = nnx.split(make(), nnx.Param, ...)
    named = dict(theirs.named_parameters())
    params = placement.map_with_path(lambda path, _: value(path, named), nnx.to_pure_dict(params))
    return (graphdef, rest), params, named, video, output, weights


def test_values_and_gradients_of_clips(pair):
    (graphdef, rest), params, named, video, theirs, weights = pair

    numbers_BQP = jnp.broadcast_to(frames_before(FRAMES, PAST), (CLIPS, FRAMES, PAST))

    def loss(params, x_NHWC):
        output = nnx.merge(graphdef, params, rest).in_clips(x_NHWC, numbers_BQP, train=False)
        return (output * last(weights)).sum(), output

    (of_params, of_video), ours = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, last(video))
    assert relative_error(ours, last(theirs)) < TOLERANCE
    assert relative_error(of_video, last(video.grad)) < TOLERANCE
    gradients = {name: parameter.grad for name, parameter in named.items()}
    errors = placement.map_with_path(lambda path, x: relative_error(x, value(path, gradients)), of_params)
    assert max(jax.tree.leaves(errors)) < TOLERANCE


def test_frame_by_frame_is_the_same(pair):
    """The second view begins two frames later than the first, in the same calls."""
    (graphdef, rest), params, _, video, theirs, _ = pair
    module = nnx.merge(graphdef, params, rest)
    frames, expected = (last(x).reshape(CLIPS, FRAMES, HEIGHT, WIDTH, DIM) for x in (video, theirs))
    queues, step = module.no_past(frames[:, 0]), jax.jit(module.next_frame)
    assert [queue.shape[1] for queue, _ in queues] == [2, 1]
    for t in range(FRAMES + 2):
        shown = np.stack([frames[0, min(t, 3)], frames[1, max(t - 2, 0)]])
        output, queues = step(shown, queues, np.array([t == 0, t in (0, 2)]))
        for view, number in ((0, t), (1, t - 2)):
            if 0 <= number < FRAMES:
                assert relative_error(output[view], expected[view, number]) < TOLERANCE


def test_the_first_frame_of_a_clip_is_repeated():
    np.testing.assert_array_equal(frames_before(4, 2), [[0, 0], [0, 0], [0, 1], [1, 2]])
    np.testing.assert_array_equal(frames_before(4, 2, first=2), [[0, 1], [1, 2]])
    x = jnp.arange(6.0).reshape(6, 1, 1, 1)
    np.testing.assert_array_equal(chosen(x, jnp.asarray([[0, 2], [1, 1]])).ravel(), [0, 2, 4, 4])


def test_drawn_frames_come_before_each_once_and_equally_often():
    keys_BQ = jax.random.split(jax.random.key(0), (1000, 2))
    drawn = np.asarray(drawn_before(keys_BQ, 5, 2))
    assert drawn.shape == (1000, 2, 2) and (drawn[..., 0] < drawn[..., 1]).all()
    for last, before in ((0, 3), (1, 4)):
        assert set(drawn[:, last].ravel()) == set(range(before))
        share = np.bincount(drawn[:, last].ravel()) / 1000
        np.testing.assert_allclose(share, 2 / before, atol=0.06)
