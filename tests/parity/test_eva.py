"""EVA-02 against a PyTorch module written from its formulas, with the same random weights and BAAI's names."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

from configs import mask2former_eva02
from tests.interop.conftest import assert_reads, drawn, listed, tiny_eva, variables, written
from tests.parity.comparison import (
    channels_first,
    channels_last,
    draw,
    encoder_in_training,
    encoder_rows,
    largest_error,
    load_part,
    relative_error,
)
from vspw_jax.console.errors import UserError
from vspw_jax.interop import convert, namings
from vspw_jax.models import segmenter
from vspw_jax.models.encoders import position_tables
from vspw_jax.models.encoders.eva import Eva
from vspw_jax.training import train_state

torch = pytest.importorskip("torch")

FORWARD, GRADIENT = 1e-5, 1e-4
"""Relative errors allowed: the largest difference over the largest value."""
DIM, DEPTH, HEADS, HIDDEN, SIDE = 32, 4, 2, 20, 16
IMAGES = ((64, 96), (48, 32))


class Block(torch.nn.Module):
    """A block; the tables of positions stand beside the attention, as in BAAI's code."""

    def __init__(self, window):
        super().__init__()
        linear = torch.nn.Linear
        self.norm1, self.norm2 = (torch.nn.LayerNorm(DIM, eps=1e-6) for _ in range(2))
        self.attn = torch.nn.ParameterDict({name: torch.zeros(DIM) for name in ("q_bias", "v_bias")})
        for name in ("q_proj", "k_proj", "v_proj"):
            self.attn.add_module(name, linear(DIM, DIM, bias=False))
        self.attn.add_module("proj", linear(DIM, DIM))
        parts = {name: linear(DIM, HIDDEN) for name in ("w1", "w2")}
        parts |= {"ffn_ln": torch.nn.LayerNorm(HIDDEN, eps=1e-6), "w3": linear(HIDDEN, DIM)}
        self.mlp = torch.nn.ModuleDict(parts)
        self.window = window

    def turned(self, x_NSGD):
        """Pairs of channels as complex numbers, times exp(i angle); the class token stays."""
        size = x_NSGD.shape[-1]
        frequency = 1 / 10_000 ** (torch.arange(0, size // 2, 2, dtype=torch.float64) / (size // 2))
        row, column = (torch.arange(side, dtype=torch.float64) / side * SIDE for side in self.window)
        angle = torch.cat(
            [
                (row[:, None, None] * frequency).expand(-1, len(column), -1),
                (column[None, :, None] * frequency).expand(len(row), -1, -1),
            ],
            dim=-1,
        ).flatten(0, 1)
        pairs = torch.view_as_complex(x_NSGD[:, 1:].reshape(*x_NSGD[:, 1:].shape[:-1], -1, 2).contiguous())
        turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle).to(pairs.dtype)[:, None])
        return torch.cat([x_NSGD[:, :1], turned.flatten(-2)], dim=1)

    def forward(self, x):
        y, heads = self.norm1(x), (*x.shape[:2], HEADS, -1)
        query = self.turned((self.attn.q_proj(y) + self.attn["q_bias"]).reshape(heads))
        key = self.turned(self.attn.k_proj(y).reshape(heads))
        value = (self.attn.v_proj(y) + self.attn["v_bias"]).reshape(heads)
        weights = torch.einsum("nqgd,nkgd->ngqk", query, key).div((DIM // HEADS) ** 0.5).softmax(-1)
        x = x + self.attn.proj(torch.einsum("ngqk,nkgd->nqgd", weights, value).flatten(2))
        y, mlp = self.norm2(x), self.mlp
        gate = mlp["w1"](y)
        return x + mlp["w3"](mlp["ffn_ln"](gate * torch.sigmoid(gate) * mlp["w2"](y)))


class Theirs(torch.nn.Module):
    """baaivision/EVA EVA-02/seg/backbone/eva2.py: its tensors' names and its formulas."""

    def __init__(self, size):
        super().__init__()
        self.window = tuple(side // 16 for side in size)
        up = lambda: torch.nn.ConvTranspose2d(DIM, DIM, 2, 2)
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, DIM))
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, self.window[0] * self.window[1] + 1, DIM))
        self.patch_embed = torch.nn.ModuleDict({"proj": torch.nn.Conv2d(3, DIM, 16, 16)})
        self.blocks = torch.nn.ModuleList([Block(self.window) for _ in range(DEPTH)])
        self.fpn1 = torch.nn.Sequential(up(), torch.nn.BatchNorm2d(DIM), torch.nn.GELU(), up())
        self.fpn2 = torch.nn.Sequential(up())

    def forward(self, image):
        patches = self.patch_embed["proj"](image).flatten(2).transpose(1, 2)
        x, maps = torch.cat([self.cls_token.expand(len(image), -1, -1), patches], dim=1) + self.pos_embed, []
        for block in self.blocks:
            x = block(x)
            maps.append(x[:, 1:].transpose(1, 2).reshape(len(image), DIM, *self.window))
        pooled = torch.nn.functional.max_pool2d(maps[3], 2, 2)
        return [self.fpn1(maps[0]), self.fpn2(maps[1]), maps[2], pooled]


@pytest.mark.parametrize("size", IMAGES)
def test_maps_and_gradients_in_training(size):
    """And every variable has a name; of the image too."""
    theirs, config = draw(Theirs(size)).train(), tiny_eva(drop_path=0.0).encoder
    make = lambda: Eva(config, size, "none", dtype=np.float32, rngs=nnx.Rngs(0))
    rows = encoder_rows(Eva, "mmseg", config, theirs.state_dict())
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *size, 3)).astype(np.float32)
    weights = [rng.normal(size=DIM).astype(np.float32) for _ in range(4)]
    state = load_part(make, rows, theirs, np.float32)
    (gradients, of_image), (maps, _) = encoder_in_training(state, image, weights)
    their_image = channels_first(image).requires_grad_()
    expected = theirs(their_image)
    for x, wanted in zip(maps, expected, strict=True):
        assert relative_error(x, channels_last(wanted.detach())) < FORWARD
    sum((x * torch.from_numpy(w)[:, None, None]).mean() for x, w in zip(expected, weights, strict=True)).backward()
    assert relative_error(of_image, channels_last(their_image.grad)) < GRADIENT
    # A batch norm takes the bias before it out again, so that it has no gradient but for rounding.
    assert np.abs(gradients["fpn1"]["first"].pop("bias")).max() < 1e-6
    wanted = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters() if name != "fpn1.0.bias"}
    assert largest_error(gradients, rows, wanted) < GRADIENT


def test_files_give_every_tensor_back(tmp_path):
    """A whole network's, whose sizes are read off it, and the encoder's alone in BAAI's and timm's names."""
    config = tiny_eva()
    model = drawn(config)
    convert.save_torch(model, tmp_path / "A.pth")
    assert assert_reads(tmp_path / "A.pth", config) == "mmseg"
    again, _ = convert.model_from_torch(tmp_path / "A.pth")
    for name, array in variables(model).items():
        np.testing.assert_array_equal(variables(again)[name], array, err_msg=name)
    convert.save_torch(again, tmp_path / "B.pth")
    first, second = written(tmp_path / "A.pth"), written(tmp_path / "B.pth")
    assert first.keys() == second.keys() and all(np.array_equal(x, second[name]) for name, x in first.items())

    convert.save_torch(model, tmp_path / "C.pth", "baai_eva02")
    alone, timm = written(tmp_path / "C.pth"), {}
    for name, array in alone.items():
        name = name.replace("mlp.w1", "mlp.fc1_g").replace("mlp.w2", "mlp.fc1_x").replace("mlp.w3", "mlp.fc2")
        name = name.replace("mlp.ffn_ln", "mlp.norm")
        timm[re.sub(r"attn\.([qv])_bias", r"attn.\1_proj.bias", name)] = torch.from_numpy(array.copy())
    timm = {name: x for name, x in timm.items() if ".rope." not in name and not name.startswith("rope.")}
    torch.save(timm | {"fc_norm.weight": torch.ones(DIM)}, tmp_path / "D.pth")
    for name in "CD":
        begun = variables(convert.load_torch(drawn(config, seed=1), tmp_path / f"{name}.pth").encoder)
        body = {path: x for path, x in variables(model.encoder).items() if not path.startswith("fpn")}
        assert all(np.array_equal(begun[path], x) for path, x in body.items())


def test_tables_of_rotary_positions_are_baais(tmp_path):
    """As the code makes them, for the model and again in every block."""
    convert.save_torch(drawn(tiny_eva()), tmp_path / "A.pth", "baai_eva02")
    tensors = written(tmp_path / "A.pth")
    frequency = 1 / 10_000 ** (np.arange(0, 8, 2) / 8)
    place = np.repeat(np.arange(4)[:, None] / 4 * 16 * frequency, 2, axis=1)
    wanted = np.array([[*place[row], *place[column]] for row in range(4) for column in range(4)])
    for start in ("", *(f"blocks.{number}.attn." for number in range(DEPTH))):
        np.testing.assert_allclose(tensors[f"{start}rope.freqs_cos"], np.cos(wanted), atol=1e-6)
        np.testing.assert_allclose(tensors[f"{start}rope.freqs_sin"], np.sin(wanted), atol=1e-6)


def test_another_grid_and_patches_of_14_pixels(tmp_path, capsys):
    """As torch's bicubic resize of both; the class token's position stays."""
    config = tiny_eva()
    tensors = {name: torch.from_numpy(x.copy()) for name, x in written_alone(config, tmp_path).items()}
    tensors["pos_embed"], tensors["patch_embed.proj.weight"] = torch.randn(1, 37, DIM), torch.randn(DIM, 3, 14, 14)
    torch.save(tensors, tmp_path / "B.pth")
    begun = variables(convert.load_torch(drawn(config, seed=1), tmp_path / "B.pth").encoder)
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "positions of 6x6 patches resized to 4x4" in said and "patches of 14 pixels resized to 16" in said
    resize = lambda x, size: torch.nn.functional.interpolate(x, size=(size, size), mode="bicubic", align_corners=False)
    grid = resize(tensors["pos_embed"][:, 1:].reshape(1, 6, 6, DIM).permute(0, 3, 1, 2), 4)
    wanted = torch.cat([tensors["pos_embed"][:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    np.testing.assert_allclose(begun["pos_embed"], wanted.numpy(), rtol=1e-4, atol=1e-5)
    kernel = resize(tensors["patch_embed.proj.weight"], 16).permute(2, 3, 1, 0)
    np.testing.assert_allclose(begun["patch_embed/proj/kernel"], kernel.numpy(), rtol=1e-4, atol=1e-5)
    wide = position_tables.resize_positions(tensors["pos_embed"].numpy(), (3, 5))
    assert wide.shape == (1, 16, DIM)


def written_alone(config, folder):
    convert.save_torch(drawn(config), folder / "A.pth", "baai_eva02")
    return written(folder / "A.pth")


def test_the_released_list_of_tensors_and_numbers_of_parameters():
    """EVA-02-L for segmentation at 512, timm's; millions of parameters with the pyramid and without, of L and B."""
    config = mask2former_eva02.get_config()
    config.model.image_size = (512, 512)
    millions = {}
    for name, fields in {
        "L": {},
        "B": dict(dim=768, depth=12, heads=12, hidden=2048, out_blocks=(4, 6, 8, 12)),
    }.items():
        config.model.encoder.update(fields)
        weights = train_state.describe(config)[1:]
        counts = {
            part: sum(np.prod(x.shape) for x in jax.tree.leaves(tree)) for part, tree in weights[0]["encoder"].items()
        }
        pyramid = counts.pop("fpn1") + counts.pop("fpn2")
        millions[name] = (round(sum(counts.values()) / 1e6, 3), round((sum(counts.values()) + pyramid) / 1e6, 3))
        if name == "L":
            tensors = convert.new_tensors(config.model, weights, namings.NAMINGS["mmseg"])
            start = "backbone."
            found = {name.removeprefix(start): x.shape for name, x in tensors.items() if name.startswith(start)}
            assert found == listed("eva02_large_seg_backbone_official_512")
            timm, heads = listed("timm_eva02_large_patch14_448").keys(), ("fc_norm.", "head.")
            rows = namings.NAMINGS["timm"].rows(config.model, ())
            assert {row.theirs for row in rows} == {name for name in timm if not name.startswith(heads)}
    assert millions == {"L": (304.238, 316.826), "B": (86.485, 93.567)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"heads": 16}, "heads of 2 channels cannot be turned"), ({"out_blocks": (1, 2, 3, 5)}, "four ascending counts")],
)
def test_what_makes_no_network_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        segmenter.check(tiny_eva(**changes))
