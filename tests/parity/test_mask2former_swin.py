"""Hugging Face's Mask2Former on a Swin, whole: read from the file that transformers saves, and the same to rounding."""

import jax
import numpy as np
import pytest
from flax import nnx

from tests.parity.comparison import channels_last, relative_error
from tests.torch_libraries import library
from vspw_jax.interop import convert

torch = pytest.importorskip("torch")
transformers = library("transformers")

ALLOWED = 1e-5
"""Relative error: the largest difference over the largest value."""


@pytest.fixture(scope="module")
def theirs():
    """Of two pairs of blocks in the third stage; every parameter is random."""
    backbone = transformers.SwinConfig(
        embed_dim=16,
        depths=[2, 2, 4, 2],
        num_heads=[2, 4, 8, 16],
        window_size=3,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        dim_feedforward=40,
        encoder_layers=1,
        decoder_layers=4,
        num_attention_heads=4,
        num_queries=10,
        num_labels=9,
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            is_matrix = tensor.ndim > 1 and not any(part in name for part in ("table", "embed", "queries"))
            of_norm = tensor.ndim == 1 and name.endswith("weight")
            tensor.copy_(noise / tensor[0].numel() ** 0.5 if is_matrix else of_norm + 0.3 * noise)
    return model.eval()


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_the_whole_network(theirs, size, tmp_path, capsys):
    """Wide images: of one windows are padded, of the other patches and mergings too, and no map is half of a finer one.
    Sizes come off the file, and nothing of it is missed."""
    theirs.save_pretrained(tmp_path)
    ours, config = convert.model_from_torch(tmp_path / "model.safetensors")
    printed = capsys.readouterr().out
    assert "criterion.empty_weight): class weights" in printed and "image classification head" in printed
    decoder = dict(dim=32, heads=4, encoder_ffn_dim=48, ffn_dim=40, encoder_layers=1, decoder_layers=3, num_queries=10)
    assert decoder.items() <= config.model.decoder.to_dict().items()
    assert (config.model.num_classes, config.model.encoder.depths) == (9, (2, 2, 4, 2))
    image = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    graphdef, state = nnx.split(ours)
    found = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image[:, None]))(state, image)
    errors = {
        "classes": relative_error(found["class_logits_BTQC"][:, 0], wanted.class_queries_logits),
        "masks": relative_error(found["mask_logits_BTQHW"][:, 0], wanted.masks_queries_logits),
        "features": relative_error(
            found["features_BTHWC"][:, 0], channels_last(wanted.pixel_decoder_last_hidden_state)
        ),
    }
    with capsys.disabled():
        print({name: f"{error:.1e}" for name, error in errors.items()})
    assert max(errors.values()) < ALLOWED
    assert 0.1 < float((wanted.masks_queries_logits > 0).float().mean()) < 0.9  # The masks of attention count.
