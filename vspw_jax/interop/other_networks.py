"""Known networks that this program does not have, told by their names: some of these are also those of ours.

Sources: open-mmlab/mmsegmentation mmseg/models; huggingface/pytorch-image-models timm/models; huggingface/transformers;
facebookresearch/MaskFormer mask_former/modeling; OpenGVLab/InternImage
segmentation/mmseg_custom/models/backbones/intern_image.py.
"""

import dataclasses
import re
from collections.abc import Collection


@dataclasses.dataclass(frozen=True)
class OtherNetwork:
    """A network.

    Attributes:
      title: for people.
      has: pattern of a name that its files have.
      lacks: pattern of names that they have not, and that those of our networks with `has` do have.
    """

    title: str
    has: str
    lacks: str | None = None


RESNET = "ResNet-18 or ResNet-34"
VIT = "a plain ViT, as of DeiT, DINO, MAE or SETR"
OTHERS = (
    OtherNetwork("PSPNet", r"^decode_head\.psp_modules\.", r"^decode_head\.fpn_bottleneck\."),
    OtherNetwork("DeepLabV3+", r"^decode_head\.sep_bottleneck\."),
    OtherNetwork("an FCN with NonLocal, DNL, GC or CC attention", r"^decode_head\.(nl_block|dnl_block|gc_block|cca)\."),
    OtherNetwork("MaskFormer", r"^(sem_seg_head\.predictor\.transformer|model\.pixel_level_module\.decoder\.fpn)\."),
    OtherNetwork("MaskFormer", r"^decode_head\.pixel_decoder\.", r"^decode_head\.pixel_decoder\.encoder\."),
    OtherNetwork("OneFormer", r"^model\.task_encoder\."),
    OtherNetwork(VIT, r"^(backbone\.)?(blocks|layers)\.0\.attn\.(qkv\.bias|attn\.in_proj_weight)$"),
    OtherNetwork(VIT, r"(^|\.)embeddings\.position_embeddings$", r"relative_position_bias_table$"),
    OtherNetwork("ConvNeXt", r"(^|\.)stages\.0\.(blocks\.|layers\.)?0\.(conv_dw|dwconv|depthwise_conv)\."),
    OtherNetwork("Swin V2", r"(^|\.)(layers|stages)\.0\.blocks\.0\.(attn|attention\.self|attention)\.logit_scale$"),
    OtherNetwork(RESNET, r"(^|\.)layer1\.0\.conv2\.weight$", r"(^|\.)layer1\.0\.conv3\."),
    OtherNetwork(RESNET, r"(^|\.)stages\.0\.layers\.0\.layer\.1\.convolution\.", r"\.stages\.0\.layers\.0\.layer\.2\."),
    OtherNetwork("ResNeSt", r"(^|\.)layer1\.0\.conv2\.fc1\."),
    OtherNetwork("InternImage-H", r"(^|\.)levels\.0\.blocks\.0\.res_post_norm1\."),
    OtherNetwork("InternImage-G", r"\.center_feature_scale_proj_weight$", r"\.res_post_norm1\."),
    OtherNetwork("SegNeXt", r"(^|\.)block1\.0\.attn\.spatial_gating_unit\."),
)


def title(names: Collection[str]) -> str | None:
    """What has these names; None if it is none of these."""
    among = lambda pattern: pattern is not None and any(re.search(pattern, name) for name in names)
    return next((other.title for other in OTHERS if among(other.has) and not among(other.lacks)), None)
