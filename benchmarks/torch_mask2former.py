"""The decoder of `torch_network`: Mask2Former's pixel decoder and queries. Shapes: N images, C channels, Q queries."""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.torch_vit_adapter import DeformableAttention, centres, split_maps, to_tokens
from vspw_jax.models.decoders.pixel_decoder import sine_position_encoding


class ConvModule(nn.Module):
    """mmcv's: convolution, group norm, perhaps ReLU."""

    def __init__(self, channels_in, channels_out, size, groups, *, bias, relu=False):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, size, padding=size // 2, bias=bias)
        self.gn, self.relu = nn.GroupNorm(groups, channels_out), relu

    def forward(self, x):
        x = self.gn(self.conv(x))
        return F.relu(x) if self.relu else x


class HeadFeedForward(nn.Module):
    """mmcv's FFN without its residual."""

    def __init__(self, dim, hidden):
        super().__init__()
        first = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(first, nn.Linear(hidden, dim))

    def forward(self, x):
        return self.layers(x)


class EncoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attentions = nn.ModuleList([DeformableAttention(config.dim, config.heads, 3, config.points)])
        self.ffns = nn.ModuleList([HeadFeedForward(config.dim, config.encoder_ffn_dim)])
        self.norms = nn.ModuleList([nn.LayerNorm(config.dim) for _ in range(2)])

    def forward(self, x, position, shapes):
        x = self.norms[0](x + self.attentions[0](x + position, centres(shapes), x, shapes))
        return self.norms[1](x + self.ffns[0](x))


class Layers(nn.Module):
    def __init__(self, layers, post_norm=None):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        if post_norm is not None:
            self.post_norm = post_norm


class PixelDecoder(nn.Module):
    def __init__(self, input_dim, config):
        super().__init__()
        dim, groups = config.dim, config.norm_groups
        self.input_convs = nn.ModuleList([ConvModule(input_dim, dim, 1, groups, bias=True) for _ in range(3)])
        self.encoder = Layers(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.level_encoding = nn.Embedding(3, dim)
        self.lateral_convs = nn.ModuleList([ConvModule(input_dim, dim, 1, groups, bias=False)])
        self.output_convs = nn.ModuleList([ConvModule(dim, dim, 3, groups, bias=False, relu=True)])
        self.mask_feature = nn.Conv2d(dim, dim, 1)

    def forward(self, maps):
        quarter, *coarse = maps
        tokens, positions, shapes = [], [], []
        for x, project, embed in zip(coarse[::-1], self.input_convs, self.level_encoding.weight, strict=True):
            shapes.append(tuple(x.shape[2:]))
            tokens.append(to_tokens(project(x)))
            positions.append(sine_positions(shapes[-1], len(embed), embed) + embed)
        x, position = torch.cat(tokens, dim=1), torch.cat(positions)
        for layer in self.encoder.layers:
            x = layer(x, position, shapes)
        memories = split_maps(x, shapes)
        top_down = F.interpolate(memories[-1], quarter.shape[2:], mode="bilinear", align_corners=False)
        return self.mask_feature(self.output_convs[0](self.lateral_convs[0](quarter) + top_down)), memories


def sine_positions(shape, dim, like):
    """(cells, dim) of a map of a shape (H, W), on the device of another tensor and of its type."""
    return torch.from_numpy(sine_position_encoding(*shape, dim)).to(like)


class HeadAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attn = nn.MultiheadAttention(config.dim, config.heads, batch_first=True)

    def forward(self, query, key, value, mask=None):
        if mask is not None:
            mask = mask.repeat_interleave(self.attn.num_heads, dim=0)
        return self.attn(query, key, value, attn_mask=mask, need_weights=False)[0]


class DecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attentions = nn.ModuleList([HeadAttention(config) for _ in range(2)])
        self.ffns = nn.ModuleList([HeadFeedForward(config.dim, config.ffn_dim)])
        self.norms = nn.ModuleList([nn.LayerNorm(config.dim) for _ in range(3)])

    def forward(self, x, query_embed, memory, position, mask):
        x = self.norms[0](x + self.attentions[0](x + query_embed, memory + position, memory, mask))
        query = x + query_embed
        x = self.norms[1](x + self.attentions[1](query, query, x))
        return self.norms[2](x + self.ffns[0](x))


class Mask2Former(nn.Module):
    def __init__(self, input_dim, num_classes, config):
        super().__init__()
        dim = config.dim
        self.pixel_decoder = PixelDecoder(input_dim, config)
        self.transformer_decoder = Layers(
            (DecoderLayer(config) for _ in range(config.decoder_layers)), nn.LayerNorm(dim)
        )
        self.query_embed, self.query_feat = (nn.Embedding(config.num_queries, dim) for _ in range(2))
        self.level_embed = nn.Embedding(3, dim)
        self.cls_embed = nn.Linear(dim, num_classes + 1)
        self.mask_embed = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )

    def predict(self, x, mask_feature):
        x = self.transformer_decoder.post_norm(x)
        return self.cls_embed(x), torch.einsum("nqc,nchw->nqhw", self.mask_embed(x), mask_feature)

    def forward(self, maps):
        mask_feature, memories = self.pixel_decoder(maps)
        positions = [sine_positions(x.shape[2:], x.shape[1], self.level_embed.weight) for x in memories]
        tokens = [to_tokens(x) + embed for x, embed in zip(memories, self.level_embed.weight, strict=True)]
        x = self.query_feat.weight.expand(len(mask_feature), -1, -1)
        predictions = [self.predict(x, mask_feature)]
        for number, layer in enumerate(self.transformer_decoder.layers):
            level = number % 3
            shape = memories[level].shape[2:]
            logits = F.interpolate(predictions[-1][1].detach(), shape, mode="bilinear", align_corners=False)
            outside = logits.flatten(2) < 0
            outside &= ~outside.all(dim=-1, keepdim=True)
            x = layer(x, self.query_embed.weight, tokens[level], positions[level], outside)
            predictions.append(self.predict(x, mask_feature))
        return [torch.stack(parts) for parts in zip(*predictions, strict=True)]
