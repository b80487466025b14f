"""What tests of parity with PyTorch share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from vspw_jax.models import segmenter
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import supervised
from vspw_jax.training import train_state


def relative_error(ours, theirs):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def channels_first(image_NHWC):
    """Images as a PyTorch tensor."""
    import torch  # Users' tests load without it.

    return torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())


def channels_last(tensor):
    return tensor.numpy().transpose(0, 2, 3, 1)


def draw(model, seed=0):
    """Random weights that keep the size of what they pass, and random running statistics."""
    import torch  # Users' tests load without it.

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith(("running_var", "weight")):
                tensor.copy_(1 + 0.2 * noise.clamp(-3, 3))
            elif tensor.is_floating_point():
                tensor.copy_(0.5 * noise)
    return model


def fill(arrays, rows, tensors):
    """Writes tensors into our arrays, a dict by path, as the rows say."""
    for row in rows:
        place = row.view(arrays[row.ours])
        assert place.shape == tensors[row.theirs].shape, row
        place[...] = tensors[row.theirs]


def filled(trees, rows, tensors):
    """Arrays by path, of the shapes of some trees, filled with tensors; every one is."""
    arrays = {}
    for tree in trees:
        placement.map_with_path(lambda path, leaf: arrays.__setitem__(path, np.full(leaf.shape, np.nan)), tree)
    fill(arrays, rows, tensors)
    assert not [path for path, array in arrays.items() if np.isnan(array).any()]
    return arrays


def largest_error(ours, rows, tensors):
    """The largest relative error of a tree against tensors in PyTorch's names."""
    expected, errors = {}, {}
    placement.map_with_path(lambda path, leaf: expected.__setitem__(path, np.zeros(leaf.shape)), ours)
    fill(expected, [row for row in rows if row.theirs in tensors], tensors)
    placement.map_with_path(lambda path, leaf: errors.__setitem__(path, relative_error(leaf, expected[path])), ours)
    return max(errors.values())


def loaded(config, rows, tensors):
    """(graphdef, params, model_state) in float64, filled with tensors."""
    graphdef, *shapes = train_state.describe(config)
    arrays = filled(shapes, rows, tensors)
    as_array = lambda path, leaf: jnp.asarray(arrays[path], None if leaf.dtype == np.float32 else leaf.dtype)
    return graphdef, *(placement.map_with_path(as_array, tree) for tree in shapes)


def encoder_rows(kind, naming, config, names):
    """Rows of an encoder's class in a kind of file, whose paths are those in the encoder."""
    rows = kind.TORCH_NAMES[naming].rows("encoder", "", config, names)
    return [dataclasses.replace(row, ours=row.ours.removeprefix("encoder/")) for row in rows]


def load_part(make, rows, theirs, dtype):
    """(graphdef, params, statistics) of the encoder or decoder that make() gives, with a module's weights."""
    graphdef, *shapes = jax.eval_shape(lambda: nnx.split(make(), nnx.Param, ...))
    shapes = [nnx.to_pure_dict(tree) for tree in shapes]
    arrays = filled(shapes, rows, {name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    kind = lambda leaf: dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype
    as_type = lambda path, leaf: jnp.asarray(arrays[path], kind(leaf))
    return graphdef, *(placement.map_with_path(as_type, tree) for tree in shapes)


def encoder_in_training(state, image, weights):
    """`weighted_gradients` of an encoder's maps in training."""
    return weighted_gradients(state, image, weights, lambda encoder, image: encoder(image, train=True))


def weighted_gradients(state, x, weights, run):
    """((gradients of parameters and of x), (outputs, statistics afterwards)) of the outputs' weighted means.

    run(part, x) gives the outputs, each with channels last, of the encoder or decoder of a state.
    """
    graphdef, params, statistics = state

    def loss(params, x):
        part = nnx.merge(graphdef, params, statistics)
        outputs = run(part, x)
        value = sum((x * weight).mean() for x, weight in zip(outputs, weights, strict=True))
        return value, (outputs, nnx.to_pure_dict(nnx.state(part, nnx.BatchStat)))

    mapped = jax.shard_map(
        lambda params, x: jax.grad(loss, (0, 1), has_aux=True)(params, x),
        mesh=make_mesh(devices=jax.devices()[:1]),
        in_specs=(P(), P()),
        out_specs=P(),
        check_vma=False,
    )
    return jax.jit(mapped)(params, x)


def training_gradients(config, state, batch):
    """Loss and gradients by parameter path, batch norms in training, as a training step takes them."""
    graphdef, params, model_state = state

    def loss(params):
        model = nnx.merge(graphdef, params, model_state)
        outputs = model(batch["image_BTHWC"], train=True)
        decoder_loss = segmenter.decoder_of(config.model).SEGMENTATION_LOSS
        terms = supervised.clip_losses(outputs, batch, None, 0, decoder_loss, config.loss)
        return sum(terms.values())

    mesh = make_mesh(devices=jax.devices()[:1])
    mapped = jax.shard_map(
        lambda params: jax.value_and_grad(loss)(params), mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False
    )
    return jax.jit(mapped)(params)


def assert_same_maps(ours, theirs, sizes, allowed):
    """Of our encoder and a PyTorch module in evaluation, of drawn images of some sizes."""
    import torch  # Users' tests load without it.

    graphdef, state = nnx.split(ours)
    run = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image))
    for size in sizes:
        image = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
        with torch.no_grad():
            expected = theirs.eval()(channels_first(image))
        for x, wanted in zip(run(state, image), expected, strict=True):
            assert relative_error(x, channels_last(wanted)) < allowed


def checked_gradients(ours, theirs, size, allowed, *, their_maps=None, compared=slice(None), train=False):
    """Gradients of our parameters, where maps and the gradient of a drawn image are those of a PyTorch module.

    For encoders without batch norms, or in evaluation; else there is `encoder_in_training`.

    Args:
      allowed: relative errors of maps and of gradients.
      their_maps: of their module and an image, channels first; by default what the module gives.
      compared: which of our maps those are.
      train: whether both are in training.

    Returns:
      A tree; the gradients of their parameters are left at them.
    """
    import torch  # Users' tests load without it.

    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *size, 3)).astype(np.float32)
    their_image = channels_first(image).requires_grad_()
    theirs.train(train).zero_grad()
    wanted = (their_maps or (lambda module, image: module(image)))(theirs, their_image)
    weights = [rng.normal(size=x.shape[1]).astype(np.float32) for x in wanted]
    sum((x * torch.from_numpy(w)[:, None, None]).mean() for x, w in zip(wanted, weights, strict=True)).backward()
    theirs.eval()
    graphdef, params, others = nnx.split(ours, nnx.Param, ...)

    def total(params, image):
        maps = nnx.merge(graphdef, params, others)(image, train=train)[compared]
        return sum((x * weight).mean() for x, weight in zip(maps, weights, strict=True)), maps

    compute = jax.jit(jax.grad(total, (0, 1), has_aux=True))
    (gradients, of_image), maps = compute(nnx.to_pure_dict(params), image)
    for x, expected in zip(maps, wanted, strict=True):
        assert relative_error(x, channels_last(expected.detach())) < allowed[0]
    assert relative_error(of_image, channels_last(their_image.grad)) < allowed[1]
    return gradients
