"""The network in plain PyTorch: BEiT, ViT-Adapter, Mask2Former. What benchmarks/network.py measures against.

Written from the papers and `vspw_jax/models`, for speed on CPU: `scaled_dot_product_attention`, `grid_sample`, no
recomputation. Modules carry the names of the mmseg checkpoints, so that the rows of `interop/namings.py` load it.
"""

import numpy as np
import torch
from torch import nn

from benchmarks.torch_mask2former import Mask2Former
from benchmarks.torch_vit_adapter import ViTAdapter


class Segmenter(nn.Module):
    """Images (N, 3, H, W) to class and mask logits of every prediction, and the four maps."""

    def __init__(self, config):
        super().__init__()
        self.backbone = ViTAdapter(config.encoder, config.image_size)
        self.decode_head = Mask2Former(config.encoder.dim, config.num_classes, config.decoder)

    def forward(self, image):
        maps = self.backbone(image)
        return *self.decode_head(maps), maps


def load(model, rows, arrays):
    """Fills the model with our arrays {path: array}; every tensor but batch norms' counters must be covered."""
    tensors = {}
    for row in rows:
        tensor = torch.from_numpy(np.array(row.layout.export(np.asarray(arrays[row.ours])[row.index])))
        tensors.setdefault(row.theirs, {})[row.part[0] if row.part else 0] = tensor
    joined = {
        key: torch.cat([parts[i] for i in sorted(parts)]) if len(parts) > 1 else parts[0]
        for key, parts in tensors.items()
    }
    missing, unexpected = model.load_state_dict(joined, strict=False)
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"the PyTorch model differs from the table of names: {missing=} {unexpected=}")
