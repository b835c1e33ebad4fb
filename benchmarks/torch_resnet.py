"""ResNet-50 v1.5 in PyTorch, plain, with SE or with SSA, for vs_torch.py.

Written from the papers; with no attention it has torchvision's layers in torchvision's order.
"""

import torch
from torch import nn


class SSA(nn.Module):
    """The SSA block as PyTorch users write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, C, H, W]
        z = x.mean((2, 3), keepdim=True)
        s = (z * x).sum(1, keepdim=True)
        return torch.sigmoid(self.bn(s)) * x


class SE(nn.Module):
    """Squeeze-and-Excitation, ratio 16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, C, H, W]
        z = x.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(z)))) * x


ATTENTION = {'': None, 'ssa_': SSA, 'se_': SE}


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, attention: type | None) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.attention = attention(outputs) if attention else nn.Identity()
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.attention(self.bn3(self.conv3(y)))
        return self.relu(y + self.downsample(x))


def resnet50(name: str) -> nn.Module:
    """'resnet50', 'ssa_resnet50' or 'se_resnet50', 1000 classes."""
    attention = ATTENTION[name.removesuffix('resnet50')]
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(Bottleneck(inputs, width, stride, attention))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))
