"""The DDPM network as pesser/pytorch_diffusion and ermongroup/ddim (`models/diffusion.py`) have it in PyTorch.

Marks: GroupNorm ε 1e-6, stride-2 convolutions padded on the right and bottom alone, [sin, cos] with shift 1.
"""

import torch
from torch import nn
from torch.nn.functional import silu

from torch_reference.unets.parts import Sinusoids, attend, block_widths, chain, conv1, conv3

TINY = {
    "resolution": 8,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (4,),
    "dropout": 0.1,
}
CIFAR10 = {
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": (1, 2, 2, 2),
    "num_res_blocks": 2,
    "attn_resolutions": (16,),
    "dropout": 0.1,
}
LSUN = {**CIFAR10, "resolution": 256, "ch_mult": (1, 1, 2, 2, 4, 4), "dropout": 0.0}
CELEBA = {**CIFAR10, "resolution": 64, "ch_mult": (1, 2, 2, 2, 4)}


def norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, channels, out_channels, temb_channels, dropout):
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = conv3(channels, out_channels)
        self.temb_proj = nn.Linear(temb_channels, out_channels)
        self.norm2 = norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3(out_channels, out_channels)
        if channels != out_channels:
            self.nin_shortcut = conv1(channels, out_channels)

    def forward(self, x, temb):
        h = self.conv1(silu(self.norm1(x)))
        h = h + self.temb_proj(silu(temb))[:, :, None, None]
        h = self.conv2(self.dropout(silu(self.norm2(h))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (conv1(channels, channels) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        h = attend(*(project(h).flatten(2) for project in (self.q, self.k, self.v)))
        return x + self.proj_out(h.view_as(x))


def downsample(channels, with_conv):
    if not with_conv:
        return nn.AvgPool2d(2)
    return chain(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=nn.Conv2d(channels, channels, 3, stride=2))


def upsample(channels, with_conv):
    nearest = nn.Upsample(scale_factor=2, mode="nearest")
    return chain(nearest=nearest, conv=conv3(channels, channels)) if with_conv else nearest


class Model(nn.Module):
    """ε̂ for x `[B, in_channels, H, W]` and t `[B]`: `[B, out_ch, H, W]`."""

    def __init__(
        self,
        *,
        ch,
        out_ch,
        ch_mult,
        num_res_blocks,
        attn_resolutions,
        in_channels,
        resolution,
        dropout=0.0,
        resamp_with_conv=True,
    ):
        super().__init__()
        widths = [ch * multiple for multiple in ch_mult]
        down, up = block_widths(ch, widths, num_res_blocks)

        def level(index, pairs, resample):
            attended = resolution >> index in attn_resolutions
            parts = {
                "block": nn.ModuleList(ResnetBlock(*pair, 4 * ch, dropout) for pair in pairs),
                "attn": nn.ModuleList(AttnBlock(width) for _, width in pairs if attended),
            }
            return nn.ModuleDict(parts | resample)

        self.sinusoids = Sinusoids(ch, shift=1)
        self.temb = nn.ModuleDict({"dense": nn.ModuleList([nn.Linear(ch, 4 * ch), nn.Linear(4 * ch, 4 * ch)])})
        self.conv_in = conv3(in_channels, ch)
        self.down = nn.ModuleList()
        for index, pairs in enumerate(down):
            last = index == len(down) - 1
            resample = {} if last else {"downsample": downsample(widths[index], resamp_with_conv)}
            self.down.append(level(index, pairs, resample))
        self.mid = nn.ModuleDict(
            {
                "block_1": ResnetBlock(widths[-1], widths[-1], 4 * ch, dropout),
                "attn_1": AttnBlock(widths[-1]),
                "block_2": ResnetBlock(widths[-1], widths[-1], 4 * ch, dropout),
            }
        )
        self.up = nn.ModuleList()
        for index, pairs in enumerate(up):
            resample = {"upsample": upsample(widths[index], resamp_with_conv)} if index else {}
            self.up.append(level(index, pairs, resample))
        self.norm_out = norm(widths[0])
        self.conv_out = conv3(widths[0], out_ch)

    def forward(self, x, t):
        first, second = self.temb["dense"]
        temb = second(silu(first(self.sinusoids(t))))

        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            for j, block in enumerate(level["block"]):
                h = block(h, temb)
                h = level["attn"][j](h) if level["attn"] else h
                skips.append(h)
            if "downsample" in level:
                h = level["downsample"](h)
                skips.append(h)

        h = self.mid["attn_1"](self.mid["block_1"](h, temb))
        h = self.mid["block_2"](h, temb)

        for level in reversed(self.up):
            for j, block in enumerate(level["block"]):
                h = block(torch.cat([h, skips.pop()], dim=1), temb)
                h = level["attn"][j](h) if level["attn"] else h
            if "upsample" in level:
                h = level["upsample"](h)
        return self.conv_out(silu(self.norm_out(h)))
