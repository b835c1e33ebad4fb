"""SSA-ResNet-20 for small images in PyTorch, and its training, for torch_learning.py.

Written from the papers. Nothing here imports JAX or this package.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_resnet import SSA

Batch = Mapping[str, np.ndarray]  # image uint8 [N, H, W, 3], label int32 [N]


class BasicBlock(nn.Module):
    """relu(SSA(BatchNorm(conv(relu(BatchNorm(conv(x)))))) + shortcut(x)), all convolutions 3x3."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.ssa = SSA(width)
        self.stride, self.added = stride, width - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, C, H, W]
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.ssa(self.bn2(self.conv2(y)))
        # He et al. 2015, option A: drops pixels and pads channels with zeros.
        strided = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + functional.pad(strided, (0, 0, 0, 0, 0, self.added)))


class SSAResNet20(nn.Module):
    """The ResNet-20 of He et al. 2015, section 4.2, with SSA at the end of each branch."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, 1)
        self.layer2 = stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, H, W]
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))  # [N, K]


def stage(inputs: int, width: int, stride: int) -> nn.Sequential:
    blocks = [BasicBlock(inputs, width, stride)]
    return nn.Sequential(*blocks, *(BasicBlock(width, width, 1) for _ in range(2)))


def normalize(batch: Batch, mean: tuple, std: tuple, dtype: torch.dtype) -> torch.Tensor:
    """(image / 255 - mean) / std, [N, 3, H, W]."""
    image = torch.from_numpy(np.moveaxis(batch['image'], 3, 1).copy()).to(dtype)
    mean, std = (torch.tensor(values, dtype=dtype).view(3, 1, 1) for values in (mean, std))
    return (image / 255 - mean) / std


def train(
    network: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    schedule_steps: int,
) -> Iterator[float]:
    """SGD with momentum, L2 decay and a cosine schedule; yields the loss before each step."""
    optimizer = torch.optim.SGD(
        network.parameters(), learning_rate, momentum, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule_steps)
    network.train()
    for image, label in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(image), label)
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()


@torch.no_grad()
def evaluate(network: nn.Module, image: torch.Tensor, label: torch.Tensor) -> dict[str, float]:
    """Mean loss and top-1 in percent over all test images, in one batch."""
    logits = network.eval()(image)
    correct = (logits.argmax(1) == label).double().mean()
    return {
        'loss': functional.cross_entropy(logits, label).item(),
        'top1': 100 * correct.item(),
    }


@torch.no_grad()
def make_variances_biased(network: nn.Module, pixels: int, steps: int) -> None:
    """Turns running variances into those that flax would have after the same training.

    A training step normalizes by the biased variance of n values in both frameworks. The running
    variance averages the biased ones in flax and n / (n - 1) times as much in torch; in both, its
    initial 1 still has the weight (1 - momentum)^steps.

    Args:
      network: trained.
      pixels: values per channel, N * H * W, at the full height and width.
      steps: number of training steps taken.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            halvings = int(name[5]) - 1 if name.startswith('layer') else 0
            n = pixels / 4**halvings
            assert module.momentum is not None
            assert module.running_var is not None
            initial = (1 - module.momentum) ** steps
            module.running_var.sub_(initial).mul_((n - 1) / n).add_(initial)
