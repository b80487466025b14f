"""Deformable sampling against torch's grid_sample, inside the maps, at their borders and off them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.models.deformable_attention import sample_every_head
from vspw_jax.sampling import deformable_kernel

torch = pytest.importorskip("torch")

HEADS, POINTS, DIM, QUERIES = 2, 3, 4, 6
THREE = ((6, 3), (3, 5), (1, 2))


def reference(value, shapes, locations, weights):
    """One grid_sample a level (Deformable DETR, equation 3); tensors of one image, a head at a time as a batch."""
    samples, start = [], 0
    for level, (height, width) in enumerate(shapes):
        tokens = value[start : start + height * width]
        grid = 2 * locations[:, :, level].transpose(0, 1) - 1
        maps = tokens.permute(1, 2, 0).reshape(HEADS, DIM, height, width)
        samples.append(torch.nn.functional.grid_sample(maps, grid, align_corners=False))
        start += height * width
    return torch.einsum("gdqvp,qgvp->qgd", torch.stack(samples, dim=3), weights)


def places(kind, shapes):
    """Locations (Q, G, V, P, 2) in float64."""
    rng = np.random.default_rng(0)
    shape = (QUERIES, HEADS, len(shapes), POINTS, 2)
    if kind == "border":  # On the outer edges, half a cell inside and outside, and on lines between cells.
        cells = rng.integers(-1, 4, shape) / 2
        return cells / np.array([(width, height) for height, width in shapes])[:, None]
    low, high = {"inside": (0, 1), "off": (-0.6, 1.6), "far": (-30, 30)}[kind]
    return rng.uniform(low, high, shape)


@pytest.mark.parametrize(
    ("platform", "shapes"),
    [("cpu", ((4, 4),)), ("cpu", THREE), ("tpu", THREE)],
    ids=["square", "three levels", "three levels by the kernel"],
)
@pytest.mark.parametrize("kind", ["inside", "border", "off", "far"])
def test_equals_grid_sample(kind, shapes, platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    interpreted = functools.partial(deformable_kernel.sample_and_sum, interpret=True)
    monkeypatch.setattr(deformable_kernel, "sample_and_sum", interpreted)
    rng = np.random.default_rng(1)
    value = rng.normal(size=(sum(height * width for height, width in shapes), HEADS, DIM)).astype(np.float32)
    locations = places(kind, shapes).astype(np.float32)
    weights = rng.uniform(size=locations.shape[:-1]).astype(np.float32)
    direction = rng.normal(size=(QUERIES, HEADS, DIM)).astype(np.float32)

    tensors = [torch.tensor(x, requires_grad=True) for x in (value, locations, weights)]
    wanted = reference(tensors[0], shapes, *tensors[1:])
    (wanted * torch.tensor(direction)).sum().backward()

    def loss(value, locations, weights):
        output = sample_every_head(value[None], shapes, locations[None], weights[None])[0]
        return (output * direction).sum(), output

    gradients, output = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*map(jnp.asarray, (value, locations, weights)))
    np.testing.assert_allclose(output, wanted.detach(), atol=1e-5)
    for number, (found, tensor) in enumerate(zip(gradients, tensors, strict=True)):
        # On a line between cells the bilinear form has a corner, and either slope is right.
        if not (kind == "border" and number == 1):
            np.testing.assert_allclose(found, tensor.grad, rtol=1e-5, atol=1e-5)
