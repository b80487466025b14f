"""The memory's attention against a PyTorch module in float64, written from equations 5 and 6: values and gradients."""

import jax
import numpy as np
import pytest
from flax import nnx

from vspw_jax.models.temporal.memory_attention import MemoryAttention
from vspw_jax.parallel import placement

torch = pytest.importorskip("torch")

DIM, SHAPE = 12, (2, 12, 5, 7)
TOLERANCE = 1e-5
LAYERS = {"query/0": "q.0", "query/1": "q.1", "key/0": "k.0", "key/1": "k.1", "value": "v", "out": "o"}


def conv(channels_in, channels_out):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels_in, channels_out, 1, bias=False), torch.nn.BatchNorm2d(channels_out), torch.nn.ReLU()
    )


class Equations(torch.nn.Module):
    """O = softmax(g_q(R) g_k(C')^T / sqrt(C/2)); C_bi = g_o(O g_v(C'))."""

    def __init__(self):
        super().__init__()
        half = DIM // 2
        self.q, self.k = (torch.nn.Sequential(conv(DIM, half), conv(half, half)) for _ in range(2))
        self.v, self.o = conv(DIM, half), conv(half, DIM)

    def forward(self, features, recalled):
        q, k, v = (g(x).flatten(2) for g, x in ((self.q, features), (self.k, recalled), (self.v, recalled)))
        o = torch.softmax(q.transpose(1, 2) @ k / (DIM / 2) ** 0.5, dim=-1)
        return self.o((o @ v.transpose(1, 2)).transpose(1, 2).reshape(features.shape[0], DIM // 2, *features.shape[2:]))


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("remat", ["none", "full"])
def test_values_and_gradients(remat):
    torch.manual_seed(0)
    theirs = Equations().double().eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith("1.bias"):
            torch.nn.init.normal_(parameter, 0.0, 0.2)
        elif parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    inputs = [torch.randn(SHAPE, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    weight = torch.randn(SHAPE, dtype=torch.float64)
    output = theirs(*inputs)
    (output * weight).sum().backward()

    module = MemoryAttention(DIM, remat, dtype=np.float32, rngs=nnx.Rngs(params=jax.random.key(0)))
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    named = dict(theirs.named_parameters())
    kinds = {"conv/kernel": "0.weight", "norm/scale": "1.weight", "norm/bias": "1.bias"}

    def value(path, tensors):
        name = next(name for name in LAYERS if path.startswith(name))
        array = tensors[f"{LAYERS[name]}.{kinds[path.removeprefix(f'{name}/')]}"].detach().numpy().astype(np.float32)
        return array[..., 0, 0].T if array.ndim == 4 else array

    last = lambda x: x.detach().numpy().astype(np.float32).transpose(0, 2, 3, 1)
    params = placement.map_with_path(lambda path, _: value(path, named), nnx.to_pure_dict(params))

    def loss(params, *inputs):
        output = nnx.merge(graphdef, params, rest)(*inputs, train=False)
        return (output * last(weight)).sum(), output

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    (of_params, *of_inputs), ours = gradient(params, *map(last, inputs))
    assert relative_error(ours, last(output)) < TOLERANCE
    for found, given in zip(of_inputs, inputs, strict=True):
        assert relative_error(found, last(given.grad)) < TOLERANCE
    gradients = {name: parameter.grad for name, parameter in named.items()}
    placement.map_with_path(
        lambda path, found: pytest.fail(path) if relative_error(found, value(path, gradients)) > TOLERANCE else None,
        of_params,
    )
