"""Janspiry's SR3: `model/sr3_modules/unet.py`, and what an `I{step}_E{epoch}_gen.pth` holds.

Marks: told the noise level √ᾱ in place of t, embedded in [sin, cos] with shift 0 and no factor before it; no activation
between that embedding and a block's projection of it; q, k and v without bias; GroupNorm ε 1e-5, stride-2 convolutions
padded all round; the condition image is concatenated before the noisy one.
"""

import numpy as np
import torch
from torch import nn

from torch_reference.unets.parts import Sinusoids, attend, block_widths, chain, conv1, conv3

TINY = {
    "in_channel": 6,
    "out_channel": 3,
    "inner_channel": 32,
    "channel_mults": (1, 2),
    "attn_res": (4,),
    "res_blocks": 1,
    "image_size": 8,
}
FACES_16_128 = {
    "in_channel": 6,
    "out_channel": 3,
    "inner_channel": 64,
    "channel_mults": (1, 2, 4, 8, 8),
    "attn_res": (16,),
    "res_blocks": 2,
    "dropout": 0.2,
    "image_size": 128,
}
FACES_64_512 = {
    "in_channel": 6,
    "out_channel": 3,
    "inner_channel": 64,
    "norm_groups": 16,
    "channel_mults": (1, 2, 4, 8, 16),
    "attn_res": (),
    "res_blocks": 1,
    "image_size": 512,
}


def block(channels, out_channels, groups, dropout=0.0):
    layers = nn.Sequential(
        nn.GroupNorm(groups, channels), nn.SiLU(), nn.Dropout(dropout), conv3(channels, out_channels)
    )
    return chain(block=layers)


class ResnetBlock(nn.Module):
    def __init__(self, channels, out_channels, level_channels, groups, dropout):
        super().__init__()
        self.noise_func = chain(noise_func=nn.Sequential(nn.Linear(level_channels, out_channels)))
        self.block1 = block(channels, out_channels, groups)
        self.block2 = block(out_channels, out_channels, groups, dropout)
        self.res_conv = nn.Identity() if channels == out_channels else conv1(channels, out_channels)

    def forward(self, x, level):
        h = self.block1(x) + self.noise_func(level)[:, :, None, None]
        return self.block2(h) + self.res_conv(x)


class SelfAttention(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = conv1(channels, 3 * channels, bias=False)
        self.out = conv1(channels, channels)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        return x + self.out(attend(q, k, v).view_as(x))


class ResnetBlocWithAttn(nn.Module):
    def __init__(self, channels, out_channels, attended, level_channels, groups, dropout):
        super().__init__()
        self.res_block = ResnetBlock(channels, out_channels, level_channels, groups, dropout)
        if attended:
            self.attn = SelfAttention(out_channels, groups)

    def forward(self, x, level):
        x = self.res_block(x, level)
        return self.attn(x) if hasattr(self, "attn") else x


class UNet(nn.Module):
    """ε̂ `[B, out_channel, H, W]` for x `[B, in_channel, H, W]` and the noise level √ᾱ, `[B]` or `[B, 1]`.

    attn_res: resolutions, of images that are `image_size` wide.
    """

    def __init__(
        self,
        in_channel=6,
        out_channel=3,
        inner_channel=32,
        norm_groups=32,
        channel_mults=(1, 2, 4, 8, 8),
        attn_res=(8,),
        res_blocks=3,
        dropout=0.0,
        image_size=128,
    ):
        super().__init__()
        widths = [inner_channel * multiple for multiple in channel_mults]
        down, up = block_widths(inner_channel, widths, res_blocks)
        common = inner_channel, norm_groups, dropout

        def blocks(level, pairs):
            return [ResnetBlocWithAttn(*pair, image_size >> level in attn_res, *common) for pair in pairs]

        self.noise_level_mlp = nn.Sequential(
            Sinusoids(inner_channel),
            nn.Linear(inner_channel, 4 * inner_channel),
            nn.SiLU(),
            nn.Linear(4 * inner_channel, inner_channel),
        )
        self.downs = nn.ModuleList([conv3(in_channel, inner_channel)])
        for level, pairs in enumerate(down):
            self.downs.extend(blocks(level, pairs))
            if level < len(down) - 1:
                self.downs.append(chain(conv=conv3(widths[level], widths[level], stride=2)))
        self.mid = nn.ModuleList(
            ResnetBlocWithAttn(widths[-1], widths[-1], attended, *common) for attended in (True, False)
        )
        self.ups = nn.ModuleList()
        for level, pairs in reversed(list(enumerate(up))):
            self.ups.extend(blocks(level, pairs))
            if level:
                up_conv = conv3(widths[level], widths[level])
                self.ups.append(chain(up=nn.Upsample(scale_factor=2, mode="nearest"), conv=up_conv))
        self.final_conv = block(widths[0], out_channel, norm_groups)

    def forward(self, x, level):
        level = self.noise_level_mlp(level)

        def run(layer, x):
            return layer(x, level) if isinstance(layer, ResnetBlocWithAttn) else layer(x)

        skips = []
        for layer in self.downs:
            x = run(layer, x)
            skips.append(x)
        for layer in self.mid:
            x = run(layer, x)
        for layer in self.ups:
            if isinstance(layer, ResnetBlocWithAttn):
                x = torch.cat([x, skips.pop()], dim=1)
            x = run(layer, x)
        return self.final_conv(x)


class GaussianDiffusion(nn.Module):
    """What a `*_gen.pth` holds: the network as `denoise_fn`, and twelve float32 buffers of length T.

    betas: float64 NumPy `[T]`. Its forward is the network's for noisy images x and their condition, both `[B, C, H, W]`;
    the sampler gives it level = √ᾱ[t] at index t.
    """

    def __init__(self, denoise_fn, betas):
        super().__init__()
        self.denoise_fn = denoise_fn
        alphas = 1 - betas
        bars = np.cumprod(alphas)
        before = np.append(1.0, bars[:-1])
        posterior = betas * (1 - before) / (1 - bars)
        buffers = {
            "betas": betas,
            "alphas_cumprod": bars,
            "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": np.sqrt(bars),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - bars),
            "log_one_minus_alphas_cumprod": np.log(1 - bars),
            "sqrt_recip_alphas_cumprod": np.sqrt(1 / bars),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / bars - 1),
            "posterior_variance": posterior,
            "posterior_log_variance_clipped": np.log(np.maximum(posterior, 1e-20)),
            "posterior_mean_coef1": betas * np.sqrt(before) / (1 - bars),
            "posterior_mean_coef2": (1 - before) * np.sqrt(alphas) / (1 - bars),
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, x, condition, level):
        return self.denoise_fn(torch.cat([condition, x], dim=1), level)
