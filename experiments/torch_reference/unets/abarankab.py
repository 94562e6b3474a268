"""abarankab/DDPM, `ddpm/unet.py`: the network, with a class embedding in every residual block, and what its file holds.

Marks: GroupNorm ε 1e-5, stride-2 convolutions padded all round, [sin, cos] with shift 0, attention by index of level.
"""

from copy import deepcopy

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad, silu

from torch_reference.unets.parts import Sinusoids, attend, block_widths, chain, conv1, conv3

TINY = {
    "img_channels": 3,
    "base_channels": 32,
    "channel_mults": (1, 2),
    "num_res_blocks": 1,
    "time_emb_dim": 128,
    "num_classes": 5,
    "attention_resolutions": (1,),
}
CIFAR10 = {
    "img_channels": 3,
    "base_channels": 128,
    "channel_mults": (1, 2, 2, 2),
    "num_res_blocks": 2,
    "time_emb_dim": 512,
    "attention_resolutions": (1,),
}
CIFAR10_COND = {**CIFAR10, "num_classes": 10}


class AttentionBlock(nn.Module):
    def __init__(self, channels, num_groups):
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, channels)
        self.to_qkv = conv1(channels, 3 * channels)
        self.to_out = conv1(channels, channels)

    def forward(self, x):
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        return x + self.to_out(attend(q, k, v).view_as(x))


class ResidualBlock(nn.Module):
    """Its attention, where it has any, is inside it."""

    def __init__(self, channels, out_channels, attended, *, dropout, time_emb_dim, num_classes, activation, num_groups):
        super().__init__()
        self.activation = activation
        self.norm_1 = nn.GroupNorm(num_groups, channels)
        self.conv_1 = conv3(channels, out_channels)
        self.norm_2 = nn.GroupNorm(num_groups, out_channels)
        self.conv_2 = nn.Sequential(nn.Dropout(dropout), conv3(out_channels, out_channels))
        self.time_bias = nn.Linear(time_emb_dim, out_channels)
        self.class_bias = nn.Embedding(num_classes, out_channels) if num_classes else None
        self.residual_connection = nn.Identity() if channels == out_channels else conv1(channels, out_channels)
        self.attention = AttentionBlock(out_channels, num_groups) if attended else nn.Identity()

    def forward(self, x, time_emb, y):
        h = self.conv_1(self.activation(self.norm_1(x)))
        h = h + self.time_bias(self.activation(time_emb))[:, :, None, None]
        if self.class_bias is not None:
            h = h + self.class_bias(y)[:, :, None, None]
        h = self.conv_2(self.activation(self.norm_2(h)))
        return self.attention(h + self.residual_connection(x))


def downsample(channels):
    return chain(downsample=conv3(channels, channels, stride=2))


def upsample(channels):
    return chain(upsample=nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv3(channels, channels)))


class UNet(nn.Module):
    """ε̂ for x `[B, img_channels, H, W]`, t `[B]` and, with `num_classes`, y `int64[B]`.

    attention_resolutions: indices of levels, 0 at full resolution.
    activation: SiLU in its scripts; the original's own default is ReLU.
    """

    def __init__(
        self,
        img_channels,
        base_channels,
        channel_mults=(1, 2, 4, 8),
        num_res_blocks=2,
        time_emb_dim=None,
        num_classes=None,
        activation=silu,
        dropout=0.1,
        attention_resolutions=(),
        num_groups=32,
        initial_pad=0,
    ):
        super().__init__()
        self.activation, self.initial_pad = activation, initial_pad
        widths = [base_channels * multiple for multiple in channel_mults]
        down, up = block_widths(base_channels, widths, num_res_blocks)
        options = {
            "dropout": dropout,
            "time_emb_dim": time_emb_dim,
            "num_classes": num_classes,
            "activation": activation,
            "num_groups": num_groups,
        }

        def blocks(level, pairs):
            return [ResidualBlock(*pair, level in attention_resolutions, **options) for pair in pairs]

        self.time_mlp = nn.Sequential(
            Sinusoids(base_channels),
            nn.Linear(base_channels, time_emb_dim),
            nn.SiLU(),
            nn.Linear(time_emb_dim, time_emb_dim),
        )
        self.init_conv = conv3(img_channels, base_channels)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, pairs in enumerate(down):
            self.downs.extend(blocks(level, pairs))
            if level < len(down) - 1:
                self.downs.append(downsample(widths[level]))
        self.mid = nn.ModuleList(
            ResidualBlock(widths[-1], widths[-1], attended, **options) for attended in (True, False)
        )
        for level, pairs in reversed(list(enumerate(up))):
            self.ups.extend(blocks(level, pairs))
            if level:
                self.ups.append(upsample(widths[level]))
        self.out_norm = nn.GroupNorm(num_groups, widths[0])
        self.out_conv = conv3(widths[0], img_channels)

    def forward(self, x, t, y=None):
        margin, time_emb = self.initial_pad, self.time_mlp(t)

        def run(layer, x):
            return layer(x, time_emb, y) if isinstance(layer, ResidualBlock) else layer(x)

        x = self.init_conv(pad(x, (margin,) * 4))
        skips = [x]
        for layer in self.downs:
            x = run(layer, x)
            skips.append(x)
        for layer in self.mid:
            x = run(layer, x)
        for layer in self.ups:
            if isinstance(layer, ResidualBlock):
                x = torch.cat([x, skips.pop()], dim=1)
            x = run(layer, x)
        x = self.out_conv(self.activation(self.out_norm(x)))
        return pad(x, (-margin,) * 4)


class GaussianDiffusion(nn.Module):
    """What a `*-model.pth` holds: `model`, `ema_model` and eight float32 buffers of length T.

    betas: float64 NumPy `[T]`. Its forward is the network's, EMA by default as when it samples.
    """

    def __init__(self, model, betas):
        super().__init__()
        self.model, self.ema_model = model, deepcopy(model)
        alphas = 1 - betas
        bars = np.cumprod(alphas)
        buffers = {
            "betas": betas,
            "alphas": alphas,
            "alphas_cumprod": bars,
            "sqrt_alphas_cumprod": np.sqrt(bars),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - bars),
            "reciprocal_sqrt_alphas": np.sqrt(1 / alphas),
            "remove_noise_coeff": betas / np.sqrt(1 - bars),
            "sigma": np.sqrt(betas),
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, x, t, y=None, *, use_ema=True):
        return (self.ema_model if use_ema else self.model)(x, t, y)
