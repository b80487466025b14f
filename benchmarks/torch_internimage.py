"""InternImage in PyTorch, in OpenGVLab's names; sampling as where its compiled operator is not there.

Sources: arXiv 2211.05778, section 3; OpenGVLab/InternImage segmentation/mmseg_custom/models/backbones/intern_image.py
and segmentation/ops_dcnv3/functions/dcnv3_func.py (dcnv3_core_pytorch: `grid_sample` of all groups and points at once).
Shapes: N images, H and W cells, G groups, P = 9 points, C channels.
"""

import torch
from torch import nn


class ChannelsLast(nn.Module):
    """Stands where the source permutes, so that the norm has its number."""

    def forward(self, x_NCHW):
        return x_NCHW.permute(0, 2, 3, 1)


def layer_norm(dim):
    """In the source a norm stands in a sequence, perhaps behind a permutation."""
    return nn.Sequential(nn.LayerNorm(dim, eps=1e-6))


def norm_channels_last(dim):
    return nn.Sequential(ChannelsLast(), nn.LayerNorm(dim, eps=1e-6))


class DeformableConvolution(nn.Module):
    """DCNv3, equation 2."""

    def __init__(self, dim, group_width, reach):
        super().__init__()
        self.groups, self.reach = dim // group_width, reach
        self.dw_conv = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim), norm_channels_last(dim), nn.GELU())
        self.offset, self.mask = nn.Linear(dim, 18 * self.groups), nn.Linear(dim, 9 * self.groups)
        self.input_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def sampled(self, value_NCHW, x_NHWGP, y_NHWGP, mask_NHWGP):
        """Sums over the points, [N, C, H, W]; places in cells, zero outside the map."""
        n, channels, height, width = value_NCHW.shape
        by_group = lambda x: x.permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)  # [N*G, H*W, P]
        places = ((2 * by_group(x_NHWGP) + 1) / width - 1, (2 * by_group(y_NHWGP) + 1) / height - 1)
        found = nn.functional.grid_sample(
            value_NCHW.reshape(n * self.groups, channels // self.groups, height, width),
            torch.stack(places, dim=-1),
            align_corners=False,
        )
        return (found * by_group(mask_NHWGP)[:, None]).sum(-1).reshape(n, channels, height, width)

    def forward(self, x_NHWC):
        chosen = self.dw_conv(x_NHWC.permute(0, 3, 1, 2))
        offset = self.offset(chosen).unflatten(-1, (self.groups, 9, 2))
        mask = self.mask(chosen).unflatten(-1, (self.groups, 9)).softmax(-1)
        value = self.input_proj(x_NHWC).permute(0, 3, 1, 2)
        row, column = (grid.to(x_NHWC) for grid in torch.meshgrid(*map(torch.arange, x_NHWC.shape[1:3]), indexing="ij"))
        point = torch.arange(9).to(x_NHWC)
        x = column[:, :, None, None] + self.reach * (point // 3 - 1 + offset[..., 0])
        y = row[:, :, None, None] + self.reach * (point % 3 - 1 + offset[..., 1])
        return self.output_proj(self.sampled(value, x, y, mask).permute(0, 2, 3, 1))


class Block(nn.Module):
    """The convolution and a feed-forward, with norms before or behind them, and layer scale."""

    def __init__(self, dim, convolution, mlp_ratio, post_norm):
        super().__init__()
        self.post_norm, hidden = post_norm, int(mlp_ratio * dim)
        self.norm1, self.norm2 = layer_norm(dim), layer_norm(dim)
        self.gamma1, self.gamma2 = (nn.Parameter(torch.ones(dim)) for _ in range(2))
        self.dcn = convolution
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "act": nn.GELU(), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x):
        mlp = lambda x: self.mlp["fc2"](self.mlp["act"](self.mlp["fc1"](x)))
        for norm, module, gamma in ((self.norm1, self.dcn, self.gamma1), (self.norm2, mlp, self.gamma2)):
            x = x + gamma * (norm(module(x)) if self.post_norm else module(norm(x)))
        return x


class InternImage(nn.Module):
    """Gives the four maps, channels first; `convolution` is made with (channels, group_width, reach)."""

    def __init__(self, dim, depths, group_width, mlp_ratio, post_norm, reach, convolution=DeformableConvolution):
        super().__init__()
        halving = lambda before, after, bias=True: nn.Conv2d(before, after, 3, 2, 1, bias=bias)
        first = {"conv1": halving(3, dim // 2), "norm1": norm_channels_last(dim // 2)}
        second = {"conv2": halving(dim // 2, dim), "norm2": norm_channels_last(dim)}
        self.patch_embed, self.levels = nn.ModuleDict(first | second), nn.ModuleList()
        for stage, depth in enumerate(depths):
            width = dim * 2**stage
            make = lambda width=width: Block(width, convolution(width, group_width, reach), mlp_ratio, post_norm)
            level = nn.ModuleDict({"blocks": nn.ModuleList([make() for _ in range(depth)])})
            if not post_norm:
                level["norm"] = layer_norm(width)
            if stage < 3:
                parts = {"conv": halving(width, 2 * width, False), "norm": norm_channels_last(2 * width)}
                level["downsample"] = nn.ModuleDict(parts)
            self.levels.append(level)

    def forward(self, image_NCHW):
        channels_first, halved, maps = lambda x: x.permute(0, 3, 1, 2), self.patch_embed, []
        x = nn.functional.gelu(halved["norm1"](halved["conv1"](image_NCHW)))
        x = halved["norm2"](halved["conv2"](channels_first(x)))
        for level in self.levels:
            for block in level["blocks"]:
                x = block(x)
            x = level["norm"](x) if "norm" in level else x
            maps.append(channels_first(x))
            if "downsample" in level:
                x = level["downsample"]["norm"](level["downsample"]["conv"](channels_first(x)))
        return maps
