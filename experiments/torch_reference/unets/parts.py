"""What the four networks share."""

import math
from collections import OrderedDict

import torch
from torch import nn


class Sinusoids(nn.Module):
    """t `[B]` or `[B, 1]` → `[B, dim]`: sin, then cos, of t·10⁴^(-i/(dim/2 - shift)) for i < dim/2.

    The DDPM's TensorFlow code has shift 1; OpenAI's has shift 0 and the cosines first.
    """

    def __init__(self, dim, *, shift=0, cos_first=False):
        super().__init__()
        self.half, self.shift, self.cos_first = dim // 2, shift, cos_first
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # follows the model's dtype and device

    def forward(self, t):
        i = torch.arange(self.half).to(self.zero)
        angles = t.reshape(-1, 1).to(self.zero) * torch.exp(-math.log(10_000) / (self.half - self.shift) * i)
        pair = angles.sin(), angles.cos()
        return torch.cat(pair[::-1] if self.cos_first else pair, dim=1)


def attend(q, k, v):
    """Softmax attention over the N positions, scaled by 1/√C: three `[…, C, N]` → `[…, C, N]`."""
    weights = torch.softmax(q.mT @ k / math.sqrt(q.shape[-2]), dim=-1)
    return v @ weights.mT


def conv3(channels, out_channels, **options):
    """A 3×3 convolution with one pixel of zeros on every side."""
    return nn.Conv2d(channels, out_channels, 3, padding=1, **options)


def conv1(channels, out_channels, **options):
    """A 1×1 convolution."""
    return nn.Conv2d(channels, out_channels, 1, **options)


def chain(**modules):
    """A `Sequential` whose children have names."""
    return nn.Sequential(OrderedDict(modules))


def block_widths(channels, widths, num_res_blocks):
    """(down, up): the (in, out) channels of every residual block, `[level][block]`, level 0 at full resolution.

    The first convolution, every block and every downsampling leave a skip; a block on the way up takes the latest.
    """
    skips, down, up = [channels], [], []
    for level, width in enumerate(widths):
        down.append([(channels, width)] + [(width, width)] * (num_res_blocks - 1))
        skips += [width] * (num_res_blocks + (level < len(widths) - 1))
        channels = width
    for width in reversed(widths):
        up.insert(0, [])
        for _ in range(num_res_blocks + 1):
            up[0].append((channels + skips.pop(), width))
            channels = width
    return down, up


@torch.no_grad()
def randomised(module, seed):
    """`module` in eval mode with every parameter non-zero at random, scaled so that the signal stays O(1).

    The draws are float64 whatever the weights' dtype: a float32 and a float64 copy differ by rounding alone.
    """
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            normal = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if name == "bias":
                value = 0.3 * normal
            elif isinstance(part, nn.GroupNorm):
                value = 0.5 + torch.sigmoid(normal)
            elif isinstance(part, nn.Embedding):
                value = normal
            else:
                value = normal / math.sqrt(parameter[0].numel())
            parameter.copy_(value)
    return module.eval()


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())
