"""Writes NAME.json for each network, and names.json, from reference implementations in torch.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31
    git clone https://github.com/AmigoCDT/Salient-Net && git -C Salient-Net checkout b7e19f6
    python tests/golden/make_torch.py Salient-Net [NAME ...]

In float64, with the weights and images of rule.py, without dropout, and with rule.py's choice of
examples in place of the random one of stochastic depth (resnet17d): logits in inference mode; then
the loss, the gradients and the updated running statistics of one training step. Arrays are stored
as digests. Networks of 17 and 21 layers are those of 50 and 121, with fewer blocks.
names.json has the shapes of weights by name, and for deeper networks the SHA-256 of such a list;
an unused convolution of the released SSA block is omitted.
"""

import argparse
import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import nn

# A CPU build of torch lacks the operators that torchvision registers shapes for.
library = torch.library.Library('torchvision', 'DEF')
library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

import rule
import timm
import torchvision
from torchvision.models.resnet import Bottleneck, ResNet

HERE = Path(__file__).parent
Make = Callable[[], nn.Module]
SMALL = (1, 2, 1, 1)  # blocks of each stage


def tv(name: str, **options: Any) -> Make:
    return partial(torchvision.models.get_model, name, num_classes=rule.CLASSES, **options)


def tm(name: str, **options: Any) -> Make:
    return partial(timm.create_model, name, num_classes=rule.CLASSES, **options)


def attended(name: str, attention: str, **options: Any) -> Make:
    return tm(name, block_args={'attn_layer': attention}, **options)


def narrow_vgg(name: str) -> nn.Module:
    """VGG with 64 hidden units instead of 4096, which have a hundred million weights."""
    model = torchvision.models.get_model(name, num_classes=rule.CLASSES, dropout=0.0)
    model.classifier[0] = nn.Linear(512 * 7 * 7, 64)
    model.classifier[3] = nn.Linear(64, 64)
    model.classifier[6] = nn.Linear(64, rule.CLASSES)
    return model


def released(clone: Path) -> Callable[[str], ModuleType]:
    """Imports modules of the clone's package `models`, bypassing its broken __init__."""
    package = ModuleType('models')
    package.__path__ = [str(clone / 'models')]
    sys.modules['models'] = package
    return lambda name: importlib.import_module(f'models.{name}')


def computing(models: Callable[[str], ModuleType]) -> dict[str, Make]:
    """The networks whose results are stored."""
    official, grouped = models('official_SSANet'), models('official_group_SSAResNet')
    vgg, resnet = models('vgg'), models('resnet')
    small_resnet = partial(ResNet, Bottleneck, SMALL, num_classes=rule.CLASSES)
    googlenet = {'aux_logits': False, 'transform_input': False, 'init_weights': False}
    return {
        'resnet50': tv('resnet50'),
        'resnext17_32x4d': partial(small_resnet, groups=32, width_per_group=4),
        'resnext50_32x4d': tv('resnext50_32x4d'),
        'wide_resnet17_2': partial(small_resnet, width_per_group=128),
        'wide_resnet50_2': tv('wide_resnet50_2'),
        'vgg11_bn_narrow': partial(narrow_vgg, 'vgg11_bn'),
        'vgg16_bn_narrow': partial(narrow_vgg, 'vgg16_bn'),
        'densenet21': partial(
            torchvision.models.DenseNet, block_config=(2, 2, 2, 2), num_classes=rule.CLASSES
        ),
        'densenet121': tv('densenet121'),
        'googlenet': tv('googlenet', dropout=0.0, **googlenet),
        'mobilenet_v2': tv('mobilenet_v2', dropout=0.0),
        'resnet17d': tm('resnet50d', layers=SMALL, drop_path_rate=0.7),
        'seresnet17': tm('seresnet50', layers=SMALL),
        'seresnet50': tm('seresnet50'),
        'ecaresnet17': attended('resnet50', 'eca', layers=SMALL),
        'cbamresnet17': attended('resnet50', 'cbam', layers=SMALL),
        'resnetv2_17': tm('resnetv2_50', layers=SMALL),
        'resnetv2_18': tm('resnetv2_18'),
        'resnetv2_50': tm('resnetv2_50'),
        'mobilenetv1_100': tm('mobilenetv1_100'),
        'mobilenetv2_100': tm('mobilenetv2_100'),
        'ssanet17': partial(
            official.salientnet, official.Bottleneck, SMALL, num_classes=rule.CLASSES
        ),
        'ssanet50': partial(official.SalientResNet50, num_classes=rule.CLASSES),
        'gssanet17': partial(
            grouped.salientnet, grouped.Bottleneck, SMALL, num_classes=rule.CLASSES
        ),
        'gssanet50': partial(grouped.g_SalientResNet50, num_classes=rule.CLASSES),
        'cifar_resnet18': resnet.ResNet18,
        'cifar_vgg11': partial(vgg.VGG, 'VGG11'),
    }


def only_named(models: Callable[[str], ModuleType]) -> dict[str, Make]:
    """More networks, whose names and shapes are stored."""
    official, grouped = models('official_SSANet'), models('official_group_SSAResNet')
    vgg, resnet = models('vgg'), models('resnet')
    depths = (18, 34, 50, 101, 152)
    vggs = [f'vgg{depth}_bn' for depth in (11, 13, 16, 19)]
    densenets = [f'densenet{depth}' for depth in (121, 161, 169, 201)]
    wide = ['resnext50_32x4d', 'resnext101_32x8d', 'resnext101_64x4d']
    wide += ['wide_resnet50_2', 'wide_resnet101_2']
    both = [*(f'resnet{depth}' for depth in depths), *wide, *vggs, *densenets]
    googlenet = tv('googlenet', aux_logits=False, init_weights=False)
    classes = {'num_classes': rule.CLASSES}
    return {
        **{f'torchvision {name}': tv(name) for name in [*both, 'mobilenet_v2']},
        'torchvision googlenet': googlenet,
        **{f'timm {name}': tm(name) for name in both},
        **{f'timm {name}': tm(name) for name in ('mobilenetv1_100', 'mobilenetv2_100')},
        **{f'timm resnetv2_{depth}': tm(f'resnetv2_{depth}') for depth in depths},
        'timm resnet50d': tm('resnet50d'),
        **{f'timm seresnet{depth}': tm(f'seresnet{depth}') for depth in depths[2:]},
        **{f'timm {a}_resnet18': attended('resnet18', a) for a in ('eca', 'cbam')},
        **{f'timm {a}_resnet50': attended('resnet50', a) for a in ('eca', 'cbam')},
        **{
            f'ssanet ssa_resnet{depth}': partial(
                getattr(official, f'SalientResNet{depth}'), **classes
            )
            for depth in depths
        },
        **{
            f'ssanet gssa_resnet{depth}': partial(
                getattr(grouped, f'g_SalientResNet{depth}'), **classes
            )
            for depth in depths
        },
        **{f'ssanet_cifar resnet{depth}': getattr(resnet, f'ResNet{depth}') for depth in depths},
        **{f'ssanet_cifar {name}': partial(vgg.VGG, name[:-3].upper()) for name in vggs},
    }


# The training step of these is stored for a smaller or differently named network.
LOGITS_ONLY = (
    'resnext50_32x4d',
    'wide_resnet50_2',
    'vgg16_bn_narrow',
    'densenet121',
    'mobilenetv2_100',
    'gssanet50',
)
# Networks whose complete lists of names are stored.
LISTED = (
    'torchvision resnet18',
    'torchvision vgg11_bn',
    'torchvision googlenet',
    'torchvision mobilenet_v2',
    'timm vgg11_bn',
    'timm mobilenetv1_100',
    'timm mobilenetv2_100',
    'timm resnetv2_18',
    'timm eca_resnet18',
    'timm cbam_resnet18',
    'ssanet ssa_resnet18',
    'ssanet gssa_resnet18',
    'ssanet_cifar resnet18',
    'ssanet_cifar vgg11_bn',
)


def draw(mask: torch.Tensor, probability: float) -> torch.Tensor:
    """Stands for `Tensor.bernoulli_` of shape [N, 1, 1, 1]."""
    return mask.copy_(torch.from_numpy(rule.kept(probability)))


def golden(model: nn.Module, size: int, training: bool) -> dict:
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(rule.weight(name, tuple(tensor.shape))))
    images = torch.from_numpy(rule.images(size)).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        logits = model.eval()(images)
    if not training:
        return {'logits': logits.tolist()}
    loss = nn.functional.cross_entropy(
        model.train()(images), torch.from_numpy(rule.labels()).long()
    )
    loss.backward()
    return {
        'logits': logits.tolist(),
        'loss': loss.item(),
        'gradients': {
            n: rule.digest(p.grad.numpy())
            for n, p in model.named_parameters()
            if p.grad is not None
        },
        'running': {
            n: rule.digest(b.numpy()) for n, b in model.named_buffers() if b.is_floating_point()
        },
    }


def shapes_by_name(make: Make) -> dict[str, list[int]]:
    with torch.device('meta'):
        state = make().state_dict()
    return {n: list(t.shape) for n, t in state.items() if 'Salient.conv.' not in n}


def versions() -> dict[str, str]:
    return {m.__name__: m.__version__ for m in (torch, torchvision, timm)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('clone', type=Path)
    parser.add_argument('names', nargs='*')
    arguments = parser.parse_args()
    models = released(arguments.clone)
    for name, make in computing(models).items():
        if not arguments.names or name in arguments.names:
            with mock.patch('torch.Tensor.bernoulli_', draw):
                content = golden(make().double(), rule.size(name), name not in LOGITS_ONLY)
            rule.write(HERE / f'{name}.json', {'made_with': versions(), **content})
            print(name, 'loss', content.get('loss'), flush=True)
    if not arguments.names or 'names' in arguments.names:
        shapes = {name: shapes_by_name(make) for name, make in only_named(models).items()}
        content = {
            'made_with': versions(),
            'shapes': {name: shapes[name] for name in LISTED},
            'sha256': {name: rule.sha256(shapes[name]) for name in shapes if name not in LISTED},
        }
        rule.write(HERE / 'names.json', content)


if __name__ == '__main__':
    main()
