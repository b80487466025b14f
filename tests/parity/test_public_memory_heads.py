"""The decoders TMANet and MCIBI against PyTorch's operators in float64, by the names of tensors in their files.

Weights are drawn and written by us; what the tensors of these names do is written here as the papers and codes have it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import mcibi, tmanet
from tests.interop.conftest import drawn, tiny_of_resnet
from vspw_jax.interop import convert, namings

torch = pytest.importorskip("torch")

FRAMES = 4
TOLERANCE = 1e-5


def network(recipe):
    """(decoder, its weights), random: matrices keep the size of what they pass."""
    model = drawn(tiny_of_resnet(recipe))
    state = nnx.to_pure_dict(nnx.state(model.decoder))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if leaf.dtype != np.float32:
            return jnp.ones_like(leaf)
        scale = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 and path[-1].key == "kernel" else 0.3
        value = scale * rng.normal(size=leaf.shape) + (path[-1].key in ("scale", "var"))
        return jnp.asarray(np.abs(value) if path[-1].key == "var" else value, leaf.dtype)

    nnx.update(model.decoder, jax.tree_util.tree_map_with_path(draw, state))
    return model


class File:
    """Tensors by name as PyTorch has them, and its layers on them."""

    def __init__(self, model, naming):
        weights = [nnx.to_pure_dict(nnx.state(model))]
        tensors = convert.new_tensors(model.config, weights, namings.NAMINGS[naming])
        self.tensors = {name: torch.from_numpy(np.array(tensor.read())) for name, tensor in tensors.items()}

    def __getitem__(self, name):
        return self.tensors[name].double()

    def layer(self, x, conv, norm, dilation=1):
        """Convolution, batch norm, ReLU."""
        kernel = self[f"{conv}.weight"]
        padding = dilation * (kernel.shape[-1] // 2)
        x = torch.nn.functional.conv2d(x, kernel, padding=padding, dilation=dilation)
        running = self[f"{norm}.running_mean"], self[f"{norm}.running_var"]
        return torch.relu(torch.nn.functional.batch_norm(x, *running, self[f"{norm}.weight"], self[f"{norm}.bias"]))

    def sequence(self, x, name, dilation=1):
        return self.layer(x, f"{name}.0", f"{name}.1", dilation)

    def module(self, x, name):
        return self.layer(x, f"{name}.conv", f"{name}.bn")

    def classify(self, x, name):
        return torch.nn.functional.conv2d(x, self[f"{name}.weight"], self[f"{name}.bias"])


def maps_of(seed, count=1):
    """The last two of a ResNet's maps, those before stand for nothing."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(count, 5, 6, width)), jnp.float32) for width in (32, 64, 128, 256)]


def first(x_NHWC):
    """Channels first."""
    return torch.from_numpy(np.array(x_NHWC, np.float64)).permute(0, 3, 1, 2)


def error(ours_NHWC, theirs):
    return float((first(ours_NHWC) - theirs).abs().max() / theirs.abs().max())


def attend(query, key, value, scale):
    """softmax(scale Q K^T) V over all cells, of maps and of any number of cells of keys and values."""
    weights = torch.softmax(scale * query.flatten(2).transpose(1, 2) @ key.flatten(2), dim=-1)
    return (weights @ value.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, query.shape[2:])


def tma(file, frames, number):
    """Logits of a frame of a list of maps; before the first frame stands the first."""
    head = "decode_head."
    twice = lambda x, name, place="": file.module(file.module(x, f"{head}{name}.0{place}"), f"{head}{name}.1{place}")
    past = [(frames[max(number - 2 + place, 0)], f".{place}") for place in range(2)]
    keys, values = (torch.cat([twice(x, f"memory_{kind}_conv", p) for x, p in past], 2) for kind in ("key", "value"))
    query, own = twice(frames[number], "query_key_conv"), twice(frames[number], "query_value_conv")
    joined = torch.cat([own, attend(query, keys, values, 1.0)], 1)
    return file.classify(file.module(joined, f"{head}bottleneck"), f"{head}conv_seg")


def test_tmanet_frame_by_frame():
    model = network(tmanet)
    file, video = File(model, "mmseg"), [maps_of(seed) for seed in range(FRAMES)]
    memory, last = model.decoder.memory(video[0]), [first(maps[-1]) for maps in video]
    for number, maps in enumerate(video):
        outputs, memory = model.decoder.look(maps, memory)
        assert error(outputs["logits_NHWC"], tma(file, last, number)) < TOLERANCE
    auxiliary = file.classify(file.module(first(maps[2]), "auxiliary_head.convs.0"), "auxiliary_head.conv_seg")
    assert error(outputs["auxiliary_logits_NHWC"], auxiliary) < TOLERANCE
    assert error(model.decoder(video[0])["logits_NHWC"], tma(file, last, 0)) < TOLERANCE


def attention(file, query, key, name):
    """sssegmentation's SelfAttentionBlock."""
    project = lambda x, kind: file.sequence(file.sequence(x, f"{name}.{kind}_project.0"), f"{name}.{kind}_project.1")
    query, value = project(query, "query"), file.sequence(key, f"{name}.value_project")
    seen = attend(query, project(key, "key"), value, query.shape[1] ** -0.5)
    return file.sequence(seen, f"{name}.out_project")


def stage(file, x, name):
    return file.classify(file.sequence(x, name), f"{name}.4")


def test_mcibi():
    """All classes were seen: a row of zeros the released code reads as it is, ours not at all."""
    model = network(mcibi)
    file, maps = File(model, "ssseg"), maps_of(0, count=2)
    x, within, inside = first(maps[-1]), "context_within_image_module.", "memory_module."
    branches = [file.sequence(x, f"{within}parallel_branches.{n}", d) for n, d in enumerate((1, 2, 4, 6))]
    mean = file.layer(x.mean((2, 3), keepdim=True), f"{within}global_branch.1", f"{within}global_branch.2")
    context = file.sequence(torch.cat([*branches, mean.expand_as(branches[0])], 1), f"{within}bottleneck")
    features = file.sequence(x, "bottleneck")
    first_pass = stage(file, features, "decoder_stage1")
    recalled = torch.einsum("nkhw,kc->nchw", first_pass.softmax(1), file[f"{inside}memory"][:, 0])
    beyond = attention(file, features, recalled, f"{inside}self_attention")
    beyond = file.sequence(torch.cat([features, beyond], 1), f"{inside}bottleneck")
    context = attention(file, features, context, f"{inside}self_attention_ms")
    logits = stage(file, file.sequence(torch.cat([context, beyond], 1), f"{inside}bottleneck_ms"), "decoder_stage2")
    outputs = model.decoder(maps)
    assert error(outputs["first_pass_logits_NHWC"], first_pass) < TOLERANCE
    assert error(outputs["logits_NHWC"], logits) < TOLERANCE
    assert error(outputs["auxiliary_logits_NHWC"], stage(file, first(maps[2]), "auxiliary_decoder")) < TOLERANCE
