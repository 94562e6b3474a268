"""FID's Inception-v3 in plain PyTorch, written from its architecture: a table of branches, read by one function.

State dict names and shapes are those of `pt_inception-2015-12-05-6726825d.pth`: `BLOCK.BRANCH.conv.weight`,
`BLOCK.BRANCH.bn.{weight,bias,running_mean,running_var,num_batches_tracked}`, `fc.{weight,bias}`.
"""

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

# A branch is a chain of (name, channels, kernel, stride); a list in its place is convolutions side by side, a string a pool.
STEM = [("Conv2d_1a_3x3", 3, 32, 3, 2, 0), ("Conv2d_2a_3x3", 32, 32, 3, 1, 0), ("Conv2d_2b_3x3", 32, 64, 3, 1, 1)]
STEM_2 = [("Conv2d_3b_1x1", 64, 80, 1, 1, 0), ("Conv2d_4a_3x3", 80, 192, 3, 1, 0)]


def block_a(pooled):
    return [
        [("branch1x1", 64, 1, 1)],
        [("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)],
        [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 1)],
        ["mean", ("branch_pool", pooled, 1, 1)],
    ]


BLOCK_B = [
    [("branch3x3", 384, 3, 2)],
    [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 2)],
    ["halve"],
]


def block_c(inner):
    return [
        [("branch1x1", 192, 1, 1)],
        [("branch7x7_1", inner, 1, 1), ("branch7x7_2", inner, (1, 7), 1), ("branch7x7_3", 192, (7, 1), 1)],
        [
            ("branch7x7dbl_1", inner, 1, 1),
            ("branch7x7dbl_2", inner, (7, 1), 1),
            ("branch7x7dbl_3", inner, (1, 7), 1),
            ("branch7x7dbl_4", inner, (7, 1), 1),
            ("branch7x7dbl_5", 192, (1, 7), 1),
        ],
        ["mean", ("branch_pool", 192, 1, 1)],
    ]


BLOCK_D = [
    [("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)],
    [
        ("branch7x7x3_1", 192, 1, 1),
        ("branch7x7x3_2", 192, (1, 7), 1),
        ("branch7x7x3_3", 192, (7, 1), 1),
        ("branch7x7x3_4", 192, 3, 2),
    ],
    ["halve"],
]


def block_e(pool):
    return [
        [("branch1x1", 320, 1, 1)],
        [("branch3x3_1", 384, 1, 1), [("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1)]],
        [
            ("branch3x3dbl_1", 448, 1, 1),
            ("branch3x3dbl_2", 384, 3, 1),
            [("branch3x3dbl_3a", 384, (1, 3), 1), ("branch3x3dbl_3b", 384, (3, 1), 1)],
        ],
        [pool, ("branch_pool", 192, 1, 1)],
    ]


BLOCKS = {
    **{f"Mixed_5{letter}": block_a(pooled) for letter, pooled in (("b", 32), ("c", 64), ("d", 64))},
    "Mixed_6a": BLOCK_B,
    **{f"Mixed_6{letter}": block_c(inner) for letter, inner in (("b", 128), ("c", 160), ("d", 160), ("e", 192))},
    "Mixed_7a": BLOCK_D,
    "Mixed_7b": block_e("mean"),
    "Mixed_7c": block_e("max"),
}
POOLS = {
    "mean": lambda x: avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    "max": lambda x: max_pool2d(x, 3, stride=1, padding=1),
    "halve": lambda x: max_pool2d(x, 3, stride=2),
}


class Conv(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, padding):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return relu(self.bn(self.conv(x)))


class Block(nn.Module):
    def __init__(self, inputs, branches):
        super().__init__()
        self.branches = branches
        self.outputs = sum(self._add(inputs, branch) for branch in branches)

    def _add(self, channels, branch):
        for layer in branch:
            if isinstance(layer, list):
                channels = sum(self._add(channels, [side]) for side in layer)
            elif isinstance(layer, tuple):
                name, outputs, kernel, stride = layer
                around = (kernel // 2, kernel // 2) if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
                self.add_module(name, Conv(channels, outputs, kernel, stride, (0, 0) if stride > 1 else around))
                channels = outputs
        return channels

    def _run(self, x, layer):
        if isinstance(layer, list):
            return torch.cat([self._run(x, side) for side in layer], dim=1)
        return POOLS[layer](x) if isinstance(layer, str) else getattr(self, layer[0])(x)

    def forward(self, x):
        results = []
        for branch in self.branches:
            y = x
            for layer in branch:
                y = self._run(y, layer)
            results.append(y)
        return torch.cat(results, dim=1)


class Inception(nn.Module):
    """`[B, 3, H, W]` in [-1, 1] → the four taps and both logits, by name."""

    def __init__(self):
        super().__init__()
        for name, *sizes in STEM + STEM_2:
            self.add_module(name, Conv(*sizes))
        channels = 192
        for name, branches in BLOCKS.items():
            block = Block(channels, branches)
            self.add_module(name, block)
            channels = block.outputs
        self.fc = nn.Linear(channels, 1008)

    def forward(self, x):
        taps = {}
        for tap, stem in (("64", STEM), ("192", STEM_2)):
            for name, *_ in stem:
                x = getattr(self, name)(x)
            x = taps[tap] = POOLS["halve"](x)
        for name in BLOCKS:
            x = getattr(self, name)(x)
            if name in ("Mixed_6e", "Mixed_7c"):
                taps["768" if name == "Mixed_6e" else "2048"] = x
        found = {tap: value.mean(dim=(2, 3)) for tap, value in taps.items()}
        unbiased = found["2048"] @ self.fc.weight.T
        return {**found, "logits_unbiased": unbiased, "logits": unbiased + self.fc.bias}


def randomised(seed=0):
    """The network with random weights that keep activations near 1, and batch statistics that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    net = Inception().eval()

    def draw(tensor, low, high):
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                draw(module.weight, 0.7, 1.3)
                draw(module.bias, -0.2, 0.2)
                draw(module.running_mean, -0.2, 0.2)
                draw(module.running_var, 0.5, 1.5)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = (6 / module.weight[0].numel()) ** 0.5
                draw(module.weight, -bound, bound)
        draw(net.fc.bias, -1.0, 1.0)
    return net
