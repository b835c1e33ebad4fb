"""Writes recipes.json: losses, mixing, averages, optimizers and schedules of timm and torch.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31
    python tests/golden/make_timm_recipes.py

In float64. `training` is 20 steps of a ResNet-18 with recipe A2 of "ResNet strikes back": binary
cross-entropy of mixed targets, LAMB, and averages of the weights, with rule.py's weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch

# A CPU build of torch lacks the operators that torchvision registers shapes for.
library = torch.library.Library('torchvision', 'DEF')
library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

import rule
import timm
from timm.data.mixup import Mixup, mixup_target
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from timm.optim import Lamb, Lion
from timm.scheduler import CosineLRScheduler, PolyLRScheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import lr_scheduler

CLASSES, WEIGHT = 7, 0.3  # of the first label in mixed targets
PARAMETERS = {'conv1.weight': (4, 3, 2, 2), 'bn1.weight': (4,), 'fc.bias': (5,)}
RATE, DECAY, STEPS = 0.02, 0.1, 5
DRAWS = [  # lambda or None for mixup, the center of the box, and height and width of the images
    (0.3, None, (6, 7)),
    (0.3, (0, 0), (6, 7)),
    (0.62, (3, 5), (6, 7)),
    (0.05, (8, 2), (9, 11)),
    (0.97, (4, 4), (9, 11)),
    (0.5, (120, 200), (224, 224)),
]


def losses() -> dict[str, list[float]]:
    """One value per example; mixed targets flip the batch."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(2 * rng.normal(size=(6, CLASSES)))
    label = torch.arange(6) % CLASSES
    found = {}
    for smoothing in (0.0, 0.1):
        mixed = mixup_target(label, CLASSES, WEIGHT, smoothing).double()
        soft = SoftTargetCrossEntropy()
        found[f'mixed cross-entropy {smoothing}'] = [
            soft(x[None], q[None]).item() for x, q in zip(logits, mixed, strict=True)
        ]
        for threshold in (None, 0.2, 0.5):
            bce = BinaryCrossEntropy(smoothing, target_threshold=threshold, reduction='none')
            for name, target in (('hard', label), ('mixed', mixed)):
                values = bce(logits, target).mean(dim=1)  # over classes, as its reduction 'mean'
                found[f'{name} binary cross-entropy {smoothing} {threshold}'] = values.tolist()
    return found


@contextmanager
def drawn(weight: float, center: tuple[int, int] | None) -> Iterator[Mixup]:
    """A Mixup that draws these."""
    mixup = Mixup(label_smoothing=0.0, num_classes=10, cutmix_alpha=1.0)
    params = mock.patch.object(
        mixup, '_params_per_batch', return_value=(weight, center is not None)
    )
    with params, mock.patch('numpy.random.randint', side_effect=center):
        yield mixup


def mixing() -> list[dict]:
    content = []
    for weight, center, (height, width) in DRAWS:
        images = np.random.default_rng(1).normal(size=(4, height, width, 3))
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        with drawn(weight, center) as mixup:
            mixed, target = mixup(x, torch.arange(4))
        content.append(
            {
                'weight': weight,
                'center': center,
                'size': (height, width),
                'label_weight': target[0, 0].item(),
                'images': rule.digest(mixed.permute(0, 2, 3, 1).numpy()),
            }
        )
    return content


def parameters() -> dict[str, torch.Tensor]:
    return {
        name: nn.Parameter(torch.from_numpy(rule.weight(name, shape)))
        for name, shape in PARAMETERS.items()
    }


def optimizers() -> dict[str, dict]:
    """Parameters after some steps; only the kernel is decayed."""
    found = {}
    for name, (kind, options) in {
        'lamb clipped': (Lamb, {'max_grad_norm': 1.0}),
        'lion': (Lion, {'betas': (0.9, 0.99)}),
    }.items():
        params = parameters()
        kernel, *rest = params.values()
        groups = [{'params': [kernel]}, {'params': rest, 'weight_decay': 0.0}]
        optimizer = kind(groups, lr=RATE, weight_decay=DECAY, **options)
        for step in range(STEPS):
            for path, p in params.items():
                p.grad = torch.from_numpy(rule.weight(f'gradient {step} {path}', tuple(p.shape)))
            optimizer.step()
        found[name] = {path: p.detach().numpy().ravel().tolist() for path, p in params.items()}
    return found


def averages() -> dict[str, list]:
    """A module's average after each of nine updates, without and with a warm-up of three steps."""
    found = {}
    for warmup in (0, 3):
        module = nn.BatchNorm1d(1).double()
        ema = ModelEmaV3(module, decay=0.8, update_after_step=warmup)
        values = []
        for step in range(9):
            with torch.no_grad():
                module.weight.fill_(float(np.sin(step)))
                module.running_var.fill_(float(np.cos(step)))
            ema.update(module, step + 1)  # timm counts updates from 1
            values.append([ema.module.weight.item(), ema.module.running_var.item()])
        found[str(warmup)] = values
    return found


def schedules() -> dict[str, list[float]]:
    """Learning rates of 100 steps: 20 of warm-up, and, where there are any, 10 of cool-down."""

    def optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)

    def timms(kind: type, length: int, **options: float) -> list[float]:
        warmup = {'warmup_t': 20, 'warmup_lr_init': 0.05, 'warmup_prefix': True}
        schedule = kind(optimizer(), length, lr_min=0.01, t_in_epochs=False, **warmup, **options)
        return [schedule._get_lr(step)[0] for step in range(100)]

    sgd = optimizer()
    rise = lr_scheduler.LinearLR(sgd, start_factor=0.01, total_iters=20)
    fall = lr_scheduler.CosineAnnealingLR(sgd, T_max=80)
    joined = lr_scheduler.SequentialLR(sgd, [rise, fall], [20])
    torchs = []
    for _ in range(100):
        torchs.append(sgd.param_groups[0]['lr'])
        sgd.step()
        joined.step()
    return {
        'cosine': timms(CosineLRScheduler, 70),
        'polynomial': timms(PolyLRScheduler, 80, power=2.0),
        'torchvision': torchs,
    }


def training() -> dict:
    """Every second step cuts; the averages of the parameters and of running statistics."""
    model = timm.create_model('resnet18', num_classes=rule.CLASSES).double()
    state = model.state_dict()
    weights = {
        name: torch.from_numpy(np.asarray(rule.weight(name, tuple(t.shape))))
        for name, t in state.items()
        if t.is_floating_point()
    }
    model.load_state_dict(weights, strict=False)
    names = dict(model.named_parameters())
    kernels = [p for p in names.values() if p.ndim > 1]
    rest = [p for p in names.values() if p.ndim <= 1]
    optimizer = Lamb(
        [{'params': kernels}, {'params': rest, 'weight_decay': 0.0}], lr=5e-4, weight_decay=0.02
    )
    loss_of = BinaryCrossEntropy(smoothing=0.0, target_threshold=0.2)
    ema = ModelEmaV3(model, decay=0.9)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

    def count(norm: nn.Module, args: tuple[torch.Tensor], _: torch.Tensor) -> None:
        norm.count = args[0].numel() / args[0].shape[1]

    for norm in norms:
        norm.register_forward_hook(count)
    losses = []
    for step in range(20):
        x = torch.from_numpy(rule.images(32)).permute(0, 3, 1, 2).roll(step, dims=-1).contiguous()
        label = torch.from_numpy(rule.labels()).long()
        with drawn(0.35, (10, 20) if step % 2 else None) as mixup:
            x, target = mixup(x, label)
        before = [m.running_var.clone() for m in norms]
        loss = loss_of(model.train()(x), target.double())
        optimizer.zero_grad()
        loss.backward()
        for m, old in zip(norms, before, strict=True):  # biased, as flax's
            kept = 0.9 * old
            m.running_var.copy_(kept + (m.running_var - kept) * (m.count - 1) / m.count)
        optimizer.step()
        ema.update(model, step + 1)
        losses.append(loss.item())

    def digests(module: nn.Module) -> dict[str, list[float]]:
        return {
            name: rule.digest(t.detach().numpy())
            for name, t in module.state_dict().items()
            if t.is_floating_point()
        }

    return {'losses': losses, 'parameters': digests(model), 'averages': digests(ema.module)}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    content = {
        'made_with': {m.__name__: m.__version__ for m in (torch, timm)},
        'losses': losses(),
        'mixing': mixing(),
        'optimizers': optimizers(),
        'averages': averages(),
        'schedules': schedules(),
        'training': training(),
    }
    path = Path(__file__).with_name('recipes.json')
    rule.write(path, content)
    print(path)


if __name__ == '__main__':
    main()
