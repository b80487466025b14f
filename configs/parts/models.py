"""Encoders, decoders and the projection head: sections of `config.model`.

The fields of an encoder's other published sizes are `PUBLISHED` of its class, in vspw_jax/models/encoders/.

Sources: "ViT-Adapter" is czczup/ViT-Adapter segmentation/configs/ade20k/
mask2former_beitv2_adapter_large_896_80k_ade20k_ss.py and its base mask2former_beit.py; "unilm" is microsoft/unilm
beit/semantic_segmentation/configs/beit/upernet/upernet_beit_large_24_640_slide_160k_ade20k_pt2ft.py and its base
upernet_beit.py; "ContrastiveSeg" is tfzhou/ContrastiveSeg lib/models/modules/projection.py; "mmseg" is
open-mmlab/mmsegmentation configs/_base_/models/deeplabv3_r50-d8.py.
"""

from ml_collections import ConfigDict


def network(encoder: ConfigDict, decoder: ConfigDict, image_size: tuple[int, int]) -> ConfigDict:
    """`config.model`: an encoder and a decoder for VSPW's classes."""
    model = ConfigDict()
    model.image_size = image_size  # Crop, height and width.
    model.num_classes = 124  # VSPW.
    model.dtype = "float32"  # Of the computation; parameters are always float32. ViT-Adapter: no fp16.
    # "none", "dots" or "full": what the backward pass recomputes; or "auto": as little as a device's memory asks for.
    # ViT-Adapter and EVA-01: with_cp. Swin, FocalNet and InternImage have none; it changes no result, so ours is one.
    model.remat = "full"
    model.encoder, model.decoder = encoder, decoder
    return model


def beit_large() -> ConfigDict:
    """BEiT-L as a pyramid: unilm."""
    encoder = ConfigDict()
    encoder.name = "beit"
    encoder.dim = 1024
    encoder.depth = 24
    encoder.heads = 16
    encoder.mlp_ratio = 4.0
    encoder.layer_scale = 1e-6  # Initial value of the blocks' gamma_1 and gamma_2; unilm: init_values.
    encoder.drop_path = 0.2  # Linear from 0 over the blocks.
    encoder.out_blocks = (8, 12, 16, 24)  # unilm: out_indices 7, 11, 15, 23, counted from 0.
    return encoder


def resnet_101() -> ConfigDict:
    """ResNet-101 of output stride 8 with the deep stem: mmseg's ResNetV1c."""
    encoder = ConfigDict()
    encoder.name = "resnet"
    encoder.stem = "deep"  # Three 3x3 convolutions; or "plain": one 7x7, as torchvision's.
    encoder.width = 64  # Of the stem; the maps are 4, 8, 16 and 32 times as wide.
    encoder.depths = (3, 4, 23, 3)  # Blocks of the stages.
    encoder.output_stride = 8  # Of the coarsest map; 32 is without dilation.
    return encoder


def resnet_50() -> ConfigDict:
    """The standard ResNet-50, of output stride 8: torchvision's, whose files it reads and writes."""
    encoder = resnet_101()
    encoder.stem = "plain"
    encoder.depths = (3, 4, 6, 3)
    return encoder


def hrnet_w48() -> ConfigDict:
    """HRNetV2-W48: every value is mmseg's, configs/_base_/models/fcn_hr18.py and configs/hrnet/fcn_hr48_*.py."""
    encoder = ConfigDict()
    encoder.name = "hrnet"
    encoder.width = 48  # Of the finest map; the others are 2, 4 and 8 times as wide.
    encoder.stem_width = 64
    encoder.bottleneck_width = 64  # Of the first stage's 3x3 convolutions; its map is 4 times as wide.
    encoder.bottlenecks = 4  # Blocks of the first stage.
    encoder.modules = (1, 4, 3)  # Of the stages of two, three and four branches.
    encoder.blocks = 4  # Of a branch in a module.
    encoder.upsampling = "bilinear"  # mmseg. Other codes' ways: models/encoders/hrnet.py, `UPSAMPLINGS`.
    return encoder


def swin_small() -> ConfigDict:
    """Swin-S, from the same code: configs/swin/upernet_swin_small_*.py."""
    encoder = swin_base()
    encoder.dim = 96
    return encoder


def swin_base() -> ConfigDict:
    """Swin-B: SwinTransformer/Swin-Transformer-Semantic-Segmentation configs/swin/upernet_swin_base_*.py."""
    encoder = ConfigDict()
    encoder.name = "swin"
    encoder.dim = 128  # Of the first map.
    encoder.depths = (2, 2, 18, 2)
    encoder.head_dim = 32
    encoder.window = 7  # Cells a side; weights of images of 384 pixels: 12.
    encoder.mlp_ratio = 4.0
    encoder.drop_path = 0.3  # Linear from 0 over the blocks.
    return encoder


def eva01_giant_adapter() -> ConfigDict:
    """EVA-01-g with ViT-Adapter: every value is that of baaivision/EVA EVA-01/seg/configs/coco_stuff164k/.

    Of the two released networks this is the one without relative positions and layer scale; the other has True and 1.0.
    """
    encoder = vit_adapter_large()
    encoder.name = "eva01_adapter"
    encoder.dim = 1408
    encoder.depth = 40
    encoder.mlp_ratio = 6144 / 1408
    encoder.layer_scale = 0.0  # Initial value of the blocks' gamma_1 and gamma_2; 0: none.
    encoder.drop_path = 0.5
    encoder.relative_positions = False
    return encoder


def eva02_large() -> ConfigDict:
    """EVA-02-L as a pyramid: every value is baaivision/EVA's, EVA-02/seg/configs/eva02/upernet/."""
    encoder = ConfigDict()
    encoder.name = "eva"
    encoder.dim = 1024
    encoder.depth = 24
    encoder.heads = 16
    encoder.hidden = 2730  # Of the feed-forwards, 8/3 of the width.
    encoder.pretrained_side = 16  # Patches a side in pre-training: 224 pixels by 14.
    encoder.drop_path = 0.2  # Linear from 0 over the blocks; B: 0.15.
    encoder.out_blocks = (8, 12, 16, 24)
    return encoder


def focalnet_base() -> ConfigDict:
    """FocalNet-B: microsoft/FocalNet segmentation/configs/focalnet/upernet_focalnet_base_*_lrf.py."""
    encoder = ConfigDict()
    encoder.name = "focalnet"
    encoder.dim = 128  # Of the first map.
    encoder.depths = (2, 2, 18, 2)
    encoder.levels = 3  # Convolutions of a block; "srf": 2.
    encoder.window = 9  # Cells a side of the first, then 11, 13; in the weights of images 3, which are padded.
    encoder.overlaps = False  # Whether patches overlap; L and XL.
    encoder.post_norm = False  # Whether norms stand behind what they norm; L and XL.
    encoder.layer_scale = 0.0  # Initial value of gamma_1 and gamma_2; 0: none.
    encoder.modulation_norm = False  # A norm in the modulation; H.
    encoder.normalize_modulator = False  # What is seen is divided by levels + 1.
    encoder.mlp_ratio = 4.0
    encoder.drop_path = 0.3  # Linear from 0 over the blocks.
    return encoder


def internimage_xl() -> ConfigDict:
    """InternImage-XL: OpenGVLab/InternImage segmentation/configs/ade20k/upernet_internimage_xl_640_160k_ade20k.py."""
    encoder = ConfigDict()
    encoder.name = "internimage"
    encoder.dim = 192  # Of the first map.
    encoder.depths = (5, 5, 24, 5)
    encoder.group_width = 16  # Channels that choose their places together.
    encoder.post_norm = True  # Whether norms stand behind what they norm.
    encoder.layer_scale = 1.0  # Initial value of gamma_1 and gamma_2.
    encoder.reach = 2.0  # The source's offset_scale: multiplies the 3x3 places and their offsets.
    encoder.mlp_ratio = 4.0
    encoder.drop_path = 0.4  # Linear from 0 over the blocks; T: 0.2, S: 0.3.
    return encoder


def mit_b2() -> ConfigDict:
    """MiT-B2: every value is that of NVlabs/SegFormer mmseg/models/backbones/mix_transformer.py."""
    encoder = ConfigDict()
    encoder.name = "mit"
    encoder.dims = (64, 128, 320, 512)  # Of the four maps.
    encoder.depths = (3, 4, 6, 3)
    encoder.head_dim = 64
    encoder.reductions = (8, 4, 2, 1)  # Cells a side that attention joins.
    encoder.mlp_ratio = 4.0
    # Of layer norms: those of NVIDIA's code, which the weights were trained with; or "mmseg" or "hugging_face".
    encoder.epsilons = "nvlabs"
    encoder.drop_path = 0.1  # Linear from 0 over the blocks.
    return encoder


def vit_adapter_large() -> ConfigDict:
    """BEiTv2-L with ViT-Adapter: every value is ViT-Adapter's."""
    encoder = ConfigDict()
    encoder.name = "vit_adapter"
    encoder.dim = 1024
    encoder.depth = 24
    encoder.heads = 16
    encoder.mlp_ratio = 4.0
    encoder.layer_scale = 1e-6  # Initial value of the blocks' gamma_1 and gamma_2 and of the injectors' gamma.
    encoder.drop_path = 0.3  # Linear from 0 over the blocks; the extractors have the full rate.
    encoder.adapter_channels = 64  # Of the convolutional stem.
    encoder.adapter_heads = 16  # Deformable attention of injectors and extractors.
    encoder.adapter_points = 4
    encoder.adapter_value_ratio = 0.5
    encoder.adapter_ffn_ratio = 0.25
    encoder.extra_extractors = 2
    return encoder


def mask2former() -> ConfigDict:
    """Mask2Former as wide as the encoder: every value is ViT-Adapter's."""
    decoder = ConfigDict()
    decoder.name = "mask2former"
    decoder.dim = 1024
    decoder.heads = 32
    decoder.points = 4  # Sampling points of the pixel decoder's deformable attention.
    decoder.encoder_ffn_dim = 4096  # Of the pixel decoder's encoder layers.
    decoder.ffn_dim = 4096  # Of the transformer decoder's layers.
    decoder.encoder_layers = 6
    decoder.decoder_layers = 9
    decoder.num_queries = 200
    decoder.query_std = 1.0  # Of the queries and their positions as training begins; torch's Embedding.
    decoder.norm_groups = 32
    return decoder


def upernet() -> ConfigDict:
    """UperNet with an auxiliary FCN head: every value is unilm's."""
    decoder = ConfigDict()
    decoder.name = "upernet"
    decoder.dim = 1024
    decoder.pool_scales = (1, 2, 3, 6)
    decoder.dropout = 0.1  # Of both heads, before the classifier.
    decoder.auxiliary_dim = 256
    decoder.auxiliary_level = 2  # The map at 1/16.
    return decoder


def segformer() -> ConfigDict:
    """SegFormer's decoder: every value is that of NVlabs/SegFormer local_configs/segformer/B2/."""
    decoder = ConfigDict()
    decoder.name = "segformer"
    decoder.variant = "nvlabs"  # Or "mmseg", whose head differs; see models/decoders/segformer.py.
    decoder.dim = 768  # B0 and B1: 256.
    decoder.dropout = 0.1  # Before the classifier.
    decoder.dropped = "channels"  # Whole channels; or "elements", as Hugging Face's code.
    return decoder


def memory_a() -> ConfigDict:
    """Decoder A of paper 001 on UperNet's features.

    "MCIBI" is the memory's public forerunner, SegmentationBLWX/sssegmentation ssseg/modules/models/segmentors/mcibi/
    with ssseg/configs/_base_/segmentors/mcibi.py.
    """
    decoder = upernet()
    decoder.name = "memory_a"
    decoder.level = 1  # The map at 1/8: paper 001, equation 5 (HW / 64).
    decoder.memory_dim = 512  # MCIBI.
    # MCIBI: what the memory holds is the last map behind a convolution. Or "backbone", the last map itself, as paper
    # 001 says, with its width as memory_dim; or "pyramid", all maps behind a convolution: ours.
    decoder.memory_space = "bottleneck"
    decoder.mask = "hard"  # Paper 001: the predicted mask; or "soft", the classes' probabilities, as MCIBI.
    decoder.first_sight = "mean"  # MCIBI; or "pixel": paper 001 draws one pixel of each class.
    decoder.momentum = 0.9  # MCIBI. The paper states none.
    decoder.momentum_follows_rate = True  # MCIBI (adjust_by_learning_rate): times the rate's share of its base.
    # Paper 001: "in the initial stage of training" the truth takes the mask's place. How long is ours: an epoch.
    decoder.truth_steps = 176  # Of 2806 videos by 16 a step.
    decoder.truth_epochs = 1  # More than 0: so many times through the data, and `truth_steps` is not read.
    return decoder


def memory_b(decoder_a: ConfigDict) -> ConfigDict:
    """Decoder B of paper 001: a decoder A, as `memory_a` gives it, behind temporal memory attention."""
    decoder = decoder_a.copy_and_resolve_references()
    decoder.name = "memory_b"
    return _looking_back(decoder)


def _looking_back(decoder: ConfigDict) -> ConfigDict:
    """Adds the fields of temporal memory attention, with TMANet's values.

    "TMANet" is wanghao9610/TMANet configs/video/cityscapes/ and mmseg/models/decode_heads/tma_head.py.
    """
    decoder.past = 2  # Frames that it looks back; TMANet.
    # In training: the last ones, as TMANet's released runs, whose sequence_range is as long; or "drawn" from all before
    # a frame in its clip, which needs longer clips (data.frames).
    decoder.past_frames = "last"
    decoder.key_dim = 64  # TMANet.
    decoder.value_dim = 256  # TMANet.
    return decoder


def _auxiliary_fcn(decoder: ConfigDict) -> ConfigDict:
    """Adds the fields of both heads' drop-out and of an auxiliary FCN head, with mmseg's values."""
    decoder.dropout = 0.1  # Before the classifier.
    decoder.dropped = "channels"  # Of drop-out in both heads: whole channels; or "elements", as torchvision.
    decoder.auxiliary_dim = 256  # 0: no auxiliary head.
    decoder.auxiliary_level = 2  # The third map, at 1/8 as the last.
    decoder.auxiliary_dropout = 0.1
    return decoder


def deeplabv3() -> ConfigDict:
    """DeepLabV3 with an auxiliary FCN head: every value is mmseg's."""
    decoder = ConfigDict()
    decoder.name = "deeplabv3"
    decoder.variant = "mmseg"  # Or "torchvision", whose head differs; see models/decoders/deeplabv3.py.
    decoder.dim = 512
    decoder.dilations = (12, 24, 36)  # In cells of a map at 1/8.
    return _auxiliary_fcn(decoder)


def tmanet() -> ConfigDict:
    """TMANet with an auxiliary FCN head: every value is TMANet's, as in `_looking_back`."""
    decoder = ConfigDict()
    decoder.name = "tmanet"
    decoder.dim = 512
    return _auxiliary_fcn(_looking_back(decoder))


def mcibi() -> ConfigDict:
    """MCIBI over DeepLabV3's pyramid, with an auxiliary FCN head; "MCIBI" is as in `memory_a`."""
    decoder = ConfigDict()
    decoder.name = "mcibi"
    decoder.dim = 512  # MCIBI: feats_channels and out_channels.
    decoder.dilations = (12, 24, 36)  # MCIBI; in cells of a map at 1/8.
    decoder.mask = "soft"  # MCIBI (use_hard_aggregate=False); or "hard".
    decoder.first_sight = "mean"  # MCIBI.
    decoder.momentum = 0.9  # MCIBI.
    decoder.momentum_follows_rate = True  # MCIBI (adjust_by_learning_rate).
    decoder = _auxiliary_fcn(decoder)
    decoder.auxiliary_dim = 512  # MCIBI.
    return decoder


def fcn() -> ConfigDict:
    """FCN with an auxiliary head, another FCN: every value is mmseg's."""
    decoder = ConfigDict()
    decoder.name = "fcn"
    decoder.inputs = "coarsest"  # Of the encoder's maps; or "all", joined with the size of the finest.
    decoder.align_corners = False  # Of the resizes that join maps; HRNet's own code: True.
    decoder.dim = 512
    decoder.num_convs = 2
    decoder.conv_size = 3  # Or 1.
    decoder.concat_input = True  # One more convolution reads the encoder's map beside what the others give.
    return _auxiliary_fcn(decoder)


def joined_fcn(encoder: ConfigDict) -> ConfigDict:
    """HRNetV2's head, an FCN on all maps of an `hrnet` encoder: every value is mmseg's fcn_hr48.py."""
    decoder = fcn()
    decoder.inputs = "all"
    decoder.dim = 15 * encoder.width  # As wide as the maps together.
    decoder.update(num_convs=1, conv_size=1, concat_input=False, dropout=0.0)
    decoder.auxiliary_dim = 0
    return decoder


def ocrnet(encoder: ConfigDict) -> ConfigDict:
    """OCRNet on all maps of an `hrnet` encoder: every value is mmseg's, configs/ocrnet/ocrnet_hr48_*.py."""
    decoder = ConfigDict()
    decoder.name = "ocrnet"
    decoder.inputs = "all"  # Of the encoder's maps; or "coarsest", as mmseg over a ResNet.
    decoder.align_corners = False  # Of the resizes that join maps; HRNet's own code: True.
    decoder.dim = 512
    decoder.key_dim = 256  # Of keys, queries and values.
    decoder.dropout = 0.0  # Before the classifier; over a ResNet 0.1, HRNet's own code 0.05.
    decoder.dropped = "channels"  # Of drop-out in both heads: whole channels; or "elements".
    # The auxiliary head: over an HRNet as wide as the maps together, over a ResNet a 3x3 convolution, 256 wide.
    decoder.auxiliary_dim = 15 * encoder.width
    decoder.auxiliary_size = 1
    decoder.auxiliary_level = 2  # The map that it reads where inputs is "coarsest".
    decoder.auxiliary_dropout = 0.0  # Over a ResNet 0.1.
    return decoder


def ocrnet_vspw() -> ConfigDict:
    """OCRNet on the last map of a dilated ResNet or of Swin, as VSPW's authors have it.

    "VSPW_baseline" is VSPW-dataset/VSPW_baseline models/ocrnet.py; openseg-group/openseg.pytorch
    lib/models/nets/ocrnet.py has the same.
    """
    decoder = ConfigDict()
    decoder.name = "ocrnet"
    decoder.inputs = "coarsest"  # VSPW_baseline.
    decoder.align_corners = False  # No map is resized.
    decoder.dim = 512  # VSPW_baseline.
    decoder.key_dim = 256  # VSPW_baseline.
    decoder.dropout = 0.05  # VSPW_baseline.
    decoder.dropped = "channels"  # VSPW_baseline.
    decoder.auxiliary_dim = 512  # VSPW_baseline; mmseg: 256.
    decoder.auxiliary_size = 3  # VSPW_baseline.
    decoder.auxiliary_level = 2  # VSPW_baseline: the last map but one.
    decoder.auxiliary_dropout = 0.05  # VSPW_baseline.
    return decoder


def ssltm() -> ConfigDict:
    """SSLTM: VSPW's OCRNet and the parts of paper 002.

    "paper" is paper 002, of which only the supplementary was at hand. docs/ssltm.md tells why each value that is "ours"
    is as it is.
    """
    decoder = ocrnet_vspw()
    decoder.name = "ssltm"
    decoder.short_term = 4  # T, frames that the transformer sees; ours, as GuoleiSun/VSS-CFFM.
    decoder.blocks = 1  # Of the transformer, 0 for none; ours: the paper's count of parameters leaves room for one.
    decoder.heads = 8  # Ours.
    decoder.window = (4, 7, 7)  # Frames, rows and columns; ours: all frames, Swin's windows.
    decoder.shift = False  # Paper: the Mix-FFN joins windows; or every second block shifts them, as Video Swin.
    decoder.mlp_ratio = 4.0  # SegFormer's.
    # Paper: RFCE. Or "query": the frame's own classes (QFCE, OCRNet's), "both", "none".
    decoder.context = "reference"
    # At inference: a video's "first" frame, as the paper's section 2.7 has it; or the one at a "distance" before.
    decoder.reference = "first"
    decoder.distance = 60  # Of that; paper, figure 4a: mIoU saturates there.
    decoder.clusters = 3  # Of a class, 0 for none; paper, section 2.1.
    decoder.cluster_update = "mse"  # Paper, section 2.1; or "ema", which it compares with.
    decoder.momentum = 0.01  # Of "ema"; ours.
    return decoder


def projection() -> ConfigDict:
    """The head whose output contrastive losses read in place of a map; only training runs it."""
    head = ConfigDict()
    head.dim = 0  # Its width, 0 for none. ContrastiveSeg has 256; paper 000 states none.
    head.hidden = 0  # Width between its layers; 0 is that of its input, as in ContrastiveSeg.
    head.layers = 2  # 1x1 convolutions; ContrastiveSeg.
    head.input = "encoder"  # Or "decoder": the features at 1/4 of which masks or logits are made.
    head.level = 2  # The encoder's map: 0 to 3 for 1/4 to 1/32. ContrastiveSeg projects what it classifies.
    return head


def bank() -> ConfigDict:
    """What a network remembers of projected features over training; sizes of paper 003 (MDP), table 2."""
    bank = ConfigDict()
    # Prototypes of classes (MDP's own), "region": every image's means of its classes (what it is compared with), or
    # "none".
    bank.kind = "class"
    bank.slots = 128  # Of kind "class": batches that it spans; N_b / b_s = 4096 / 32.
    bank.images = 4096  # Of kind "region": images, each view for itself; N_b.
    return bank
