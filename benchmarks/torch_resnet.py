"""ResNet in PyTorch, written from the paper with the names of torchvision's and, for the deep stem, mmsegmentation's.

Where torchvision is installed, `tests/parity/test_resnet.py` compares this with it.
"""

from torch import nn

STRIDES = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}
FIRST_DILATIONS = {8: (1, 1, 1, 2), 16: (1, 1, 1, 1), 32: (1, 1, 1, 1)}
"""By output stride, of the four stages: replace_stride_with_dilation of torchvision, contract_dilation of mmseg."""


def conv(channels_in, channels_out, size, stride=1, dilation=1):
    return nn.Conv2d(channels_in, channels_out, size, stride, dilation * (size // 2), dilation, bias=False)


class Block(nn.Module):
    def __init__(self, channels_in, width, stride, dilation):
        super().__init__()
        self.conv1, self.bn1 = conv(channels_in, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride, dilation), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or channels_in != 4 * width:
            self.downsample = nn.Sequential(conv(channels_in, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        branch = self.bn1(self.conv1(x)).relu()
        branch = self.bn2(self.conv2(branch)).relu()
        branch = self.bn3(self.conv3(branch))
        return (branch + (x if self.downsample is None else self.downsample(x))).relu()


def deep_stem(width):
    sizes = ((3, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 1))
    modules = []
    for before, after, stride in sizes:
        modules += [conv(before, after, 3, stride), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*modules)


class ResNet(nn.Module):
    """Gives the maps of the four stages."""

    def __init__(self, stem, width, depths, output_stride):
        super().__init__()
        if stem == "deep":
            self.stem = deep_stem(width)
        else:
            self.conv1, self.bn1 = conv(3, width, 7, 2), nn.BatchNorm2d(width)
        channels = width
        for number, depth in enumerate(depths):
            inner, stage = width * 2**number, []
            for block in range(depth):
                stride = 1 if block else STRIDES[output_stride][number]
                dilation = (DILATIONS if block else FIRST_DILATIONS)[output_stride][number]
                stage.append(Block(channels, inner, stride, dilation))
                channels = 4 * inner
            setattr(self, f"layer{number + 1}", nn.Sequential(*stage))

    def forward(self, x):
        x = self.stem(x) if hasattr(self, "stem") else self.bn1(self.conv1(x)).relu()
        maps = [nn.functional.max_pool2d(x, 3, 2, 1)]
        for number in range(4):
            maps.append(getattr(self, f"layer{number + 1}")(maps[-1]))
        return maps[1:]
