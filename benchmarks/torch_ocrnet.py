"""OCRNet in PyTorch, written from the paper, with the names of mmsegmentation and of HRNet's own code.

Drop-out is left out: it changes nothing in evaluation, and training is compared without it. Every network gives (maps,
logits, auxiliary logits).
"""

import torch
from torch import nn

from benchmarks.torch_heads import ConvModule, MmsegFcn, modules
from benchmarks.torch_hrnet import HRNet, joined
from benchmarks.torch_resnet import ResNet


def regions(features, logits):
    """(N, C, K, 1): the mean feature of each class's cells."""
    shares = logits.flatten(2).softmax(dim=2)
    return torch.einsum("nks,ncs->nck", shares, features.flatten(2)).unsqueeze(3)


def attended(query, key, value):
    """What the cells of `query` (N, D, H, W) find among regions (N, D, K, 1)."""
    logits = torch.einsum("ndhw,ndk->nkhw", query, key[..., 0]) * query.shape[1] ** -0.5
    return torch.einsum("nkhw,ndk->ndhw", logits.softmax(dim=1), value[..., 0])


class MmsegAttention(nn.Module):
    def __init__(self, dim, key_dim):
        super().__init__()
        self.key_project = nn.Sequential(ConvModule(dim, key_dim, 1), ConvModule(key_dim, key_dim, 1))
        self.query_project = nn.Sequential(ConvModule(dim, key_dim, 1), ConvModule(key_dim, key_dim, 1))
        self.value_project, self.out_project = ConvModule(dim, key_dim, 1), ConvModule(key_dim, dim, 1)
        self.bottleneck = ConvModule(2 * dim, dim, 1)

    def forward(self, x, context):
        found = attended(self.query_project(x), self.key_project(context), self.value_project(context))
        return self.bottleneck(torch.cat([self.out_project(found), x], dim=1))


class MmsegOcr(nn.Module):
    def __init__(self, channels_in, dim, key_dim, num_classes):
        super().__init__()
        self.bottleneck = ConvModule(channels_in, dim, 3)
        self.object_context_block = MmsegAttention(dim, key_dim)
        self.conv_seg = nn.Conv2d(dim, num_classes, 1)

    def forward(self, x, guess):
        features = self.bottleneck(x)
        return self.conv_seg(self.object_context_block(features, regions(features, guess)))


class MmsegOcrnet(nn.Module):
    """Over an HRNet, which gives it all maps joined, or over a ResNet, whose third map makes the first guess."""

    def __init__(self, backbone, dim, key_dim, auxiliary_dim, num_classes):
        super().__init__()
        self.backbone, self.joins = backbone, isinstance(backbone, HRNet)
        coarsest = 32 * backbone.conv_width if not self.joins else sum(backbone.widths)
        of_guess, size = (coarsest, 1) if self.joins else (coarsest // 2, 3)
        guess = MmsegFcn(of_guess, auxiliary_dim, num_classes, 1, False, size)
        self.decode_head = nn.ModuleList([guess, MmsegOcr(coarsest, dim, key_dim, num_classes)])

    def forward(self, x):
        maps = self.backbone(x)
        both = [joined(maps)] * 2 if self.joins else maps[2:]
        guess = self.decode_head[0](both[0])
        return maps, self.decode_head[1](both[1], guess), guess


class OwnAttention(nn.Module):
    def __init__(self, dim, key_dim):
        super().__init__()
        transform = lambda: nn.Sequential(*own(dim, key_dim), *own(key_dim, key_dim))
        self.f_pixel, self.f_object = transform(), transform()
        self.f_down, self.f_up = nn.Sequential(*own(dim, key_dim)), nn.Sequential(*own(key_dim, dim))

    def forward(self, x, context):
        return self.f_up(attended(self.f_pixel(x), self.f_object(context), self.f_down(context)))


def own(channels_in, channels_out):
    """A 1x1 convolution, and a norm and a ReLU as one module."""
    convolution, norm, relu = modules(channels_in, channels_out, 1)
    return convolution, nn.Sequential(norm, relu)


class OwnDistribution(nn.Module):
    def __init__(self, dim, key_dim):
        super().__init__()
        self.object_context_block = OwnAttention(dim, key_dim)
        self.conv_bn_dropout = nn.Sequential(*own(2 * dim, dim))

    def forward(self, x, context):
        return self.conv_bn_dropout(torch.cat([self.object_context_block(x, context), x], dim=1))


class OwnOcrnet(HRNet):
    """HRNet's own code: its heads' first convolutions have biases, and corners are aligned."""

    def __init__(self, sizes, dim, key_dim, num_classes):
        super().__init__(**sizes, upsampling="aligned")
        width, biased = sum(self.widths), lambda *sizes, **options: nn.Conv2d(*sizes, bias=True, **options)
        self.conv3x3_ocr = nn.Sequential(biased(width, dim, 3, padding=1), nn.BatchNorm2d(dim), nn.ReLU())
        self.ocr_distri_head, self.cls_head = OwnDistribution(dim, key_dim), nn.Conv2d(dim, num_classes, 1)
        self.aux_head = nn.Sequential(
            biased(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, x):
        maps = super().forward(x)
        everything = joined(maps, align_corners=True)
        guess, features = self.aux_head(everything), self.conv3x3_ocr(everything)
        return maps, self.cls_head(self.ocr_distri_head(features, regions(features, guess))), guess


def resnet(width, depths):
    backbone = ResNet("deep", width, depths, 8)
    backbone.conv_width = width
    return backbone
