"""The encoder of `torch_network`: BEiT with ViT-Adapter, and the deformable attention that the decoder takes too.

Shapes: N images, C channels, H W cells, S tokens.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vspw_jax.models.deformable_attention import cell_centres


def position_index(height, width):
    """Row of the relative position table for every (query, key), class token first."""
    y, x = (grid.flatten() for grid in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    dy, dx = y[:, None] - y + height - 1, x[:, None] - x + width - 1
    rows = (2 * height - 1) * (2 * width - 1) + 3
    index = torch.full((height * width + 1,) * 2, rows - 3)
    index[:, 0] = rows - 2
    index[0, 0] = rows - 1
    index[1:, 1:] = dy * (2 * width - 1) + dx
    return index


def to_map(tokens, shape):
    return tokens.transpose(1, 2).unflatten(2, shape)


def to_tokens(x):
    return x.flatten(2).transpose(1, 2)


def split_maps(tokens, shapes):
    parts = tokens.split([height * width for height, width in shapes], dim=1)
    return [to_map(part, shape) for part, shape in zip(parts, shapes, strict=True)]


class Attention(nn.Module):
    def __init__(self, dim, heads, window):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        rows = (2 * window[0] - 1) * (2 * window[1] - 1) + 3
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        self.register_buffer("index", position_index(*window), persistent=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        positions = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None].contiguous()
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=positions)
        return self.proj(output.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config, window):
        super().__init__()
        dim = config.dim
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn = Attention(dim, config.heads, window)
        self.mlp = FeedForward(dim, int(dim * config.mlp_ratio))
        self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    def forward(self, x):
        x = x + self.gamma_1 * self.attn(self.norm1(x))
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class DeformableAttention(nn.Module):
    def __init__(self, dim, heads, levels, points, ratio=1.0):
        super().__init__()
        self.shape = (heads, levels, points)
        samples = heads * levels * points
        self.sampling_offsets, self.attention_weights = nn.Linear(dim, 2 * samples), nn.Linear(dim, samples)
        self.value_proj, self.output_proj = nn.Linear(dim, int(dim * ratio)), nn.Linear(int(dim * ratio), dim)

    def forward(self, query, reference, feature, shapes):
        heads, levels, points = self.shape
        num_images, num_queries, _ = query.shape
        offsets = self.sampling_offsets(query).unflatten(2, (heads, levels, points, 2)).float()
        weights = self.attention_weights(query).unflatten(2, (heads, -1)).softmax(dim=-1)
        values = self.value_proj(feature).split([height * width for height, width in shapes], dim=1)
        samples = []
        for level, (height, width) in enumerate(shapes):
            value = values[level].transpose(1, 2).reshape(num_images * heads, -1, height, width)
            size = offsets.new_tensor([width, height])
            places = reference.to(offsets)[:, None, None] + offsets[:, :, :, level] / size
            grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)
            samples.append(F.grid_sample(value, grid, align_corners=False))
        weights = weights.transpose(1, 2).reshape(num_images * heads, 1, num_queries, levels * points)
        output = (torch.cat(samples, dim=-1) * weights).sum(dim=-1)
        return self.output_proj(output.reshape(num_images, -1, num_queries).transpose(1, 2))


def centres(shapes):
    return torch.from_numpy(cell_centres(shapes))


def conv_norm_relu(channels_in, channels_out, stride):
    conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
    return conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)


class SpatialPrior(nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        layers = (*conv_norm_relu(3, width, 2), *conv_norm_relu(width, width, 1), *conv_norm_relu(width, width, 1))
        self.stem = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))
        self.conv2 = nn.Sequential(*conv_norm_relu(width, 2 * width, 2))
        self.conv3 = nn.Sequential(*conv_norm_relu(2 * width, 4 * width, 2))
        self.conv4 = nn.Sequential(*conv_norm_relu(4 * width, 4 * width, 2))
        self.fc1, self.fc2 = nn.Conv2d(width, dim, 1), nn.Conv2d(2 * width, dim, 1)
        self.fc3, self.fc4 = nn.Conv2d(4 * width, dim, 1), nn.Conv2d(4 * width, dim, 1)

    def forward(self, image):
        quarter = self.stem(image)
        eighth = self.conv2(quarter)
        sixteenth = self.conv3(eighth)
        return self.fc1(quarter), self.fc2(eighth), self.fc3(sixteenth), self.fc4(self.conv4(sixteenth))


class DepthwiseConv(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, tokens, shapes):
        return torch.cat([to_tokens(self.dwconv(x)) for x in split_maps(tokens, shapes)], dim=1)


class ConvFeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = nn.Linear(dim, hidden), DepthwiseConv(hidden), nn.Linear(hidden, dim)

    def forward(self, x, shapes):
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), shapes)))


class Injector(nn.Module):
    def __init__(self, config, levels=3):
        super().__init__()
        dim = config.dim
        self.query_norm, self.feat_norm = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn = DeformableAttention(
            dim, config.adapter_heads, levels, config.adapter_points, config.adapter_value_ratio
        )
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x, pyramid, window, shapes):
        return x + self.gamma * self.attn(self.query_norm(x), centres([window]), self.feat_norm(pyramid), shapes)


class Extractor(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim = config.dim
        self.query_norm, self.feat_norm = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn = DeformableAttention(dim, config.adapter_heads, 1, config.adapter_points, config.adapter_value_ratio)
        self.ffn_norm = nn.LayerNorm(dim, 1e-6)
        self.ffn = ConvFeedForward(dim, int(dim * config.adapter_ffn_ratio))

    def forward(self, pyramid, x, window, shapes):
        attended = self.attn(self.query_norm(pyramid), centres(shapes), self.feat_norm(x), [window])
        pyramid = pyramid + attended
        return pyramid + self.ffn(self.ffn_norm(pyramid), shapes)


class Interaction(nn.Module):
    def __init__(self, config, extra_extractors):
        super().__init__()
        self.injector, self.extractor = Injector(config), Extractor(config)
        if extra_extractors:
            self.extra_extractors = nn.ModuleList([Extractor(config) for _ in range(extra_extractors)])
        else:
            self.extra_extractors = ()

    def forward(self, token, x, pyramid, blocks, window, shapes):
        x = torch.cat([token, self.injector(x, pyramid, window, shapes)], dim=1)
        for block in blocks:
            x = block(x)
        token, x = x[:, :1], x[:, 1:]
        for extractor in (self.extractor, *self.extra_extractors):
            pyramid = extractor(pyramid, x, window, shapes)
        return token, x, pyramid


class PatchEmbedding(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 16, 16)

    def forward(self, image):
        return to_tokens(self.proj(image))


class ViTAdapter(nn.Module):
    def __init__(self, config, image_size):
        super().__init__()
        dim = config.dim
        self.window = (image_size[0] // 16, image_size[1] // 16)
        self.patch_embed = PatchEmbedding(dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.level_embed = nn.Parameter(torch.zeros(3, dim))
        self.spm = SpatialPrior(dim, config.adapter_channels)
        self.blocks = nn.ModuleList([Block(config, self.window) for _ in range(config.depth)])
        self.interactions = nn.ModuleList(
            [Interaction(config, config.extra_extractors if number == 3 else 0) for number in range(4)]
        )
        self.up = nn.ConvTranspose2d(dim, dim, 2, 2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm2d(dim) for _ in range(4))

    def forward(self, image):
        height, width = self.window
        shapes = [(2 * height, 2 * width), (height, width), (height // 2, width // 2)]
        quarter, *coarse = self.spm(image)
        pyramid = torch.cat([to_tokens(x) + embed for x, embed in zip(coarse, self.level_embed, strict=True)], dim=1)
        x = self.patch_embed(image)
        token = self.cls_token.expand(len(x), -1, -1)
        patches, depth = [], len(self.blocks) // 4
        for number, interaction in enumerate(self.interactions):
            blocks = self.blocks[number * depth : (number + 1) * depth]
            token, x, pyramid = interaction(token, x, pyramid, blocks, self.window, shapes)
            patches.append(to_map(x, self.window))
        eighth, sixteenth, thirtysecond = split_maps(pyramid, shapes)
        maps = [self.up(eighth) + quarter, eighth, sixteenth, thirtysecond]
        norms = (self.norm1, self.norm2, self.norm3, self.norm4)
        return [
            norm(x + F.interpolate(patch, x.shape[2:], mode="bilinear", align_corners=False))
            for norm, x, patch in zip(norms, maps, patches, strict=True)
        ]
