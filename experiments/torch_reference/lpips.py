"""LPIPS v0.1 on AlexNet in plain PyTorch, written from its architecture.

State dict names and shapes are those of torchvision's AlexNet (`features.N.{weight,bias}`) and of the lpips package's
`weights/v0.1/alex.pth` (`linN.model.1.weight`).
"""

import torch
from torch import nn


class AlexNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))  # of no account

    def forward(self, x):
        found = []
        for layer in self.features[:-1]:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        return found


class Linear(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, kernel_size=1, bias=False))


class Linears(nn.Module):
    def __init__(self):
        super().__init__()
        for n, channels in enumerate((64, 192, 384, 256, 256)):
            setattr(self, f"lin{n}", Linear(channels))

    def forward(self, differences):
        return [getattr(self, f"lin{n}").model(difference) for n, difference in enumerate(differences)]


def scaled(x):
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64).to(x)
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64).to(x)
    return (x - shift[:, None, None]) / scale[:, None, None]


def unit(features):
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


@torch.no_grad()
def distances(alexnet, linears, x, y):
    """x, y `[B, 3, H, W]` in [-1, 1] → `[B]`."""
    pairs = zip(alexnet(scaled(x)), alexnet(scaled(y)), strict=True)
    counted = linears([(unit(a) - unit(b)).square() for a, b in pairs])
    return sum(values.mean(dim=(1, 2, 3)) for values in counted)


@torch.no_grad()
def randomised(seed=0):
    """Both with random weights that keep activations near 1; those that count are positive, as the trained ones."""
    generator = torch.Generator().manual_seed(seed)
    alexnet, linears = AlexNet().eval(), Linears().eval()
    for module in alexnet.features:
        if isinstance(module, nn.Conv2d):
            bound = (6 / module.weight[0].numel()) ** 0.5
            module.weight.uniform_(-bound, bound, generator=generator)
            module.bias.uniform_(-0.2, 0.2, generator=generator)
    for parameter in linears.parameters():
        parameter.uniform_(0, 1, generator=generator)
    return alexnet, linears
