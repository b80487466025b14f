"""DeepLabV3's and FCN's heads in PyTorch, written from the papers with the names of mmsegmentation and torchvision.

Where torchvision is installed, `tests/parity/test_deeplabv3.py` compares its own with these. Drop-out is left out: it
changes nothing in evaluation, and training is compared without it.
"""

import torch
from torch import nn

from benchmarks.torch_resnet import ResNet, conv


class ConvModule(nn.Module):
    """mmcv's."""

    def __init__(self, channels_in, channels_out, size, dilation=1):
        super().__init__()
        self.conv, self.bn = conv(channels_in, channels_out, size, 1, dilation), nn.BatchNorm2d(channels_out)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


def modules(channels_in, channels_out, size, dilation=1):
    """The same in torchvision's numbers."""
    return conv(channels_in, channels_out, size, 1, dilation), nn.BatchNorm2d(channels_out), nn.ReLU()


class MmsegAspp(nn.Module):
    def __init__(self, channels_in, dim, num_classes, dilations):
        super().__init__()
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(channels_in, dim, 1))
        branches = [ConvModule(channels_in, dim, 3, dilation) for dilation in dilations]
        self.aspp_modules = nn.ModuleList([ConvModule(channels_in, dim, 1), *branches])
        self.bottleneck = ConvModule((len(dilations) + 2) * dim, dim, 3)
        self.conv_seg = nn.Conv2d(dim, num_classes, 1)

    def features(self, x):
        pooled = self.image_pool(x).expand(-1, -1, *x.shape[2:])
        return self.bottleneck(torch.cat([pooled, *(branch(x) for branch in self.aspp_modules)], dim=1))

    def forward(self, x):
        return self.conv_seg(self.features(x))


class MmsegFcn(nn.Module):
    def __init__(self, channels_in, dim, num_classes, num_convs, concat_input, size=3):
        super().__init__()
        inputs = [channels_in, *[dim] * (num_convs - 1)]
        self.convs = nn.Sequential(*(ConvModule(width, dim, size) for width in inputs))
        if concat_input:
            self.conv_cat = ConvModule(channels_in + dim, dim, 3)
        self.conv_seg = nn.Conv2d(dim, num_classes, 1)

    def forward(self, x):
        features = self.convs(x)
        return self.conv_seg(self.conv_cat(torch.cat([x, features], dim=1)) if hasattr(self, "conv_cat") else features)


class TorchvisionAspp(nn.Module):
    def __init__(self, channels_in, dim, dilations):
        super().__init__()
        branches = [nn.Sequential(*modules(channels_in, dim, 3, dilation)) for dilation in dilations]
        pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), *modules(channels_in, dim, 1))
        self.convs = nn.ModuleList([nn.Sequential(*modules(channels_in, dim, 1)), *branches, pooling])
        self.project = nn.Sequential(*modules((len(dilations) + 2) * dim, dim, 1))

    def forward(self, x):
        parts = [module(x).expand(-1, -1, *x.shape[2:]) for module in self.convs]
        return self.project(torch.cat(parts, dim=1))


def torchvision_head(channels_in, dim, num_classes, dilations):
    aspp = TorchvisionAspp(channels_in, dim, dilations)
    return nn.Sequential(aspp, *modules(dim, dim, 3), nn.Conv2d(dim, num_classes, 1))


def torchvision_fcn(channels_in, dim, num_classes):
    return nn.Sequential(*modules(channels_in, dim, 3), nn.Identity(), nn.Conv2d(dim, num_classes, 1))


class Network(nn.Module):
    """A ResNet, a head on its last map and one on its third; the code's names of the three."""

    def __init__(self, backbone, names, head, auxiliary):
        super().__init__()
        self.backbone, self.names = backbone, names
        for name, module in zip(names, (head, auxiliary), strict=True):
            setattr(self, name, module)

    def forward(self, x):
        """(logits, auxiliary logits), each with the size of its map."""
        maps = self.backbone(x)
        return getattr(self, self.names[0])(maps[3]), getattr(self, self.names[1])(maps[2])


MMSEG, TORCHVISION = ("decode_head", "auxiliary_head"), ("classifier", "aux_classifier")


def mmseg_deeplabv3(width, depths, dim, auxiliary_dim, num_classes, dilations=(12, 24, 36)):
    head = MmsegAspp(32 * width, dim, num_classes, dilations)
    auxiliary = MmsegFcn(16 * width, auxiliary_dim, num_classes, 1, False)
    return Network(ResNet("deep", width, depths, 8), MMSEG, head, auxiliary)


def torchvision_deeplabv3(width, depths, dim, auxiliary_dim, num_classes, dilations=(12, 24, 36)):
    head = torchvision_head(32 * width, dim, num_classes, dilations)
    return Network(
        ResNet("plain", width, depths, 8), TORCHVISION, head, torchvision_fcn(16 * width, auxiliary_dim, num_classes)
    )


def mmseg_fcn(width, depths, dim, auxiliary_dim, num_classes):
    head = MmsegFcn(32 * width, dim, num_classes, 2, True)
    auxiliary = MmsegFcn(16 * width, auxiliary_dim, num_classes, 1, False)
    return Network(ResNet("deep", width, depths, 8), MMSEG, head, auxiliary)


def torchvision_fcn_resnet(width, depths, dim, auxiliary_dim, num_classes):
    heads = torchvision_fcn(32 * width, dim, num_classes), torchvision_fcn(16 * width, auxiliary_dim, num_classes)
    return Network(ResNet("plain", width, depths, 8), TORCHVISION, *heads)
