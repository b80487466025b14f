"""SegFormer against transformers' modules with the same random weights, through files in Hugging Face's names.

mmsegmentation's head, which is another, is a module written from its formula.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import segformer
from tests.interop.conftest import assert_reads, drawn, tiny_segformer, variables
from tests.parity.comparison import channels_last, draw, largest_error, loaded, relative_error, training_gradients
from tests.torch_libraries import library
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert, namings
from vspw_jax.models import segmenter
from vspw_jax.training import train_state

torch = pytest.importorskip("torch")
transformers = library("transformers")


FORWARD, GRADIENT = 1e-5, 1e-5
"""Relative errors allowed: the largest difference over the largest value; gradients are taken in float64."""
DIMS, CLASSES = (8, 16, 24, 32), 7
IMAGES = ((96, 64), (75, 101))
"""Maps of 24 x 16 cells to 3 x 2, and of 19 x 26 to 3 x 4, of which joining leaves cells out."""


def their_model(dims=DIMS, depths=(1, 2, 1, 1), mlp_ratio=2, dim=12, num_labels=CLASSES):
    """SegformerForSemanticSegmentation without anything random in training."""
    config = transformers.SegformerConfig(
        hidden_sizes=list(dims),
        depths=list(depths),
        num_attention_heads=[width // dims[0] for width in dims],
        mlp_ratios=[mlp_ratio] * 4,
        decoder_hidden_size=dim,
        num_labels=num_labels,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
    )
    return transformers.SegformerForSemanticSegmentation(config)


def on_disk(model, folder):
    """Its tensors in the names of files."""
    model.save_pretrained(folder)
    return {name: x.read() for name, x in checkpoint_file.read(folder / "model.safetensors").tensors.items()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(their network, its tensors in the names of files, ours, read from there)."""
    theirs, folder = draw(their_model()).eval(), tmp_path_factory.mktemp("hugging_face")
    tensors = on_disk(theirs, folder)
    ours, config = convert.model_from_torch(folder / "model.safetensors")
    assert config.model.encoder.to_dict() == tiny_segformer(drop_path=0.1, epsilons="hugging_face").encoder.to_dict()
    assert (config.model.decoder.variant, config.model.decoder.dim, config.model.num_classes) == ("nvlabs", 12, CLASSES)
    return theirs, tensors, ours


def channels_first(image_NHWC):
    return torch.from_numpy(image_NHWC.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("size", IMAGES)
def test_every_stage_and_the_head(pair, size):
    theirs, _, ours = pair
    image = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        found = theirs(channels_first(image), output_hidden_states=True)
    graphdef, state = nnx.split(ours)
    outputs = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image[:, None]))(state, image)
    for x, expected in zip(outputs["encoder"], found.hidden_states, strict=True):
        assert relative_error(x[:, 0], channels_last(expected)) < FORWARD
    assert relative_error(outputs["logits_BTHWC"][:, 0], channels_last(found.logits)) < FORWARD


def test_loss_and_gradients_of_a_training_step(tmp_path, monkeypatch):
    """The recipe's loss, the batch norm in training, on maps of which joining leaves cells out."""
    monkeypatch.setitem(segmenter.DTYPES, "float64", jnp.float64)
    theirs, size, rng = draw(their_model()).double().train(), (66, 49), np.random.default_rng(1)
    tensors = on_disk(theirs, tmp_path / "A")
    config = segformer.get_config("demo")
    config.model = tiny_segformer(drop_path=0.0, epsilons="hugging_face")
    config.model.update(image_size=size, dtype="float64")
    config.model.decoder.dropout = 0.0
    image = rng.normal(size=(2, 1, *size, 3))
    label = np.kron(rng.choice([*range(CLASSES), 255], (2, 1, 11, 7)), np.ones((6, 7))).astype(np.int32)
    rows = namings.NAMINGS["hugging_face_segformer"].rows(config.model, tensors)
    with jax.enable_x64(True):
        state = loaded(config, rows, tensors)
        loss, gradients = training_gradients(config, state, {"image_BTHWC": image, "label_BTHW": label})

    logits = theirs(channels_first(image[:, 0])).logits
    logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    target = torch.from_numpy(label[:, 0]).long()
    their_loss = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
    their_loss.backward()
    assert float(loss) == pytest.approx(their_loss.item(), rel=1e-5)
    # Their gradients take the place of the weights, so that they are saved under the names of files.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    wanted = {name: x for name, x in on_disk(theirs, tmp_path / "B").items() if not re.search("running|tracked", name)}
    # A batch norm takes constants out again, so that these have no gradient but for rounding.
    cancelled = [*gradients["decoder"]["projections"].values(), gradients["encoder"]["stages"][3]["norm"]]
    for module in cancelled:
        assert np.abs(module.pop("bias")).max() < 1e-12
    others = [row for row in rows if not re.fullmatch(r"(decoder/projections/\d|encoder/stages/3/norm)/bias", row.ours)]
    assert largest_error(gradients, others, wanted) < GRADIENT


TO_NVLABS = (
    (r"^segformer\.encoder\.", "backbone."),
    (r"patch_embeddings\.(\d)\.", lambda m: f"patch_embed{int(m[1]) + 1}."),
    (r"block\.(\d)\.(\d)\.", lambda m: f"block{int(m[1]) + 1}.{m[2]}."),
    (r"^backbone\.layer_norm\.(\d)", lambda m: f"backbone.norm{int(m[1]) + 1}"),
    (r"(patch_embed\d)\.layer_norm", r"\1.norm"),
    (r"layer_norm_(\d)", r"norm\1"),
    (r"attention\.self\.query", "attn.q"),
    (r"attention\.self\.sr", "attn.sr"),
    (r"attention\.self\.layer_norm", "attn.norm"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"mlp\.dense(\d)", r"mlp.fc\1"),
    (r"linear_c\.(\d)", lambda m: f"linear_c{int(m[1]) + 1}"),
    (r"decode_head\.linear_fuse\.", "decode_head.linear_fuse.conv."),
    (r"decode_head\.batch_norm\.", "decode_head.linear_fuse.bn."),
    (r"decode_head\.classifier\.", "decode_head.linear_pred."),
)
"""transformers' script of conversion, backwards."""
TO_MMSEG = (
    (r"patch_embed(\d)\.proj", lambda m: f"layers.{int(m[1]) - 1}.0.projection"),
    (r"patch_embed(\d)", lambda m: f"layers.{int(m[1]) - 1}.0"),
    (r"block(\d)\.", lambda m: f"layers.{int(m[1]) - 1}.1."),
    (r"^backbone\.norm(\d)", lambda m: f"backbone.layers.{int(m[1]) - 1}.2"),
    (r"attn\.proj", "attn.attn.out_proj"),
    (r"mlp\.fc1", "ffn.layers.0"),
    (r"mlp\.dwconv\.dwconv", "ffn.layers.1"),
    (r"mlp\.fc2", "ffn.layers.4"),
)
"""mmsegmentation's, from NVIDIA's names."""


def renamed(name, rules):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def joined(tensors, first, others, name):
    """Without some tensors, but with them joined under the name of the first of them, renamed by name()."""
    result = {key: x for key, x in tensors.items() if not re.search("|".join((first, *others)), key)}
    for key in tensors:
        if re.search(first, key):
            parts = [key, *(re.sub(first, other, key) for other in others)]
            result[name(key)] = np.concatenate([tensors[part] for part in parts])
    return result


def in_nvlabs_names(tensors):
    join = lambda key: key.replace("attention.self.key", "attn.kv")
    tensors = joined(tensors, r"attention\.self\.key", ["attention.self.value"], join)
    return {renamed(name, TO_NVLABS): x for name, x in tensors.items()}


def in_mmseg_names(tensors):
    """Of the encoder."""
    tensors = {name: x for name, x in in_nvlabs_names(tensors).items() if name.startswith("backbone.")}
    tensors = joined(tensors, r"attn\.q\.", ["attn.kv."], lambda key: key.replace("attn.q.", "attn.attn.in_proj_"))
    of_ffn = lambda name, x: x[:, :, None, None] if re.search(r"mlp\.fc\d\.weight", name) else x
    return {renamed(name, TO_MMSEG): of_ffn(name, x) for name, x in tensors.items()}


def written(path):
    return {name: tensor.read() for name, tensor in checkpoint_file.read(path).tensors.items()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_files_in_every_codes_names(pair, tmp_path):
    """Written, they are what transformers' tensors are by the public scripts; read, they give all back."""
    _, tensors, ours = pair
    whole = {"hugging_face_segformer": tensors, "nvlabs_segformer": in_nvlabs_names(tensors)}
    for naming, wanted in whole.items():
        convert.save_torch(ours, tmp_path / f"{naming}.pth", naming)
        assert_equal(written(tmp_path / f"{naming}.pth"), wanted)
        expected = tiny_segformer(epsilons=naming.removesuffix("_segformer"))
        expected.decoder.dropped = "elements" if naming.startswith("hugging_face") else "channels"
        assert_reads(tmp_path / f"{naming}.pth", expected)
        again, _ = convert.model_from_torch(tmp_path / f"{naming}.pth")
        assert_equal(variables(again), variables(ours))
    of_encoder = in_mmseg_names(tensors)
    torch.save({name.removeprefix("backbone."): torch.tensor(x) for name, x in of_encoder.items()}, tmp_path / "A.pth")
    nvlabs = {name: x for name, x in in_nvlabs_names(tensors).items() if name.startswith("backbone.")}
    nvlabs = {name.removeprefix("backbone."): torch.tensor(x) for name, x in nvlabs.items()}
    torch.save(nvlabs | {"head.weight": torch.ones(9, 32)}, tmp_path / "B.pth")
    hugging_face = {name: torch.tensor(x) for name, x in tensors.items() if name.startswith("segformer.")}
    torch.save(hugging_face | {"classifier.weight": torch.ones(9, 32)}, tmp_path / "C.pth")
    for name in "ABC":  # Encoders alone.
        begun = convert.load_torch(drawn(tiny_segformer(), seed=1), tmp_path / f"{name}.pth")
        assert_equal(variables(begun.encoder), variables(ours.encoder))


class MmsegHead(torch.nn.Module):
    """open-mmlab/mmsegmentation mmseg/models/decode_heads/segformer_head.py: its tensors' names and its formula."""

    def __init__(self, dim):
        super().__init__()
        module = lambda width: torch.nn.ModuleDict(
            {"conv": torch.nn.Conv2d(width, dim, 1, bias=False), "bn": torch.nn.BatchNorm2d(dim)}
        )
        self.convs = torch.nn.ModuleList([module(width) for width in DIMS])
        self.fusion_conv = module(4 * dim)
        self.conv_seg = torch.nn.Conv2d(dim, CLASSES, 1)

    def forward(self, maps):
        run = lambda module, x: torch.relu(module["bn"](module["conv"](x)))
        resize = lambda x: torch.nn.functional.interpolate(x, size=maps[0].shape[2:], mode="bilinear")
        resized = [resize(run(module, x)) for module, x in zip(self.convs, maps, strict=True)]
        return self.conv_seg(run(self.fusion_conv, torch.cat(resized, dim=1)))


MAPS = ((9, 14), (5, 7), (3, 4), (2, 2))


def test_mmsegs_network(pair, tmp_path):
    """Its file is read as a whole and written back; its head's logits."""
    head = draw(MmsegHead(12)).eval()
    state = {name: torch.tensor(x) for name, x in in_mmseg_names(pair[1]).items()}
    state |= {f"decode_head.{name}": x for name, x in head.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "A.pth")
    ours, config = convert.model_from_torch(tmp_path / "A.pth")
    assert_reads(tmp_path / "A.pth", tiny_segformer("mmseg", epsilons="mmseg"))
    convert.save_torch(ours, tmp_path / "B.pth")
    assert_equal(written(tmp_path / "B.pth"), {name: x.numpy() for name, x in state.items()})
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(1, *side, dim)).astype(np.float32) for side, dim in zip(MAPS, DIMS, strict=True)]
    with torch.no_grad():
        expected = head([channels_first(x) for x in maps])
    assert relative_error(ours.decoder(maps)["logits_NHWC"], channels_last(expected)) < FORWARD
    with pytest.raises(UserError, match="To read such a file set --config.model.decoder.variant=nvlabs; to write one"):
        convert.save_torch(ours, tmp_path / "C.pth", "nvlabs_segformer")


def test_b0_has_hugging_faces_tensors(tmp_path):
    """And as many parameters as nvidia/segformer-b0-finetuned-ade-512-512."""
    config = segformer.get_config()
    config.model.num_classes = 150
    config.model.encoder.update(dims=(32, 64, 160, 256), depths=(2, 2, 2, 2), head_dim=32)
    config.model.decoder.dim = 256
    weights = train_state.describe(config)[1:]
    theirs = their_model((32, 64, 160, 256), (2, 2, 2, 2), 4, 256, 150)
    naming = namings.NAMINGS["hugging_face_segformer"]
    ours = {name: x.shape for name, x in convert.new_tensors(config.model, weights, naming).items()}
    assert ours == {name: x.shape for name, x in on_disk(theirs, tmp_path).items()}
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(weights[0])) == 3_752_694


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": (8, 16, 24)}, r"model.encoder.dims is \(8, 16, 24\): expected one number for each"),
        ({"head_dim": 5}, "model.encoder.head_dim is 5"),
        ({"epsilons": "timm"}, "model.encoder.epsilons is 'timm'"),
        ({"reductions": (32, 4, 2, 1)}, r"image_size is \(64, 64\): .* a side needs at least 125 pixels"),
    ],
)
def test_what_makes_no_network_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        segmenter.check(tiny_segformer(**changes))


def test_stochastic_depth_draws_of_an_image_are_its_own():
    """With keys passes differ, by image; without, nothing is drawn."""
    graphdef, state = nnx.split(drawn(tiny_segformer()).encoder)
    run = jax.jit(lambda image, keys: nnx.merge(graphdef, state)(image, True, keys)[-1])
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    both = run(image, keys)
    np.testing.assert_allclose(run(image[::-1], keys[::-1])[::-1], both, rtol=1e-5, atol=1e-5)
    assert np.abs(both - run(image, keys[::-1])).max() > 1e-3
