"""EVA-01 with ViT-Adapter against benchmarks/torch_vit_adapter.py with positions, through files in BAAI's names.

That module always has relative positions and layer scale: tables of zeros and scales of one are a network without.
"""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from configs import mask2former_eva
from tests.interop.conftest import assert_reads, drawn, listed, tiny_eva01, variables, written
from tests.parity.comparison import (
    channels_last,
    draw,
    encoder_in_training,
    encoder_rows,
    largest_error,
    load_part,
    relative_error,
)
from vspw_jax.interop import convert, namings
from vspw_jax.models.encoders.eva01_adapter import Eva01Adapter
from vspw_jax.training import train_state

torch = pytest.importorskip("torch")
from benchmarks import torch_vit_adapter  # noqa: E402 - imports PyTorch.

FORWARD, GRADIENT = 1e-5, 1e-4
"""Relative errors allowed: the largest difference over the largest value."""
IMAGES = ((64, 96), (96, 32))
FORMS = {"plain": dict(relative_positions=False, layer_scale=0.0), "relative": dict(relative_positions=True)}


class PatchesWithPositions(torch.nn.Module):
    """The patches of the module below, with learned positions; the class token gets none."""

    def __init__(self, patches, positions):
        super().__init__()
        self.proj, self.positions = patches.proj, positions

    def forward(self, image):
        return self.proj(image).flatten(2).transpose(1, 2) + self.positions[:, 1:]


class Theirs(torch_vit_adapter.ViTAdapter):
    """With learned positions, in the names of BAAI's code."""

    def __init__(self, config, size):
        super().__init__(config, size)
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, self.window[0] * self.window[1] + 1, config.dim))
        self.patch_embed = PatchesWithPositions(self.patch_embed, self.pos_embed)


def peer(config, size):
    """Their network of drawn weights, and the tensors that a file of it has."""
    theirs = draw(Theirs(config, size)).train()
    absent = re.compile(r"^patch_embed\.positions$")
    if not config.relative_positions:
        absent = re.compile(absent.pattern + r"|gamma_[12]$|relative_position_bias_table$")
        with torch.no_grad():
            for block in theirs.blocks:
                block.attn.relative_position_bias_table.zero_()
                block.gamma_1.fill_(1.0)
                block.gamma_2.fill_(1.0)
    return theirs, absent


@pytest.mark.parametrize(("size", "fields"), list(zip(IMAGES, FORMS.values(), strict=True)), ids=FORMS.keys())
def test_maps_and_gradients_in_training(size, fields):
    """Of all variables and the image."""
    config = tiny_eva01(drop_path=0.0, **fields).encoder
    theirs, absent = peer(config, size)
    make = lambda: Eva01Adapter(config, size, "none", dtype=np.float32, rngs=nnx.Rngs(0))
    names = {name for name in theirs.state_dict() if not absent.search(name)}
    rows = encoder_rows(Eva01Adapter, "mmseg", config, names)
    assert {row.theirs for row in rows} == names
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *size, 3)).astype(np.float32)
    # Of each cell: from a channel's mean batch norms take the gradient away.
    shapes = [(2, *(side // stride for side in size), config.dim) for stride in (4, 8, 16, 32)]
    weights = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    state = load_part(make, rows, theirs, np.float32)
    (gradients, of_image), (maps, _) = encoder_in_training(state, image, weights)
    their_image = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()).requires_grad_()
    expected = theirs(their_image)
    for x, wanted in zip(maps, expected, strict=True):
        assert relative_error(x, channels_last(wanted.detach())) < FORWARD
    theirs_weighed = [x * torch.from_numpy(w).permute(0, 3, 1, 2) for x, w in zip(expected, weights, strict=True)]
    sum(x.mean() for x in theirs_weighed).backward()
    assert relative_error(of_image, channels_last(their_image.grad)) < GRADIENT
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters() if not absent.search(name)}
    # The first map's batch norm takes these biases out again, so that their gradients are rounding alone.
    idle = gradients["up"].pop("bias"), gradients["prior"]["projections"][0].pop("bias")
    assert all(np.abs(x).max() < 1e-6 for x in idle)
    kept = [row for row in rows if row.ours not in ("up/bias", "prior/projections/0/bias")]
    assert largest_error(gradients, kept, {name: x.numpy() for name, x in wanted.items() if x is not None}) < GRADIENT


@pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS.keys())
def test_files_give_every_tensor_back(fields, tmp_path):
    """A whole network's, whose sizes are read off it."""
    config = tiny_eva01(heads=16, **fields)
    model = drawn(config)
    convert.save_torch(model, tmp_path / "A.pth")
    assert assert_reads(tmp_path / "A.pth", config) == "mmseg"
    again, _ = convert.model_from_torch(tmp_path / "A.pth")
    for name, array in variables(model).items():
        np.testing.assert_array_equal(variables(again)[name], array, err_msg=name)
    convert.save_torch(again, tmp_path / "B.pth")
    first, second = written(tmp_path / "A.pth"), written(tmp_path / "B.pth")
    assert first.keys() == second.keys() and all(np.array_equal(x, second[name]) for name, x in first.items())


def test_an_eva_alone_begins_the_network_with_another_grid_and_patches_of_14_pixels(tmp_path, capsys):
    """In BAAI's and timm's names; the adapter stays as initialised."""
    config = tiny_eva01(**FORMS["plain"])
    model = drawn(config)
    convert.save_torch(model, tmp_path / "A.pth", "baai_eva01")
    tensors = {name: torch.from_numpy(x.copy()) for name, x in written(tmp_path / "A.pth").items()}
    assert not [name for name in tensors if name.startswith(("spm", "interactions"))]
    dim = config.encoder.dim
    torch.save(tensors | {"fc_norm.weight": torch.ones(dim), "head.weight": torch.ones(9, dim)}, tmp_path / "B.pth")
    begun = variables(convert.load_torch(drawn(config, seed=1), tmp_path / "B.pth").encoder)
    ours = variables(model.encoder)
    shared = [name for name in ours if re.match(r"(pos_embed|cls_token|patch_embed|interactions/blocks)", name)]
    assert shared and all(np.array_equal(begun[name], ours[name]) for name in shared)
    tensors["pos_embed"], tensors["patch_embed.proj.weight"] = torch.randn(1, 37, dim), torch.randn(dim, 3, 14, 14)
    torch.save(tensors, tmp_path / "C.pth")
    capsys.readouterr()
    convert.load_torch(drawn(config, seed=1), tmp_path / "C.pth")
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "positions of 6x6 patches resized to 4x4" in said and "patches of 14 pixels resized to 16" in said


def test_the_released_list_of_tensors_and_number_of_parameters():
    config = mask2former_eva.get_config()
    config.model.image_size = (896, 896)
    weights = train_state.describe(config)[1:]
    tensors = convert.new_tensors(config.model, weights, namings.NAMINGS["mmseg"])
    start = "backbone."
    found = {name.removeprefix(start): x.shape for name, x in tensors.items() if name.startswith(start)}
    assert found == listed("eva01_giant_adapter_backbone_official_896")
    assert round(sum(np.prod(x.shape) for x in jax.tree.leaves(weights[0]["encoder"])) / 1e6, 3) == 1056.204
