"""OpenAI's network: improved-diffusion and guided-diffusion, `unet.py`.

Marks: GroupNorm ε 1e-5, stride-2 convolutions padded all round, [cos, sin] with shift 0, FiLM, heads, classes added to
the time embedding. improved-diffusion is the case `num_head_channels=-1, resblock_updown=False,
use_new_attention_order=False`. With `rescale_timesteps` the caller gives the network t·1000/T, a float.
"""

import torch
from torch import nn

from torch_reference.unets.parts import Sinusoids, attend, block_widths, chain, conv1, conv3

TINY = {
    "image_size": 8,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 1,
    "attention_resolutions": (2,),
    "dropout": 0.1,
    "channel_mult": (1, 2),
    "num_classes": 5,
    "num_heads": 4,
    "use_scale_shift_norm": True,
}
TINY_GUIDED = {**TINY, "num_head_channels": 16, "resblock_updown": True, "use_new_attention_order": True}

IDDPM_CIFAR10 = {
    "image_size": 32,
    "in_channels": 3,
    "model_channels": 128,
    "out_channels": 6,
    "num_res_blocks": 3,
    "attention_resolutions": (2, 4),
    "dropout": 0.3,
    "channel_mult": (1, 2, 2, 2),
    "num_heads": 4,
    "use_scale_shift_norm": True,
}
IMAGENET64 = {
    **IDDPM_CIFAR10,
    "image_size": 64,
    "channel_mult": (1, 2, 3, 4),
    "attention_resolutions": (4, 8),
    "dropout": 0.0,
}
IMAGENET64_COND = {**IMAGENET64, "model_channels": 192, "num_classes": 1000}
LSUN = {
    **IDDPM_CIFAR10,
    "image_size": 256,
    "num_res_blocks": 2,
    "channel_mult": (1, 1, 2, 2, 4, 4),
    "attention_resolutions": (16,),
    "num_heads": 1,
    "use_scale_shift_norm": False,
    "dropout": 0.0,
}


def norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-5)


def nearest():
    return nn.Upsample(scale_factor=2, mode="nearest")


class ResBlock(nn.Module):
    """`resample`, a module without weights, acts on both branches, in the main one before its first convolution."""

    def __init__(self, channels, out_channels, emb_channels, dropout, film, resample=None):
        super().__init__()
        self.film, self.resample = film, resample or nn.Identity()
        self.in_layers = nn.Sequential(norm(channels), nn.SiLU(), conv3(channels, out_channels))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, (1 + film) * out_channels))
        self.out_layers = nn.Sequential(
            norm(out_channels), nn.SiLU(), nn.Dropout(dropout), conv3(out_channels, out_channels)
        )
        self.skip_connection = nn.Identity() if channels == out_channels else conv1(channels, out_channels)

    def forward(self, x, emb):
        h = self.in_layers[2](self.resample(self.in_layers[:2](x)))
        emb = self.emb_layers(emb)[:, :, None, None]
        if self.film:
            scale, shift = emb.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + emb)
        return self.skip_connection(self.resample(x)) + h


class AttentionBlock(nn.Module):
    """qkv's channels are `[heads, 3, C/heads]`, or in the new order `[3, heads, C/heads]`."""

    def __init__(self, channels, heads, new_order):
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        h = self.qkv(self.norm(x.flatten(2)))  # [B, 3C, H·W]
        if self.new_order:
            q, k, v = h.unflatten(1, (3, self.heads, -1)).unbind(1)
        else:
            q, k, v = h.unflatten(1, (self.heads, 3, -1)).unbind(2)
        return x + self.proj_out(attend(q, k, v).flatten(1, 2)).view_as(x)


class Stage(nn.Sequential):
    """Modules in sequence, the embedding given to those that take it."""

    def forward(self, x, emb):
        for module in self:
            x = module(x, emb) if isinstance(module, ResBlock) else module(x)
        return x


class UNetModel(nn.Module):
    """x `[B, in_channels, H, W]`, t `[B]` (integers or not), y `int64[B]` if `num_classes`: `[B, out_channels, H, W]`.

    attention_resolutions: by how much the image is downsampled where attention acts, as in the original.
    """

    def __init__(
        self,
        image_size,  # the convolutions do not need it
        in_channels,
        model_channels,
        out_channels,
        num_res_blocks,
        attention_resolutions,
        dropout=0.0,
        channel_mult=(1, 2, 4, 8),
        num_classes=None,
        num_heads=1,
        num_head_channels=-1,
        use_scale_shift_norm=False,
        resblock_updown=False,
        use_new_attention_order=False,
    ):
        super().__init__()
        emb_channels = 4 * model_channels
        widths = [model_channels * multiple for multiple in channel_mult]
        down, up = block_widths(widths[0], widths, num_res_blocks)

        def block(channels, width, resample=None):
            return ResBlock(channels, width, emb_channels, dropout, use_scale_shift_norm, resample)

        def attention(width):
            heads = num_heads if num_head_channels == -1 else width // num_head_channels
            return AttentionBlock(width, heads, use_new_attention_order)

        def attentions(level, width):
            return [attention(width)] if 2**level in attention_resolutions else []

        def downsample(width):
            return block(width, width, nn.AvgPool2d(2)) if resblock_updown else chain(op=conv3(width, width, stride=2))

        def upsample(width):
            if resblock_updown:
                return block(width, width, nearest())
            return chain(nearest=nearest(), conv=conv3(width, width))

        self.sinusoids = Sinusoids(model_channels, cos_first=True)
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, emb_channels)
        self.input_blocks = nn.ModuleList([Stage(conv3(in_channels, widths[0]))])
        for level, pairs in enumerate(down):
            self.input_blocks.extend(Stage(block(*pair), *attentions(level, pair[1])) for pair in pairs)
            if level < len(down) - 1:
                self.input_blocks.append(Stage(downsample(widths[level])))
        self.middle_block = Stage(block(widths[-1], widths[-1]), attention(widths[-1]), block(widths[-1], widths[-1]))
        self.output_blocks = nn.ModuleList()
        for level, pairs in reversed(list(enumerate(up))):
            self.output_blocks.extend(Stage(block(*pair), *attentions(level, pair[1])) for pair in pairs)
            if level:
                self.output_blocks[-1].append(upsample(widths[level]))
        self.out = nn.Sequential(norm(widths[0]), nn.SiLU(), conv3(widths[0], out_channels))

    def forward(self, x, t, y=None):
        emb = self.time_embed(self.sinusoids(t))
        if y is not None:
            emb = emb + self.label_emb(y)
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb)
            skips.append(x)
        x = self.middle_block(x, emb)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb)
        return self.out(x)
