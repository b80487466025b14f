"""HRNet in PyTorch, written from the paper with the names that HRNet's own code, mmsegmentation and timm share."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from benchmarks.torch_resnet import Block, conv


def conv_norm(channels_in, channels_out, size=3, stride=1, relu=False):
    modules = (conv(channels_in, channels_out, size, stride), nn.BatchNorm2d(channels_out))
    return nn.Sequential(*modules, *([nn.ReLU()] if relu else []))


class BasicBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


def resized(x, factor, size, upsampling):
    """A coarser branch with the size of a finer one, as the code of this upsampling has it."""
    if upsampling == "nearest":
        return interpolate(x, scale_factor=factor, mode="nearest")
    if upsampling in ("aligned", "once"):
        return interpolate(x, size=size, mode="bilinear", align_corners=upsampling == "aligned")
    x = interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    return interpolate(x, size=size, mode="bilinear", align_corners=False)


class HighResolutionModule(nn.Module):
    def __init__(self, widths, blocks, upsampling):
        super().__init__()
        self.upsampling = upsampling
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in widths)
        numbers = range(len(widths))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.summand(widths, other, number) for other in numbers) for number in numbers
        )

    @staticmethod
    def summand(widths, other, number):
        if other == number:
            return None
        if other > number:
            return conv_norm(widths[other], widths[number], 1)
        steps = number - other
        halvings = [conv_norm(widths[other], widths[other], 3, 2, relu=True) for _ in range(steps - 1)]
        return nn.Sequential(*halvings, conv_norm(widths[other], widths[number], 3, 2))

    def forward(self, maps):
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for number, own in enumerate(maps):
            total = own
            for other, x in enumerate(maps):
                if other != number:
                    x = self.fuse_layers[number][other](x)
                    if other > number:
                        x = resized(x, 2 ** (other - number), own.shape[2:], self.upsampling)
                    total = total + x
            fused.append(total.relu())
        return fused


class HRNet(nn.Module):
    """Gives the maps of the four branches."""

    def __init__(self, width, stem_width, bottleneck_width, bottlenecks, modules, blocks, upsampling):
        super().__init__()
        self.conv1, self.bn1 = conv(3, stem_width, 3, 2), nn.BatchNorm2d(stem_width)
        self.conv2, self.bn2 = conv(stem_width, stem_width, 3, 2), nn.BatchNorm2d(stem_width)
        inputs = [stem_width, *[4 * bottleneck_width] * (bottlenecks - 1)]
        self.layer1 = nn.Sequential(*(Block(channels, bottleneck_width, 1, 1) for channels in inputs))
        self.widths = [width * 2**number for number in range(4)]
        sources = (4 * bottleneck_width, *self.widths[1:])
        for number in (1, 2, 3):
            new = nn.Sequential(conv_norm(sources[number - 1], self.widths[number], 3, 2, relu=True))
            first = conv_norm(sources[0], width, 3, relu=True) if number == 1 else None
            setattr(self, f"transition{number}", nn.ModuleList([first, *[None] * (number - 1), new]))
            stage = (
                HighResolutionModule(self.widths[: number + 1], blocks, upsampling) for _ in range(modules[number - 1])
            )
            setattr(self, f"stage{number + 1}", nn.Sequential(*stage))

    def forward(self, x):
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        x = self.layer1(x)
        maps = self.stage2([self.transition1[0](x), self.transition1[1](x)])
        maps = self.stage3([*maps, self.transition2[2](maps[-1])])
        return self.stage4([*maps, self.transition3[3](maps[-1])])


def joined(maps, align_corners=False):
    size = maps[0].shape[2:]
    others = (interpolate(x, size=size, mode="bilinear", align_corners=align_corners) for x in maps[1:])
    return torch.cat([maps[0], *others], dim=1)


class HrnetFcn(nn.Module):
    """HRNet with the head of its own code, whose first convolution has a bias; gives (maps, logits).

    `align_corners` is the code's one flag, for all its resizes.
    """

    def __init__(self, sizes, num_classes, align_corners):
        super().__init__()
        self.align_corners = align_corners
        self.model = HRNet(**sizes, upsampling="aligned" if align_corners else "once")
        width = sum(self.model.widths)
        self.model.last_layer = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, x):
        maps = self.model(x)
        return maps, self.model.last_layer(joined(maps, self.align_corners))
