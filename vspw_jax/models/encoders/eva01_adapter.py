"""EVA-01 with ViT-Adapter: a plain vision transformer with learned positions, in the adapter around BEiT.

Source: EVA, arXiv 2211.07636; baaivision/EVA EVA-01/seg/mmseg_custom/models/backbones/{base/beit,beit_adapter}.py.
Shapes: N images, H and W patches (1/16), C width.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.models import layers
from vspw_jax.models.encoders import eva01_adapter_rows, vit_adapter


class Eva01Adapter(vit_adapter.ViTAdapter):
    """EVA-01 with ViT-Adapter: image to four maps of width `dim` at 1/4, 1/8, 1/16, 1/32.

    Of the two released networks one has blocks as BEiT's, with relative positions and layer scale, the other has
    neither. Both add learned positions to the patches, and none to the class token.

    Args:
      config: as `ViTAdapter`'s, and relative_positions; a layer_scale of 0 is a network without.
      image_size: (height, width) of the input in pixels, multiples of 32; fixes the positions.
      remat: a key of `layers.REMAT_POLICIES`.
    """

    FIELDS = (*vit_adapter.ViTAdapter.FIELDS, "relative_positions")
    PUBLISHED = {"EVA-01-g": dict(dim=1408, depth=40, heads=16)}
    TORCH_NAMES = eva01_adapter_rows.NAMES

    @classmethod
    def layer_id(cls, config: ConfigDict, path: str, shape: tuple[int, ...]) -> int | np.ndarray | None:
        """As BEiT's; the positions are with the patches."""
        return 0 if path == "pos_embed" else super().layer_id(config, path, shape)

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        super().__init__(config, image_size, remat, dtype=dtype, rngs=rngs)
        tokens = self.window[0] * self.window[1] + 1
        self.pos_embed = nnx.Param(layers.normal_02(rngs.params(), (1, tokens, config.dim)))

    def relative_window(self, config: ConfigDict) -> layers.Size | None:
        return self.window if config.relative_positions else None

    def embed(self, image_NHWC: Float[Array, "N H*16 W*16 3"]) -> tuple[Float[Array, "N 1 C"], layers.Tokens]:
        """As BEiT's, with the learned positions added to the patches."""
        token, patches = super().embed(image_NHWC)
        return token, patches + self.pos_embed[:, 1:].astype(self.dtype)
